#!/bin/sh
# A directory that its owner may neither read nor change.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare as root: stopped: root enters every directory
mkdir closed
echo x >closed/file
chmod 000 closed .
