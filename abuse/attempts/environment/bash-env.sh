#!/bin/sh
# An argument named BASH_ENV, which bash evaluates before it does anything else.
#
# shows: says
# args: {"BASH_ENV": "$(echo OPEN: bash has evaluated it >&2)"}
# args_env: raw
# needs: bash
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
bash -c :
