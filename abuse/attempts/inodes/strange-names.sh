#!/bin/sh
# Files whose names are not text, begin with a dash, or hold a newline.
#
# shows: left, changed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
# bare: stopped: to remove them is nothing special
touch -- "-rf" "$(printf 'a\nb')" "$(printf '\377')" "..." "*" '$(touch x)'
mkdir -- "-rf ." "$(printf '\033[2J')"
