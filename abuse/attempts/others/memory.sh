#!/bin/sh
# Reads the memory of a process of the same user.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
attacker memory-of "$ARG_PROCESS"
