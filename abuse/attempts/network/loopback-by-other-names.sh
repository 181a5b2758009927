#!/bin/sh
# Connects to NATS on addresses that mean the loopback address.
#
# shows: reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
port=${ARG_NATS##*:}
attacker tcp "0.0.0.0:$port"
attacker tcp "[::ffff:127.0.0.1]:$port"
attacker tcp "localhost:$port"
