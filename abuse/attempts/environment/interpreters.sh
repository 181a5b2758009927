#!/bin/sh
# Arguments named as variables that have interpreters and programs run something.
#
# shows: says
# args: {"PYTHONPATH": "planted", "PYTHONSTARTUP": "planted", "NODE_OPTIONS": "planted", "PERL5OPT":
#   "planted", "RUBYOPT": "planted", "GIT_SSH_COMMAND": "planted", "IFS": "planted", "ENV": "planted", "PS4":
#   "planted", "JAVA_TOOL_OPTIONS": "planted"}
# args_env: raw
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
if env | grep -v '^ARG_' | grep =planted; then echo "OPEN: it got them"; fi
