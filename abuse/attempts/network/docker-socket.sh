#!/bin/sh
# Connects to a socket as that of Docker.
#
# shows: reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: not stopped: Landlock does not restrict connections to sockets in directories
# none: not stopped: the tool has the network of the executor
attacker unix "$ARG_DOCKER"
