#!/bin/sh
# A chain of 1,500 directories that nobody may enter.
#
# shows: left, stuck
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare as root: stopped: root enters every directory
attacker deep 1500 >/dev/null
