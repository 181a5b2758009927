#!/bin/sh
# A daemon that waits until the directory of the run is gone, and then writes to a file of the host.
#
# shows: process, changed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
mkfifo up
(setsid sh -c 'echo >up; while [ -e up ]; do :; done; echo bomb >"$ARG_DROP/canary"' attempt "mark:$ARG_MARK" >/dev/null 2>&1 &)
read _ <up
