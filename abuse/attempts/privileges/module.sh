#!/bin/sh
# Asks for a module to be loaded into the kernel. It names none.
#
# shows: says
# needs: to be root, and a kernel with modules
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker module
