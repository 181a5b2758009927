#!/bin/sh
# A file in the work directory that seems to have a TiB.
#
# shows: left, stuck
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: to remove it is no work
attacker sparse big >/dev/null
