#!/bin/sh
# Starts a daemon when it is asked to stop.
#
# shows: process, stuck
# timeout: 500ms
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
trap "daemon 'sleep 1000'" TERM
while :; do attacker wait 1h; done
