#!/bin/sh
# Asks for the machine to be restarted, without the number that makes it happen.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker reboot
