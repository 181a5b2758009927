#!/bin/sh
# Links to a directory and a file of the host, for whoever removes what is left.
#
# shows: changed, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: nothing but names is removed
ln -s "$ARG_DROP" link
ln -s "$ARG_DROP/canary" "$TMPDIR/other"
mkdir dir
ln -s "$ARG_DROP" dir/link
