#!/bin/sh
# Reads the credentials through the working directories of all processes.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "/proc/[0-9]*/cwd/nats.creds"
