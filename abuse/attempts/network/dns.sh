#!/bin/sh
# Asks a name server on the loopback address.
#
# shows: reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker udp "$ARG_DNS"
