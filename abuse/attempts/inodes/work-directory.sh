#!/bin/sh
# 20,000 files in the work directory.
#
# shows: left, stuck
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: to remove them takes a moment
attacker files . 20000 >/dev/null
