#!/bin/sh
# Takes hold of a process of the same user as a debugger does.
#
# shows: says, disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
attacker trace "$ARG_PROCESS"
