#!/bin/sh
# Connects to a socket as that of Docker.
#
# shows: reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the network of the executor
attacker unix "$ARG_DOCKER"
