#!/bin/sh
# A process without a parent of the run, in a session of its own.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
(setsid attacker wait >/dev/null 2>&1 &)
echo started
