#!/bin/sh
# Opens the devices of the host. It reads nothing.
#
# shows: says
# needs: to be root, or devices that are open to all
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker open r /dev/mem /dev/kmsg /dev/port /dev/kvm /dev/fuse /dev/loop-control "/dev/vd*" "/dev/sd*" "/dev/nvme*" "/dev/dm-*"
