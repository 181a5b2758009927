//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LandlockABI is the version of Landlock that the kernel has; an error says why there is none: ENOSYS where it was not built
// with it, EOPNOTSUPP where it is switched off.
func LandlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// What of Landlock came when (landlock(7)).
const (
	abiRefer    = 2
	abiTruncate = 3
	abiNetwork  = 4
	abiDevices  = 5
	abiScopes   = 6
)

const (
	readRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// ownRights are those in directories of the tool: all but to make device nodes.
	ownRights = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	deviceRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	procRights   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// fileRights are those that a file can have that is no directory.
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// handled are the rights that one version knows, and that nobody has but by a rule.
func handled(abi int, network bool) (attr unix.LandlockRulesetAttr) {
	attr.Handled_access_fs = ownRights | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	for right, since := range map[uint64]int{unix.LANDLOCK_ACCESS_FS_REFER: abiRefer, unix.LANDLOCK_ACCESS_FS_TRUNCATE: abiTruncate, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV: abiDevices} {
		if abi < since {
			attr.Handled_access_fs &^= right
		}
	}
	if abi >= abiNetwork && !network {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= abiScopes {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attr
}

// ruleset makes the rules of a plan, and returns their descriptor. Nothing is restricted by that. What is not there needs no
// rule, unless it is the tool's own.
func (p *Plan) ruleset(abi int) (int, error) {
	attr := handled(abi, p.HostNetwork)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, &StepError{"make the rules of Landlock", errno}
	}
	rules := int(fd)
	allow := func(path string, rights uint64, exact, needed bool) error {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}
		if exact {
			how.Resolve = unix.RESOLVE_NO_SYMLINKS
		}
		place, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		if err == unix.ENOENT && !needed {
			return nil
		}
		if err != nil {
			return &StepError{"open " + path, errnoOf(err)}
		}
		defer unix.Close(place)
		var stat unix.Stat_t
		if err := unix.Fstat(place, &stat); err != nil {
			return &StepError{"look at " + path, errnoOf(err)}
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			rights &= fileRights
		}
		rule := unix.LandlockPathBeneathAttr{Allowed_access: rights & attr.Handled_access_fs, Parent_fd: int32(place)}
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
		if errno != 0 {
			return &StepError{"allow " + path, errno}
		}
		return nil
	}
	err := allow("/proc", procRights, false, true)
	for _, name := range devices {
		if err == nil {
			err = allow("/dev/"+name, deviceRights, false, false)
		}
	}
	for _, b := range p.Binds {
		rights := uint64(readRights)
		if b.Write {
			rights = ownRights
		}
		if err == nil {
			err = allow(b.Source, rights, b.Exact, b.Write || b.Exact)
		}
	}
	if err != nil {
		unix.Close(rules)
		return 0, err
	}
	return rules, nil
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}

// Restrict starts a tool that is an ordinary process of the host, with no rights to files but those of the plan (of its binds the
// sources count), with fewer system calls, and without sockets where it is not to have the host's network.
func Restrict(p *Plan, tool Tool) (*Process, error) {
	abi, err := LandlockABI()
	if err != nil {
		return nil, &StepError{"ask for Landlock", errnoOf(err)}
	}
	if abi < MinLandlockABI {
		return nil, fmt.Errorf("version %d of Landlock has no rule for truncate", abi)
	}
	rules, err := p.ruleset(abi)
	if err != nil {
		return nil, err
	}
	defer unix.Close(rules)
	return startTool(tool, false, func(e ends) (*calls, error) {
		c := &calls{}
		closeOthers(c, append(tool.Streams[:], e.sync, e.status, rules))
		c.wait(e)
		defaultSignals(c)
		c.add("set the umask", unix.SYS_UMASK, 0o022)
		for _, l := range p.limits(c) {
			c.limit(l)
		}
		c.giveUpWhatCan()
		if p.User >= 0 {
			c.become(p.User)
		}
		header := []uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
		c.pins = append(c.pins, header)
		c.add("give up capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header[0])), make([]byte, 24))
		c.add("forbid new rights", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		c.add("heed the rules of Landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0)
		if p.HostNetwork {
			c.filter(judgeShared)
		} else {
			c.filter(judgeSilent)
		}
		return c, nil
	})
}

// MinLandlockABI is the version without which a tool could empty files that it may not write: Linux 6.2.
const MinLandlockABI = abiTruncate

// Lacking says what a version of Landlock has not got that later ones have.
func Lacking(abi int) (list []string) {
	if abi < abiScopes {
		list = append(list, "no bound on signals to other processes of the same user (Linux 6.12)")
	}
	return list
}

// giveUpWhatCan takes away what could give rights back, as far as this process may. Whoever may not has no use for it either:
// no program gives new rights to a process that has forbidden that.
func (c *calls) giveUpWhatCan() {
	if os.Geteuid() != 0 {
		return
	}
	for capability := range lastCapability() + 1 {
		c.add("give up a capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability).mode = mayFail
	}
	const locked = 0xef // as for namespaces
	c.add("give up the rights of root", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, locked).mode = mayFail
}
