#!/bin/sh
# A daemon that connects to NATS a while later.
#
# shows: process, reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
daemon 'sleep 5; attacker tcp "$ARG_NATS"'
