#!/bin/sh
# Shared memory of System V.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the IPC namespace of the host
attacker shm "$ARG_KEY" >/dev/null
