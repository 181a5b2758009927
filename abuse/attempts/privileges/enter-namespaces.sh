#!/bin/sh
# Enters the mount namespace of the executor.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool may call all of the kernel that its user may
attacker setns "$ARG_EXECUTOR"
