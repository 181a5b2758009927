#!/bin/sh
# Opens settings of the kernel for writing. It writes nothing.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker open w "/proc/sys/kernel/*" "/proc/sys/vm/*" "/proc/sys/fs/*" "/proc/sys/net/ipv4/*"
