#!/bin/sh
# Looks for a way to the internet. It sends nothing.
#
# shows: says
# needs: a route to it
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker route 192.88.99.1:53
