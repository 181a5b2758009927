#!/bin/sh
# A process that forks and ends, again and again, so that no id of it is right for long.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
attacker hop 1000
