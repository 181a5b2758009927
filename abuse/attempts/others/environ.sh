#!/bin/sh
# Reads the environment of all processes, the executor and other runs among them.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
attacker cat "/proc/[0-9]*/environ"
