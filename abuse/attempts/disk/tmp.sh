#!/bin/sh
# 64 MiB in /tmp, which stay there.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: nothing but the directories of the run is removed after it
attacker fill "/tmp/$ARG_MARK" 64 >/dev/null
