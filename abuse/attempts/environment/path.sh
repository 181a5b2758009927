#!/bin/sh
# An argument named PATH, by which other programs would be found.
#
# shows: says
# args: {"PATH": "/usr/bin:/bin:/planted"}
# args_env: raw
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
case $PATH in */planted*) echo "OPEN: PATH is $PATH" ;; esac
