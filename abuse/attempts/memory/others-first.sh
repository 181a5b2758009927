#!/bin/sh
# Asks the kernel to kill other processes first when memory is short.
#
# shows: says
# needs: to be root, with CAP_SYS_RESOURCE
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker oom-adjust
