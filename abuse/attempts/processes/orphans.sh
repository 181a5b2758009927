#!/bin/sh
# Hundreds of processes that have ended and that nobody has waited for.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: init collects them
attacker orphans 300
