#!/bin/sh
# Looks for capabilities, also for those that a program could give.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker capabilities
