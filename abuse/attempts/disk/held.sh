#!/bin/sh
# A file that has no name any more, and a daemon that keeps it open: its space is used until that ends.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
exec 9>held
rm held
attacker fill /proc/self/fd/9 32 >/dev/null
daemon 'sleep 1000'
