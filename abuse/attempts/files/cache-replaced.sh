#!/bin/sh
# Replaces a named cache by a link to a directory of the host, to which the next run writes.
#
# shows: changed
# runs: 2
# cache: yes
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: caches are directories of the executor's user, and links show where
if [ "$ARG_RUN" = 1 ]; then
	store=$(readlink cache) && rm -r "$store" && ln -s "$ARG_DROP" "$store"
else
	echo through the link >cache/new
fi
