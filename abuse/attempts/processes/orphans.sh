#!/bin/sh
# Hundreds of processes that have ended and that nobody has waited for.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
attacker orphans 300
