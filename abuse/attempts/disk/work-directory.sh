#!/bin/sh
# 64 MiB in the work directory.
#
# shows: says
# namespaces: not stopped: the work directory is on the disk of the executor's data directory, and has no
#   quota
# bubblewrap: not stopped: the work directory is on the disk of the executor's data directory, and has no
#   quota
# landlock: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
# none: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
attacker fill big 64
