#!/bin/sh
# Leaves a key in the keyring of its user for the next run.
#
# shows: says
# runs: 2
# needs: a kernel with keyrings
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
if [ "$ARG_RUN" = 1 ]; then
	attacker key-add "$ARG_MARK" >/dev/null
else
	attacker key-find "$ARG_MARK"
fi
