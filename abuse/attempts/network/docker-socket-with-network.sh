#!/bin/sh
# Connects to a socket as that of Docker, from a tool that may have the network of the host.
#
# shows: reached
# network: host
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker unix "$ARG_DOCKER"
