#!/bin/sh
# Leaves a file in a named cache for the next run.
#
# shows: says
# runs: 2
# cache: yes
# namespaces: not stopped: a named cache is shared by all runs that name it: that is what it is for
# bubblewrap: not stopped: a named cache is shared by all runs that name it: that is what it is for
# landlock: not stopped: a named cache is shared by all runs that name it: that is what it is for
# none: not stopped: a named cache is shared by all runs that name it: that is what it is for
# container: not stopped: a named cache is shared by all runs that name it: that is what it is for
if [ "$ARG_RUN" = 1 ]; then
	echo planted >cache/planted
elif [ -e cache/planted ]; then
	echo "OPEN: the next run found it"
fi
