#!/bin/sh
# 5,000 files in /tmp, which stay there.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: nothing but the directories of the run is removed after it
mkdir "/tmp/$ARG_MARK"
attacker files "/tmp/$ARG_MARK" 5000 >/dev/null
