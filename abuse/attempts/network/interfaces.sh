#!/bin/sh
# Looks for interfaces of the host.
#
# shows: says
# needs: an interface beside loopback
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker interfaces
