#!/bin/sh
# Reads with what arguments a process was started.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: Landlock has no pid namespace, and arguments are for all to read
# none: not stopped: the tool is a process of the same user as any other
if grep -aqs canary "/proc/$ARG_PROCESS/cmdline"; then echo "OPEN: the arguments of $ARG_PROCESS"; fi
