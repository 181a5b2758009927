#!/bin/sh
# A hundred daemons, each in a session of its own, where the contract has no limit.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
attacker fork 100 >/dev/null
