#!/bin/sh
# More memory than the contract allows, as a file that is in no directory.
#
# shows: says
# memory: 64Mi
# namespaces: stopped or refused
# bubblewrap: stopped or refused
# landlock: stopped or refused
# none: refused
attacker memfd 128
