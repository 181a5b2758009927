#!/bin/sh
# Reads files that the executor has open, through /proc.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "/proc/$ARG_EXECUTOR/fd/*"
