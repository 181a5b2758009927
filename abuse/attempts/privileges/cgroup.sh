#!/bin/sh
# Makes cgroups.
#
# shows: left
# needs: to be root, or a cgroup that was given to the user
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
for dir in /sys/fs/cgroup /sys/fs/cgroup/*/; do
	mkdir "$dir/abuse-$ARG_MARK" 2>/dev/null
done
