#!/bin/sh
# Reads the files of another run.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker cat "$HOME/../../*/work/secret" "$HOME/../*/secret" "${ARG_DATA%/*}/runs/*/*/work/secret"
