#!/bin/sh
# Looks for the executor's environment in its own.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
attacker cat /proc/self/environ
