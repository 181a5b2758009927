#!/bin/sh
# Opens the file by which the machine is restarted. It writes nothing.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker open w /proc/sysrq-trigger
