#!/bin/sh
# Opens the credentials by the number of the inode of the root directory, past all mounts.
#
# shows: secret
# needs: to be root, and / on ext4 together with the data directory
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker by-handle "$ARG_CREDS"
