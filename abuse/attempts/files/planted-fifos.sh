#!/bin/sh
# Named pipes, at which whoever opens them waits for ever.
#
# shows: stuck, left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: nothing but names is removed
mkfifo pipe "$TMPDIR/other"
mkdir dir
mkfifo dir/pipe
chmod 000 dir/pipe
