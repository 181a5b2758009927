#!/bin/sh
# Reads a file that root alone may read.
#
# shows: secret
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "$ARG_ROOT"
