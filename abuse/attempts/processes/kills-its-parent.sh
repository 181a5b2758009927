#!/bin/sh
# Kills the process that has started it, which may be what looks after the run, and leaves a daemon.
#
# shows: process, disturbed, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
mkfifo up
(setsid sh -c 'echo >up; exec attacker wait' attempt "mark:$ARG_MARK" >/dev/null 2>&1 &)
read _ <up
kill -9 $PPID
attacker wait 1s
