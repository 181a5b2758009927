//go:build linux

package sandbox

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlansSurviveTheWire(t *testing.T) {
	for _, p := range []*Plan{
		{User: -1},
		{Root: "/r\xff", HostNetwork: true, User: 65534, WorkSize: 7, TempSize: 1, SharedSize: 2, FileSize: 3, OpenFiles: 4, Processes: 5, Data: 6, Binds: []Bind{{Source: "/a", Target: "/b", Write: true, Exact: true}, {Source: "/c"}},
			Links: []Link{{"/bin", "usr/bin"}}, Files: []File{{"/etc/x", "a\nb"}, {"/etc/empty", ""}}},
	} {
		list := p.Encode()
		if got, err := Decode(list); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
		for i := range list {
			if _, err := Decode(list[:i]); err == nil {
				t.Errorf("the first %d of %d strings are taken for a plan", i, len(list))
			}
		}
		if _, err := Decode(append(list, "more")); err == nil {
			t.Error("more than a plan is taken for one")
		}
	}
}

// judgeCall runs the filter as the kernel does, for the instructions that it has.
func judgeCall(t *testing.T, judge []unix.SockFilter, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	word := func(at uint32) uint32 {
		switch at {
		case atNumber:
			return number
		case atArch:
			return arch
		}
		i := (at - atArg0) / 8
		if int(i) >= len(args) {
			return 0
		}
		return uint32(args[i])
	}
	var a uint32
	for pc := 0; pc < len(judge); pc++ {
		in := judge[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = word(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > in.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d has the code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilter(t *testing.T) {
	if arch == 0 {
		t.Skip("SKIPPED: there is no sandbox on this architecture")
	}
	const allow = unix.SECCOMP_RET_ALLOW
	fails := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	if got := judgeCall(t, judge, unix.AUDIT_ARCH_I386, 1); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture: %#x", got)
	}
	if foreign != 0 {
		if got := judgeCall(t, judge, arch, foreign|1); got != fails(unix.ENOSYS) {
			t.Errorf("another interface: %#x", got)
		}
	}
	for _, number := range denied {
		if got := judgeCall(t, judge, arch, number); got != fails(unix.EPERM) {
			t.Errorf("call %d: %#x", number, got)
		}
	}
	for _, c := range []struct {
		name   string
		number uint32
		args   []uint64
		want   uint32
	}{
		{"read", unix.SYS_READ, nil, allow},
		{"execve", unix.SYS_EXECVE, nil, allow},
		{"exit_group", unix.SYS_EXIT_GROUP, nil, allow},
		{"seccomp", unix.SYS_SECCOMP, nil, allow},
		{"clone3", unix.SYS_CLONE3, nil, fails(unix.ENOSYS)},
		{"a thread", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_SETTLS}, allow},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"a user namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, fails(unix.EPERM)},
		{"a network namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWNET | uint64(unix.SIGCHLD)}, fails(unix.EPERM)},
		{"the size of a terminal", unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, allow},
		{"typing", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, fails(unix.EPERM)},
		{"typing, with bits that nobody looks at", unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}, fails(unix.EPERM)},
		{"pasting", unix.SYS_IOCTL, []uint64{0, tioclinux}, fails(unix.EPERM)},
		{"the usual personality", unix.SYS_PERSONALITY, []uint64{0}, allow},
		{"to ask for it", unix.SYS_PERSONALITY, []uint64{0xffffffff}, allow},
		{"no random addresses", unix.SYS_PERSONALITY, []uint64{0x40000}, fails(unix.EPERM)},
		{"AF_UNIX", unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, allow},
		{"AF_NETLINK", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK}, allow},
		{"AF_VSOCK", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, fails(unix.EAFNOSUPPORT)},
		{"a pair of AF_UNIX", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX}, allow},
		{"a pair of AF_TIPC", unix.SYS_SOCKETPAIR, []uint64{unix.AF_TIPC}, fails(unix.EAFNOSUPPORT)},
	} {
		if got := judgeCall(t, judge, arch, c.number, c.args...); got != c.want {
			t.Errorf("%s: %#x, %#x is right", c.name, got, c.want)
		}
	}
}

func TestFiltersOfTheHostsNamespaces(t *testing.T) {
	if arch == 0 {
		t.Skip("SKIPPED: there is no sandbox on this architecture")
	}
	const allow = unix.SECCOMP_RET_ALLOW
	fails := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	const minus = 1<<64 - 1
	for name, judge := range map[string][]unix.SockFilter{"with a network": judgeShared, "without": judgeSilent} {
		socket := uint32(allow)
		if name == "without" {
			socket = fails(unix.EAFNOSUPPORT)
		}
		for _, number := range append(lasting, denied...) {
			if got := judgeCall(t, judge, arch, number); got != fails(unix.EPERM) {
				t.Errorf("%s: call %d: %#x", name, number, got)
			}
		}
		for _, c := range []struct {
			name   string
			number uint32
			args   []uint64
			want   uint32
		}{
			{"read", unix.SYS_READ, nil, allow},
			{"TCP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM}, socket},
			{"AF_UNIX", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, fails(unix.EAFNOSUPPORT)},
			{"AF_VSOCK", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, fails(unix.EAFNOSUPPORT)},
			{"a pair", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}, allow},
			{"a pair of packets", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}, allow},
			{"a pair of datagrams", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, fails(unix.EAFNOSUPPORT)},
			{"a pair of AF_TIPC", unix.SYS_SOCKETPAIR, []uint64{unix.AF_TIPC, unix.SOCK_STREAM}, fails(unix.EAFNOSUPPORT)},
			{"its own limits", unix.SYS_PRLIMIT64, []uint64{0}, allow},
			{"those of another", unix.SYS_PRLIMIT64, []uint64{7}, fails(unix.EPERM)},
			{"its own processors", unix.SYS_SCHED_SETAFFINITY, []uint64{0}, allow},
			{"those of another", unix.SYS_SCHED_SETAFFINITY, []uint64{7}, fails(unix.EPERM)},
			{"to be nice", unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PROCESS, 0, 5}, allow},
			{"its group", unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PGRP, 0, 5}, allow},
			{"its user", unix.SYS_SETPRIORITY, []uint64{unix.PRIO_USER, 0, 5}, fails(unix.EPERM)},
			{"another process", unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PROCESS, 7, 5}, fails(unix.EPERM)},
			{"nobody knows what", unix.SYS_SETPRIORITY, []uint64{minus, 0, 5}, fails(unix.EPERM)},
			{"its disk", unix.SYS_IOPRIO_SET, []uint64{1, 0}, allow},
			{"the disk of its user", unix.SYS_IOPRIO_SET, []uint64{3, 0}, fails(unix.EPERM)},
			{"the disk of another", unix.SYS_IOPRIO_SET, []uint64{1, 7}, fails(unix.EPERM)},
		} {
			if got := judgeCall(t, judge, arch, c.number, c.args...); got != c.want {
				t.Errorf("%s: %s: %#x, %#x is right", name, c.name, got, c.want)
			}
		}
	}
}

// What a version does not know would be refused as a whole.
func TestLandlockVersions(t *testing.T) {
	for abi, want := range map[int]unix.LandlockRulesetAttr{
		1: {Handled_access_fs: 0x1fff},
		2: {Handled_access_fs: 0x3fff},
		3: {Handled_access_fs: 0x7fff},
		4: {Handled_access_fs: 0x7fff, Handled_access_net: 3},
		5: {Handled_access_fs: 0xffff, Handled_access_net: 3},
		6: {Handled_access_fs: 0xffff, Handled_access_net: 3, Scoped: 3},
		9: {Handled_access_fs: 0xffff, Handled_access_net: 3, Scoped: 3},
	} {
		if got := handled(abi, false); got != want {
			t.Errorf("version %d: %+v, %+v is right", abi, got, want)
		}
		if got := handled(abi, true); got.Handled_access_net != 0 {
			t.Errorf("version %d restricts the network that a tool is to have", abi)
		}
		if lacks := Lacking(abi); (len(lacks) > 0) != (abi < 6) {
			t.Errorf("version %d lacks %q", abi, lacks)
		}
	}
	here, err := LandlockABI()
	if err != nil {
		t.Skipf("SKIPPED: this kernel has no Landlock: %s", err)
	}
	for abi := MinLandlockABI; abi <= here; abi++ { // a later kernel takes the rules of an earlier one
		rules, err := (&Plan{Binds: []Bind{{Source: "/usr"}, {Source: t.TempDir(), Write: true}, {Source: "/etc/passwd"}, {Source: "/there/is/none"}}}).ruleset(abi)
		if err != nil {
			t.Errorf("version %d: %v", abi, err)
			continue
		}
		unix.Close(rules)
	}
	if _, err := (&Plan{Binds: []Bind{{Source: "/there/is/none", Write: true}}}).ruleset(here); err == nil {
		t.Error("a tool's own directory may be missing")
	}
}
