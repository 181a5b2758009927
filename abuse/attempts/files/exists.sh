#!/bin/sh
# Finds out whether a file of the host is there, and how large it is.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: Landlock has no right for stat; who knows a name can ask for it
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
if [ -s "$ARG_CREDS" ]; then echo "OPEN: there is $ARG_CREDS, of $(stat -c %s "$ARG_CREDS") bytes"; fi
