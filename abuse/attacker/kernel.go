//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused tells apart the two ways in which a privileged call fails whose arguments make no sense: by the check of rights,
// which comes first, or by what comes after it.
func refused(errno error) error {
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP} {
		if errors.Is(errno, refusal) {
			return errno
		}
	}
	fmt.Println("the check of rights was passed; then came:", errno)
	return nil
}

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// adjtime sets the length of the clock's tick to what it is.
func adjtime([]string) error {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return err
	}
	const tick = 0x4000 // ADJ_TICK
	t = unix.Timex{Modes: tick, Tick: t.Tick}
	_, err := unix.Adjtimex(&t)
	return err
}

// bpf makes a map, which is gone with its descriptor.
func bpf([]string) error {
	attributes := [32]uint32{2 /* array */, 4, 4, 1}
	return call(unix.SYS_BPF, 0 /* BPF_MAP_CREATE */, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
}

func chroot([]string) error { return unix.Chroot(".") }

// immutable makes a file that nobody can remove.
func immutable(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CREAT, 0o600)
	if err != nil {
		return err
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, immutable)
}

func ioURing([]string) error {
	var parameters [120]byte
	return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&parameters)))
}

// kernelLog asks for the size of the kernel's log.
func kernelLog([]string) error {
	const sizeUnread = 9
	_, err := unix.Klogctl(sizeUnread, nil)
	return err
}

// kexec names more segments than there may be.
func kexec([]string) error {
	return refused(call(unix.SYS_KEXEC_LOAD, 0, 1000, 0, 0))
}

func keyAdd(args []string) error {
	_, err := unix.AddKey("user", args[0], []byte("planted"), unix.KEY_SPEC_USER_KEYRING)
	return err
}

// keyFind looks for what keyAdd left in an earlier run, and revokes it.
func keyFind(args []string) error {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", args[0], 0)
	if err == nil {
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	}
	return err
}

// mknod makes device nodes, of the disk that /usr is on and of the null device, and opens one. It reads nothing.
func mknod(args []string) error {
	var usr unix.Stat_t
	if err := unix.Stat("/usr", &usr); err != nil {
		return err
	}
	err := unix.Mknod(args[0], unix.S_IFBLK|0o600, int(usr.Dev))
	if err == nil {
		if _, err = unix.Open(args[0], unix.O_RDONLY, 0); err == nil {
			return nil
		}
	}
	fmt.Println("the disk:", err)
	if err := unix.Mknod(args[1], unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		return err
	}
	_, err = unix.Open(args[1], unix.O_RDONLY, 0)
	return err
}

// module loads nothing, from no file.
func module([]string) error {
	return refused(call(unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0))
}

// mount mounts an empty file system on a directory of the run.
func mount(args []string) error {
	return unix.Mount("abuse", args[0], "tmpfs", 0, "size=64k")
}

// namespace makes namespaces for whoever has no user namespace to make them in.
func namespace([]string) error {
	return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET)
}

// perf counts the instructions of this process.
func perf([]string) error {
	attributes := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	_, err := unix.PerfEventOpen(&attributes, 0, -1, -1, 0)
	return err
}

// reboot gives no right magic number.
func reboot([]string) error {
	return refused(call(unix.SYS_REBOOT, 0, 0, 0, 0))
}

// sethostname gives the machine the name that it has.
func sethostname([]string) error {
	var names unix.Utsname
	if err := unix.Uname(&names); err != nil {
		return err
	}
	name, _, _ := bytes.Cut(names.Nodename[:], []byte{0})
	return unix.Sethostname(name)
}

// setns enters the mount namespace of another process.
func setns(args []string) error {
	fd, err := unix.Open("/proc/"+args[0]+"/ns/mnt", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its directory may not
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

// swap removes no swap space.
func swap([]string) error {
	name := []byte{0}
	return refused(call(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(&name[0]))))
}

// userNamespace makes a user namespace, in which it would have all capabilities. A thread may not, so a child does.
func userNamespace([]string) error {
	process, err := os.StartProcess("/proc/self/exe", []string{"attacker", "wait", "0s"}, inUserNamespace())
	if err != nil {
		return err
	}
	if state, err := process.Wait(); err != nil || !state.Success() {
		return errors.New("the process in it has failed")
	}
	return nil
}
