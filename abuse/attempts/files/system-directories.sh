#!/bin/sh
# Makes a file, without a name, in the directories of the system.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker unnamed /usr /usr/bin /usr/local/bin /etc /lib /root /var /boot
