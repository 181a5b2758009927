#!/bin/sh
# Looks whether any program could give it rights.
#
# shows: says
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: setuid programs have their effect, as for any process
attacker no-new-privs
