#!/bin/sh
# A process without a parent of the run, in a session of its own.
#
# shows: process
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
daemon "sleep 1000"
