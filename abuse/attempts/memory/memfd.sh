#!/bin/sh
# More memory than the contract allows, as a file that is in no directory.
#
# shows: says
# memory: 64Mi
# namespaces as root: stopped or refused
# namespaces as user: not stopped: without cgroups what is in no process is not counted, and the result says limits: rlimit
# bubblewrap as root: stopped or refused
# bubblewrap as user: not stopped: without cgroups what is in no process is not counted, and the result says limits: rlimit
# landlock as root: stopped or refused
# landlock as user: not stopped: without cgroups what is in no process is not counted, and the result says limits: rlimit
# none: refused
attacker memfd 128
