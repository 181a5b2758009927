#!/bin/sh
# An argument that holds a NUL, behind which another text begins for some.
#
# shows: says
# args: {"text": "harmless\u0000planted"}
# namespaces: refused
# bubblewrap: refused
# landlock: refused
# none: refused
# container: refused
# bare: refused: no variable can hold a NUL
echo "OPEN: it was run"
