#!/bin/sh
# A message queue and semaphores of System V.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the IPC namespace of the host
attacker message "$ARG_KEY" >/dev/null
attacker semaphore "$ARG_KEY" >/dev/null
