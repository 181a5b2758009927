#!/bin/sh
# Goes up from its directory until it finds the credentials.
#
# shows: secret
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
attacker dotdot etc/nats.creds
