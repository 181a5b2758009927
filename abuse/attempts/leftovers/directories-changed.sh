#!/bin/sh
# Changes mode and attributes of its directories, for the next run to stumble over.
#
# shows: says, left
# runs: 2
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: each run has new directories
if [ "$ARG_RUN" = 1 ]; then
	chmod 711 . "$TMPDIR"
else
	stat -c %a . "$TMPDIR" | grep 711 && echo "OPEN: they are as they were left"
fi
