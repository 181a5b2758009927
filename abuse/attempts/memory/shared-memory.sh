#!/bin/sh
# More memory than the contract allows, as a file in /dev/shm.
#
# shows: says, left
# memory: 64Mi
# namespaces: stopped or refused
# bubblewrap: stopped or refused
# landlock: stopped or refused
# none: refused
attacker fill "/dev/shm/$ARG_MARK" 128
