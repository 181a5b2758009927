#!/bin/sh
# Stops the process that has started it, so that it hears of nothing any more, and ends.
#
# shows: disturbed, stuck
# timeout: 1s
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
kill -STOP $PPID
