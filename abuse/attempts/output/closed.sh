#!/bin/sh
# Closes its streams, so that its output has ended, and goes on.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
exec >&- 2>&-
daemon "sleep 1000"
