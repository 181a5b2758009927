#!/bin/sh
# Makes a process of the same user slower.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
renice -n 10 -p "$ARG_PROCESS" >/dev/null
