#!/bin/sh
# The same by the system calls of 32 bits, which a filter for 64 bits does not know.
#
# shows: says
# needs: a kernel with io_uring, for both architectures
# helper: 386
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker io-uring
