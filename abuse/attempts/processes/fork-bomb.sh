#!/bin/sh
# More processes than the contract allows. The bomb is small: 64 processes, where 32 are allowed.
#
# shows: says, process
# pids: 32
# namespaces: stopped or refused
# bubblewrap: stopped or refused
# landlock: stopped or refused
# none: refused
attacker fork 64
