#!/bin/sh
# Counts what a process does, by the interface that had more bugs than most.
#
# shows: says
# needs: a kernel with perf, open to users
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker perf
