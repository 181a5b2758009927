#!/bin/sh
# Sets up io_uring, which does what system calls do past those who watch system calls.
#
# shows: says
# needs: a kernel with io_uring
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker io-uring
