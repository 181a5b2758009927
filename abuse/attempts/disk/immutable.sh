#!/bin/sh
# A file that not even root can remove, before it is made an ordinary one again.
#
# shows: left
# needs: to be root, and a file system that has such files
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: root may make such files, and the executor does not undo it
attacker immutable file >/dev/null
