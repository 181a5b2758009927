#!/bin/sh
# A socket to the machine that this one is a guest of, for which network namespaces do not count.
#
# shows: says
# needs: a kernel with vsock
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker vsock
