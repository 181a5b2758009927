#!/bin/sh
# A process in the background that keeps stdout and stderr open after the end.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
sleep 1000 &
