#!/bin/sh
# Opens the file that says which program root runs when a process crashes. It writes nothing.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker open w /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
