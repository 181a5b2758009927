#!/bin/sh
# Leaves a daemon that ignores signals, and goes on when the executor is killed.
#
# shows: process, left
# executor: killed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
trap "" TERM HUP INT
daemon 'sleep 1000'
echo READY
attacker wait
