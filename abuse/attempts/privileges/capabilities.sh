#!/bin/sh
# Looks for capabilities, also for those that a program could give.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock as root: stopped
# landlock as user: not stopped: an ordinary user cannot empty the set of what programs could give; that none
#   gives anything is seen to by no_new_privs
# none: not stopped: the tool has the rights of the executor's user
attacker capabilities
