#!/bin/sh
# A daemon that ignores every signal that can be ignored.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
mkfifo up
setsid sh -c 'trap "" TERM HUP INT QUIT USR1 USR2 ALRM TSTP; echo >up; attacker wait' attempt "mark:$ARG_MARK" >/dev/null 2>&1 &
read _ <up
