#!/bin/sh
# Makes a program in a directory of the executor's user.
#
# shows: changed
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool sees the files of the host, with the rights of the executor's user
printf "#!/bin/sh\n" >"$ARG_DROP/program"; chmod 755 "$ARG_DROP/program"
