#!/bin/sh
# Shared memory in /dev/shm.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: nothing but the directories of the run is removed after it
echo x >"/dev/shm/$ARG_MARK"
