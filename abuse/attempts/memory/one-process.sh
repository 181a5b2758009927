#!/bin/sh
# Twice as much memory as the contract allows.
#
# shows: says
# memory: 64Mi
# ends: oom_killed
# namespaces: stopped or refused
# bubblewrap: stopped or refused
# landlock: stopped or refused
# none: refused
attacker eat 128
