#!/bin/sh
# Looks for another run and kills it.
#
# shows: disturbed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
for file in /proc/[0-9]*/environ; do
	pid=${file%/environ}
	if grep -aqs "ARG_SUITE=$ARG_MARK" "$file"; then kill -9 "${pid#/proc/}"; fi
done
