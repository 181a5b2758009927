#!/bin/sh
# More memory than the contract allows in several processes, each of which has less.
#
# shows: says, process
# memory: 64Mi
# namespaces: stopped or refused
# bubblewrap: stopped or refused
# landlock: stopped or refused
# none: refused
attacker eat-children 8 16
