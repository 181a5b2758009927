#!/bin/sh
# Takes a process of the same user the right to open files.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: Landlock keeps processes from tracing and signals, and from no more
# none: not stopped: the tool is a process of the same user as any other
attacker prlimit "$ARG_PROCESS" >/dev/null
