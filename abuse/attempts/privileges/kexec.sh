#!/bin/sh
# Asks for another kernel to be started. It names none.
#
# shows: says
# needs: to be root, and a kernel with kexec
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker kexec
