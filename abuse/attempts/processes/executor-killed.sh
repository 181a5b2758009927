#!/bin/sh
# Goes on when the executor is killed.
#
# shows: process, left
# executor: killed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
echo READY
attacker wait
