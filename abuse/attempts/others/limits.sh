#!/bin/sh
# Takes a process of the same user the right to open files.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
attacker prlimit "$ARG_PROCESS" >/dev/null
