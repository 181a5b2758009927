#!/bin/sh
# Makes a user namespace, in which it would have all capabilities.
#
# shows: says
# needs: a machine that lets users make such
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker user-namespace
