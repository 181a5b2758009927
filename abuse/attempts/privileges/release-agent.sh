#!/bin/sh
# Opens the file that says which program root runs when a cgroup is empty. It writes nothing.
#
# shows: says
# needs: to be root, and cgroup v1
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
attacker open w "/sys/fs/cgroup/*/release_agent" /sys/fs/cgroup/release_agent
