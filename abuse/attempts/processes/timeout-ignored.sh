#!/bin/sh
# Ignores the ask to stop at its timeout, with all its children.
#
# shows: process, stuck
# timeout: 500ms
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
trap "" TERM
daemon 'sleep 1000'
attacker wait
