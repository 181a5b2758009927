#!/bin/sh
# A file in /var/tmp.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: nothing but the directories of the run is removed after it
echo x >"/var/tmp/$ARG_MARK"
