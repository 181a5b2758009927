#!/bin/sh
# A socket that sends packets as it likes.
#
# shows: says
# needs: to be root, or an open net.ipv4.ping_group_range
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker raw
