#!/bin/sh
# Twice as much memory as the contract allows.
#
# shows: says
# memory: 64Mi
# ends: oom_killed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped or refused
# none: refused
attacker eat 128
