#!/bin/sh
# 128 MiB on stdout and on stderr at once.
#
# shows: grew, stuck
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: what is read is passed on or dropped
attacker flood 1 128 &
attacker flood 2 128
wait
