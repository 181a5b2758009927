#!/bin/sh
# A daemon that waits until the directory of the run is gone, and then writes to a file of the host.
#
# shows: process, changed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
daemon 'while [ -e "$HOME" ]; do :; done; echo bomb >"$ARG_DROP/canary"'
