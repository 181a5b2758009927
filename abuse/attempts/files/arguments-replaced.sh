#!/bin/sh
# Replaces the file of its arguments by a hard link to a file of the host, for the executor to write the
# arguments of the next run to.
#
# shows: changed, left
# runs: 2
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: nothing but names is removed
ln -f "$ARG_DROP/canary" "$ARGS_FILE"
:
