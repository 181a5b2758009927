#!/bin/sh
# Reads files that the executor had open when it started the tool.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: stopped
attacker descriptors
