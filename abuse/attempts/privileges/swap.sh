#!/bin/sh
# Asks for swap space to be given up. It names none.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker swap
