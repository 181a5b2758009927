#!/bin/sh
# Takes open files out of the executor.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool is a process of the same user as any other
attacker fd-of "$ARG_EXECUTOR"
