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
# container: not stopped: the work directory is in memory, and bounded by execution.docker.home_size and memory_limit
attacker fill big 64
