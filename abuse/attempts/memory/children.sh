#!/bin/sh
# More memory than the contract allows in several processes, each of which has less.
#
# shows: says, process
# memory: 64Mi
# namespaces as root: stopped or refused
# namespaces as user: not stopped: without cgroups memory is bounded for each process, and the result says limits: rlimit
# bubblewrap as root: stopped or refused
# bubblewrap as user: not stopped: without cgroups memory is bounded for each process, and the result says limits: rlimit
# landlock as root: stopped or refused
# landlock as user: not stopped: without cgroups memory is bounded for each process, and the result says limits: rlimit
# none: refused
attacker eat-children 8 16
