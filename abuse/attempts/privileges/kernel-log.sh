#!/bin/sh
# Asks for the log of the kernel. It reads nothing.
#
# shows: says
# needs: to be root, or a log that is open to all
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker kernel-log
