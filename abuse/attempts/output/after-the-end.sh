#!/bin/sh
# A daemon that prints on and on after the end.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
exec 3>&1
daemon 'trap "" PIPE; while :; do echo x >&3; done'
