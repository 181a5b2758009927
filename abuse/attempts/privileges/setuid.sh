#!/bin/sh
# Runs a setuid program of root, which reads a file of root.
#
# shows: secret
# needs: root, to have made that program
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: setuid programs have their effect, as for any process
"$ARG_SETUID" cat "$ARG_ROOT"
