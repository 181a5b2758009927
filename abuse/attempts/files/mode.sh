#!/bin/sh
# Changes the mode and the time of a file of the executor's user, without opening it.
#
# shows: changed
# namespaces: stopped
# bubblewrap: stopped
# landlock as root: stopped
# landlock as user: not stopped: Landlock has no right for chmod, chown, utime and setxattr, and the tool has the
#   executor's user
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
chmod 644 "$ARG_CREDS"
touch -c -d 2001-01-01 "$ARG_CONFIG"
