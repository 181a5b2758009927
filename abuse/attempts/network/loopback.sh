#!/bin/sh
# Connects to NATS on the loopback address.
#
# shows: reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker tcp "$ARG_NATS"
