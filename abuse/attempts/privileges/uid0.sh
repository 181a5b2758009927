#!/bin/sh
# Looks whether it is root on the host, under whatever name.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker uid0
