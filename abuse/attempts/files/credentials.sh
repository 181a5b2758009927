#!/bin/sh
# Reads the credentials with which the executor is connected to NATS.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "$ARG_CREDS"
