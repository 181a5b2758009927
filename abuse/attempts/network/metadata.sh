#!/bin/sh
# Looks for a way to the address at which clouds tell machines their credentials. It sends nothing.
#
# shows: says
# needs: a route to it
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker route 169.254.169.254:80
