#!/bin/sh
# Stops the executor.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
kill -STOP "$ARG_EXECUTOR"
