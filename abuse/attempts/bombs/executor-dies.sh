#!/bin/sh
# Waits until the executor is dead, and writes to a file of the host a second later.
#
# shows: process, changed, left
# executor: killed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
trap "" TERM HUP
echo READY
while kill -0 "$ARG_EXECUTOR"; do :; done
attacker wait 1s
echo bomb >"$ARG_DROP/canary"
