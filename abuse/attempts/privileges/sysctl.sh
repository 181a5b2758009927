#!/bin/sh
# Opens settings of the kernel for writing. It writes nothing.
#
# shows: says
# needs: to be root
# namespaces: stopped
# bubblewrap: stopped
# landlock: stopped
# none: not stopped: the tool has the rights of the executor's user
cd /proc/sys
attacker open w kernel/sysrq kernel/randomize_va_space kernel/kptr_restrict kernel/pid_max vm/drop_caches vm/overcommit_memory \
	fs/protected_symlinks fs/file-max net/ipv4/ip_forward
