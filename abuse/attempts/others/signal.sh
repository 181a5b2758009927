#!/bin/sh
# Sends a signal to a process of the same user.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
kill -USR1 "$ARG_PROCESS"
