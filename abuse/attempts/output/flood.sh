#!/bin/sh
# 256 MiB on stdout without an end of line.
#
# shows: grew, stuck
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: what is read is passed on or dropped
attacker flood 1 256
