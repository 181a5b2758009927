#!/bin/sh
# Kills the process that has started it, which may be what looks after the run, and leaves a daemon.
#
# shows: process, disturbed, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
daemon 'sleep 1000'
kill -9 $PPID
attacker wait 1s
