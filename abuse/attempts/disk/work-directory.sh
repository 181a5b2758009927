#!/bin/sh
# 64 MiB in the work directory, for which the operator gives 32.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
# none: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
attacker fill big 64
