#!/bin/sh
# Sockets of families that few need and that had bugs.
#
# shows: says
# needs: a kernel with one of them, and to be root for most
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker family
