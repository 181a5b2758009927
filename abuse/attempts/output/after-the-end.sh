#!/bin/sh
# A daemon that prints on and on after the end.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
mkfifo up
(setsid sh -c 'trap "" PIPE; echo >up; while :; do echo x; done' attempt "mark:$ARG_MARK" 2>/dev/null &)
read _ <up
