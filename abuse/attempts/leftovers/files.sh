#!/bin/sh
# Files in its directories, for the next run to find.
#
# shows: says, left
# runs: 2
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: each run has new directories
if [ "$ARG_RUN" = 1 ]; then
	echo x | tee left "$TMPDIR/left" .hidden >/dev/null
else
	for file in left "$TMPDIR/left" .hidden; do [ ! -e "$file" ] || echo "OPEN: $file"; done
fi
