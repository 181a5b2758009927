#!/bin/sh
# The same, with a daemon that has neither the environment nor the arguments of the run, so that nothing tells
# whose it is.
#
# shows: process, disturbed, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the helper that looks after a run has the same user; when it was killed its descendants
#   are found by their environment, and this one has none
mkfifo up
(env -i setsid sh -c 'echo >up; exec sleep 1000' >/dev/null 2>&1 &)
read _ <up
kill -9 $PPID
attacker wait 1s
