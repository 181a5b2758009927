#!/bin/sh
# A file in /tmp.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: nothing but the directories of the run is removed after it
echo x >"/tmp/$ARG_MARK"
