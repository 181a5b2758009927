#!/bin/sh
# Reads what the executor keeps in its data directory.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "$ARG_DATA"
