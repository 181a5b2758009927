#!/bin/sh
# 64 MiB in the work directory, for which the operator gives 32.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
# none: not stopped: the work directory is on the disk of the executor's data directory, and has no quota
# container: not stopped: the work directory is in memory, and bounded by execution.docker.home_size and memory_limit
attacker fill big 64
