#!/bin/sh
# A socket that sees the packets of all.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker packet
