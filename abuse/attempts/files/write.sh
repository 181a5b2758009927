#!/bin/sh
# Writes to a file of the executor's user.
#
# shows: changed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
echo changed >"$ARG_DROP/canary"
