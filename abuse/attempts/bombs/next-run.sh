#!/bin/sh
# A daemon that waits for the next run, to write to its directory.
#
# shows: process, says
# runs: 2
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
if [ "$ARG_RUN" = 1 ]; then
	daemon 'while :; do for dir in "$HOME"/../../*/work "$HOME"/../*; do echo bomb >"$dir/bomb"; done; done'
else
	attacker wait 200ms
	if [ -e bomb ]; then echo "OPEN: the run before has written to this one"; fi
fi
