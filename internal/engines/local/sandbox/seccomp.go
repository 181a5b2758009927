//go:build linux

package sandbox

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are the system calls that tools may not make: those that Docker's default profile keeps from containers without
// capabilities, the newer ones of the same kinds, and ptrace, io_uring and userfaultfd, which have been the way into the
// kernel more often than any tool has needed them. They fail as for somebody without the right, so that programs go on
// which only try. See https://docs.docker.com/engine/security/seccomp/ and seccomp(2).
var denied = append([]uint32{
	// Mounts and roots.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, sysOpenTreeAttr, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_FANOTIFY_INIT,
	// Namespaces.
	unix.SYS_SETNS, unix.SYS_UNSHARE,
	// Other processes.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
	unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_GET_MEMPOLICY, unix.SYS_SET_MEMPOLICY_HOME_NODE,
	// The kernel.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_DELETE_MODULE, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_NFSSERVCTL, unix.SYS_LOOKUP_DCOOKIE,
	// The clock and the names of the machine.
	unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_SETTIMEOFDAY, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}, deniedHere...)

const (
	sysOpenTreeAttr = 467 // since 6.15, the same on all architectures

	// The flags of clone that make namespaces, but for CLONE_NEWTIME, which it cannot.
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

// filterFor is what differs between filters.
type filterFor struct {
	sockets []uint32 // families of sockets that may be made
	shared  bool     // the tool is in the namespaces of the host
}

var (
	// judge is the filter of tools that have namespaces of their own.
	judge = filter(filterFor{sockets: families})
	// judgeShared and judgeSilent are those of tools that have none, with the network of the host and without any. Neither has
	// AF_UNIX: Landlock before version 9 has no right for connect to a path, and behind those of a user's bus and of Docker's
	// daemon is somebody who starts processes without a sandbox.
	judgeShared = filter(filterFor{sockets: network, shared: true})
	judgeSilent = filter(filterFor{shared: true})
)

// families are the kinds of sockets that tools may open: a network namespace holds for these. AF_VSOCK, which reaches the
// hypervisor, knows nothing of namespaces.
var families = append([]uint32{unix.AF_UNIX}, network...)

// network are those of them that lead to no process by the path of a file.
var network = []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// personalities are those of Docker's profile: without ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
var personalities = []uint32{0, 0x8, 0x20000, 0x20008, 0xffffffff}

// Where struct seccomp_data has what, in bytes; the lower half of an argument comes first on both architectures.
const (
	atNumber = 0
	atArch   = 4
	atArg0   = 16
	atArg1   = 24
)

// filter makes the program that judges each system call of a tool.
func filter(f filterFor) []unix.SockFilter {
	var program []unix.SockFilter
	emit := func(code uint16, jt, jf int, k uint32) {
		program = append(program, unix.SockFilter{Code: code, Jt: uint8(jt), Jf: uint8(jf), K: k})
	}
	load := func(at uint32) { emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, at) }
	equal := func(k uint32, jt, jf int) { emit(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, jt, jf, k) }
	answer := func(k uint32) { emit(unix.BPF_RET|unix.BPF_K, 0, 0, k) }
	fail := func(errno unix.Errno) { answer(unix.SECCOMP_RET_ERRNO | uint32(errno)) }
	// allowing is the rule that a call is allowed where its first argument is one of some values.
	allowing := func(number uint32, values []uint32, errno unix.Errno) {
		equal(number, 0, len(values)+3)
		load(atArg0)
		for i, v := range values {
			equal(v, len(values)-i, 0)
		}
		fail(errno)
		answer(unix.SECCOMP_RET_ALLOW)
	}

	load(atArch)
	equal(arch, 1, 0)
	answer(unix.SECCOMP_RET_KILL_PROCESS)
	load(atNumber)
	if foreign != 0 { // numbers of another interface to the same calls
		emit(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, 0, 1, foreign)
		fail(unix.ENOSYS)
	}
	// Its flags are in memory, where no filter can look: the library falls back to clone.
	equal(unix.SYS_CLONE3, 0, 1)
	fail(unix.ENOSYS)
	equal(unix.SYS_CLONE, 0, 4)
	load(atArg0)
	emit(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0, 1, newNamespaces)
	fail(unix.EPERM)
	answer(unix.SECCOMP_RET_ALLOW)
	// To put characters into a terminal's input is to type commands for whoever owns it; the kernel looks at 32 bits.
	equal(unix.SYS_IOCTL, 0, 5)
	load(atArg1)
	equal(unix.TIOCSTI, 1, 0)
	equal(tioclinux, 0, 1)
	fail(unix.EPERM)
	answer(unix.SECCOMP_RET_ALLOW)
	allowing(unix.SYS_PERSONALITY, personalities, unix.EPERM)
	allowing(unix.SYS_SOCKET, f.sockets, unix.EAFNOSUPPORT)
	if slices.Contains(f.sockets, unix.AF_UNIX) {
		allowing(unix.SYS_SOCKETPAIR, f.sockets, unix.EAFNOSUPPORT)
	} else {
		// A pair that is connected for ever is no more than two pipes. One of datagrams can be connected anew.
		equal(unix.SYS_SOCKETPAIR, 0, 8)
		load(atArg0)
		equal(unix.AF_UNIX, 0, 4)
		load(atArg1)
		emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, socketTypes)
		equal(unix.SOCK_STREAM, 2, 0)
		equal(unix.SOCK_SEQPACKET, 1, 0)
		fail(unix.EAFNOSUPPORT)
		answer(unix.SECCOMP_RET_ALLOW)
	}
	refused := denied
	if f.shared {
		// What changes other processes of the same user may be done to oneself.
		for _, call := range []uint32{unix.SYS_PRLIMIT64, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETATTR} {
			allowing(call, []uint32{0}, unix.EPERM)
		}
		for _, c := range [][2]uint32{{unix.SYS_SETPRIORITY, unix.PRIO_PGRP}, {unix.SYS_IOPRIO_SET, ioprioGroup}} { // and its group, as 0; not its user
			equal(c[0], 0, 6)
			load(atArg0)
			emit(unix.BPF_JMP|unix.BPF_JGT|unix.BPF_K, 2, 0, c[1])
			load(atArg1)
			equal(0, 1, 0)
			fail(unix.EPERM)
			answer(unix.SECCOMP_RET_ALLOW)
		}
		refused = append(slices.Clone(denied), lasting...)
	}
	for _, number := range refused {
		equal(number, 0, 1)
		fail(unix.EPERM)
	}
	answer(unix.SECCOMP_RET_ALLOW)
	return program
}

const (
	tioclinux   = 0x541c
	socketTypes = 0xf // of the second argument of socket; above are flags
	ioprioGroup = 2   // IOPRIO_WHO_PGRP
)

// filter has the process live with a filter, and all that it starts.
func (c *calls) filter(program []unix.SockFilter) {
	list := []unix.SockFprog{{Len: uint16(len(program)), Filter: &program[0]}}
	c.pins = append(c.pins, list, program)
	c.add("filter system calls", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&list[0])))
}
