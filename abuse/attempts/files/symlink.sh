#!/bin/sh
# Reads the credentials by a symbolic link in its directory.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
ln -s "$ARG_CREDS" link
attacker cat link
