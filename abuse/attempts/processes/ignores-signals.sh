#!/bin/sh
# A daemon that ignores every signal that can be ignored.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
daemon 'trap "" TERM HUP INT QUIT USR1 USR2 ALRM TSTP; sleep 1000'
