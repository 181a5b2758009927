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
func judgeCall(t *testing.T, arch, number uint32, args ...uint64) uint32 {
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
	if got := judgeCall(t, unix.AUDIT_ARCH_I386, 1); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture: %#x", got)
	}
	if foreign != 0 {
		if got := judgeCall(t, arch, foreign|1); got != fails(unix.ENOSYS) {
			t.Errorf("another interface: %#x", got)
		}
	}
	for _, number := range denied {
		if got := judgeCall(t, arch, number); got != fails(unix.EPERM) {
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
		if got := judgeCall(t, arch, c.number, c.args...); got != c.want {
			t.Errorf("%s: %#x, %#x is right", c.name, got, c.want)
		}
	}
}
