#!/bin/sh
# Opens /etc/shadow. It reads nothing of it.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker open r /etc/shadow
