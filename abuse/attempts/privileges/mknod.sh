#!/bin/sh
# Makes device nodes, of the disk and of the null device, and opens them. It reads nothing.
#
# shows: says
# needs: to be root, and a device cgroup that allows it
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker mknod disk null
