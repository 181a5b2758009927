#!/bin/sh
# Kills the executor.
#
# shows: disturbed, process, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
kill -9 "$ARG_EXECUTOR"
