#!/bin/sh
# A POSIX message queue.
#
# shows: left
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the IPC namespace of the host
attacker queue "abuse-$ARG_MARK" >/dev/null
