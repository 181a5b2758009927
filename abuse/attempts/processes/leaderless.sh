#!/bin/sh
# A process whose first thread has ended while another goes on: it looks as if it had ended.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
setsid attacker leaderless >/dev/null 2>&1 &
until grep -q '^State:.Z' /proc/$!/status; do :; done
