#!/bin/sh
# An argument that is named as a variable of the loader, in a contract that asks for arguments under their own
# names.
#
# shows: says
# args: {"LD_PRELOAD": "/nowhere/planted.so", "LD_LIBRARY_PATH": "/nowhere"}
# args_env: raw
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
if [ -n "$LD_PRELOAD$LD_LIBRARY_PATH" ]; then echo "OPEN: the loader got it"; fi
