#!/bin/sh
# Mounts a file system in its directory.
#
# shows: left
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
mkdir mnt
attacker mount "$PWD/mnt" >/dev/null
