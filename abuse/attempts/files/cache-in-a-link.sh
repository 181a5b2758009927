#!/bin/sh
# Leaves a link in a named cache, where another cache is to be in the next run: to a directory of the host, as it is called while
# a sandbox is made.
#
# shows: changed
# runs: 2
# cache: yes
# cache_inside: link/made
# namespaces: stopped
# bubblewrap: stopped
# landlock: refused
# none: refused
# container: refused
# bare: not stopped: a cache itself is watched there
if [ "$ARG_RUN" = 1 ]; then
	ln -s "/oldroot$ARG_DROP" cache/link
fi
