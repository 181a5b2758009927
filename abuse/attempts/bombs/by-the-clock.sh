#!/bin/sh
# A daemon that connects to NATS a while later.
#
# shows: process, reached
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
(setsid sh -c 'attacker wait 5s; attacker tcp "$ARG_NATS"' attempt "mark:$ARG_MARK" >/dev/null 2>&1 &)
