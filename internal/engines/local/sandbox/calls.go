//go:build linux

package sandbox

import (
	"syscall"
	"unsafe"
)

// calls is a list of system calls that a forked process makes one after the other. All that they need is in memory before:
// the process has one thread of a Go program and none of its runtime, so that it can neither allocate nor wait for a lock.
type calls struct {
	list []call
	what []string // for people: what each one was to do
	pins []any    // the memory that addresses in list point to; Go does not move it
	kept uint8    // results that are kept
	room *room    // where that memory is instead, if the process was forked before the list was written
}

type call struct {
	number uintptr
	args   [6]uintptr
	from   [6]uint8 // not 0: the argument is that kept result, or is read from where it points to
	keep   uint8    // not 0: the result is kept as that
	mode   uint8
}

// read as a place of kept results means: the argument is the address of an int32.
const read = 255

// What a call has to end with.
const (
	mustSucceed uint8 = iota
	mayFail
	mustBeZero // it succeeds, and its result is 0
	mustNotBeZero
	mustBeAll // its result is its third argument, as of a write
)

// kept is a result that a later call takes as an argument.
type kept uint8

// place is where an int32 is once the call is made, as a descriptor that came in a message.
type place uintptr

// add appends a call. Arguments are uintptr, int, a string or []byte by its address, a pointer as uintptr that is pinned,
// a kept result, or a place that is read when the call is made.
func (c *calls) add(what string, number uintptr, args ...any) *call {
	one := call{number: number}
	for i, a := range args {
		switch a := a.(type) {
		case int:
			one.args[i] = uintptr(a)
		case uintptr:
			one.args[i] = a
		case string:
			one.args[i] = c.text(a)
		case []byte:
			one.args[i] = c.bytes(a)
		case kept:
			one.from[i] = uint8(a)
		case place:
			one.from[i], one.args[i] = read, uintptr(a)
		default:
			panic("an argument of no known type")
		}
	}
	c.list = append(c.list, one)
	c.what = append(c.what, what)
	return &c.list[len(c.list)-1]
}

// keep has the result of the last call kept. There are 254 places.
func (c *calls) keep() kept {
	c.kept++
	c.list[len(c.list)-1].keep = c.kept
	return kept(c.kept)
}

// keepTree is keep for results of which there can be many: some places are left for what else is needed.
func (c *calls) keepTree() (kept, error) {
	const left = 10
	if c.kept >= read-1-left {
		return 0, errTooMany
	}
	return c.keep(), nil
}

func (c *calls) bytes(b []byte) uintptr {
	if c.room != nil {
		return c.room.bytes(b)
	}
	c.pins = append(c.pins, b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// text is the address of a string with a NUL behind it.
func (c *calls) text(s string) uintptr {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return c.bytes(b)
}

// texts is the address of a list of strings, as execve takes them.
func (c *calls) texts(list []string) uintptr {
	addresses := make([]uintptr, len(list)+1)
	for i, s := range list {
		addresses[i] = c.text(s)
	}
	return c.bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(addresses))), len(addresses)*int(unsafe.Sizeof(addresses[0]))))
}

// report is what a sandbox says about itself, as it crosses the pipe.
type report struct {
	kind  uint32
	value uint32 // the call that failed, or how the tool ended
	errno uint32
	usage syscall.Rusage
}

const (
	reportSetUp  uint32 = 1 // it could not be made: value is the call
	reportExec   uint32 = 2 // the tool could not be started: value is the call
	reportExited uint32 = 3 // the tool has ended: value is its wait status
	reportEnter  uint32 = 4 // it could not be given what its tool needs: value is the call
	reportFork   uint32 = 6 // there can be no process for it
	reportBegun  uint32 = 7 // it was started as a brother: value is the id of that
	reportGone   uint32 = 5 // all processes of the tool have ended and were collected: usage is theirs

	reportSize = int(unsafe.Sizeof(report{}))
)

// forked is all that the process of a sandbox needs. It is written before the fork, but for what it is handed.
type forked struct {
	setUp, rest []call
	handed      *handed // complete once setUp is done, whose last call waits for that
	kept        [256]uintptr
	report      report
	to          uintptr // descriptor of the pipe for reports
	status      int32   // for wait4
}

// fork starts the process of a sandbox, which never returns from here. All signals are blocked: their handlers are those of
// Go's runtime.
//
//go:norace
//go:nocheckptr
//go:nosplit
//go:noinline
func fork(flags uintptr, pidfd *int32, f *forked) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	if i, errno := perform(f.setUp, &f.kept); errno != 0 {
		tell(f, reportSetUp, i, errno)
		leave()
	}
	f.handed.begun = true
	if i, errno := perform(f.handed.enter, &f.kept); errno != 0 {
		tell(f, reportEnter, i, errno)
		leave()
	}
	first, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		tell(f, reportFork, 0, errno)
		leave()
	}
	if first == 0 {
		i, errno := perform(f.handed.tool, &f.kept)
		tell(f, reportExec, i, errno)
		leave()
	}
	_, _ = perform(f.rest, &f.kept) // nobody could be told
	for {
		// As the first process of the pid namespace this one is the parent of all orphans in it.
		ended, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&f.status)), 0, 0, 0, 0)
		if ended == first {
			// All others in this pid namespace at once. The kernel would end them with this process, but first refuses them
			// new processes, and they would say so.
			_, _, _ = syscall.RawSyscall6(syscall.SYS_KILL, ^uintptr(0), uintptr(syscall.SIGKILL), 0, 0, 0, 0)
			tell(f, reportExited, uintptr(uint32(f.status)), 0)
			for errno == 0 || errno == syscall.EINTR { // whom nobody waits for is not in the account of what was used
				_, _, errno = syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), 0, 0, 0, 0, 0)
			}
			const ofChildren = ^uintptr(0)
			_, _, _ = syscall.RawSyscall6(syscall.SYS_GETRUSAGE, ofChildren, uintptr(unsafe.Pointer(&f.report.usage)), 0, 0, 0, 0)
			// That the kernel ends the namespaces takes longer than many a tool: nobody has to wait for that.
			tell(f, reportGone, 0, 0)
			leave()
		}
		if errno != 0 && errno != syscall.EINTR {
			leave()
		}
	}
}

// perform makes calls until one fails, and says which and why.
//
//go:norace
//go:nocheckptr
//go:nosplit
//go:noinline
func perform(list []call, kept *[256]uintptr) (uintptr, syscall.Errno) {
	for i := range list {
		c := &list[i]
		a := c.args
		for j := range a {
			switch from := c.from[j]; from {
			case 0:
			case read:
				a[j] = uintptr(**(**int32)(unsafe.Pointer(&a[j])))
			default:
				a[j] = kept[from]
			}
		}
		result, _, errno := syscall.RawSyscall6(c.number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 && c.mode != mayFail {
			return uintptr(i), errno
		}
		if c.mode == mustBeZero && result != 0 || c.mode == mustNotBeZero && result == 0 || c.mode == mustBeAll && result != a[2] {
			return uintptr(i), syscall.ECANCELED
		}
		if c.keep != 0 {
			kept[c.keep] = result
		}
	}
	return 0, 0
}

//go:norace
//go:nosplit
func tell(f *forked, kind uint32, value uintptr, errno syscall.Errno) {
	f.report.kind, f.report.value, f.report.errno = kind, uint32(value), uint32(errno)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_WRITE, f.to, uintptr(unsafe.Pointer(&f.report)), uintptr(reportSize), 0, 0, 0)
}

//go:norace
//go:nosplit
func leave() {
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}
