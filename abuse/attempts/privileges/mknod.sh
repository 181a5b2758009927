#!/bin/sh
# Makes a device node of the disk, and opens it. It reads nothing.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker mknod-disk disk
