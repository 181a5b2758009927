//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StepError is a sandbox that could not be made.
type StepError struct {
	Step  string // what was to be done
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

func (e *StepError) Unwrap() error { return e.Errno }

// spawn forks a process that makes the calls of setUp and those of tool, the last of which is execve. Where it is to be
// twice, the second list is that of another process, which has the same parent: who has entered a pid namespace is not in it,
// and what it forks is. All signals are blocked, as for fork.
//
//go:norace
//go:nocheckptr
//go:nosplit
//go:noinline
func spawn(pidfd *int32, f *forked, tool []call, twice bool) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_PIDFD|uintptr(syscall.SIGCHLD), 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	if i, errno := perform(f.setUp, &f.kept); errno != 0 {
		tell(f, reportSetUp, i, errno)
		leave()
	}
	if twice {
		other, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_PARENT|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			tell(f, reportFork, 0, errno)
			leave()
		}
		if other != 0 {
			tell(f, reportBegun, other, 0)
			leave()
		}
	}
	i, errno := perform(tool, &f.kept)
	tell(f, reportExec, i, errno)
	leave()
	return 0, 0
}

// startTool starts a tool that is a child of this process, to be waited for as any other, after the calls that list writes
// down. The calling goroutine is locked to its thread, and is the only one that forks.
func startTool(tool Tool, twice bool, list func(ends) (*calls, error)) (*Process, error) {
	one, theirs, err := newProcess()
	if err != nil {
		return nil, err
	}
	setUp, err := list(theirs)
	if err == nil {
		err = one.spawn(setUp, tool, twice, theirs)
	}
	theirs.close()
	if err == nil {
		err = one.join(tool.Cgroups)
	}
	if err == nil {
		err = one.message()
	}
	if err == nil && twice {
		err = one.meet()
	}
	if err != nil {
		one.End()
		return nil, err
	}
	return one, nil
}

func (p *Process) spawn(setUp *calls, tool Tool, twice bool, theirs ends) error {
	start := &calls{}
	start.endWithStarter(theirs)
	start.start(tool, [3]any{tool.Streams[0], tool.Streams[1], tool.Streams[2]}, nil)
	p.lists = map[uint32]*calls{reportSetUp: setUp, reportExec: start}
	f := &forked{setUp: setUp.list, to: uintptr(theirs.status)}
	defer runtime.KeepAlive(setUp)
	defer runtime.KeepAlive(start)
	err := p.quietly(func(pidfd *int32) (uintptr, syscall.Errno) { return spawn(pidfd, f, start.list, twice) })
	if err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	return nil
}

// meet waits until the process has started the tool, which takes its place.
func (p *Process) meet() error {
	for p.brother == 0 {
		if p.silent {
			if p.report.Failed {
				return &StepError{p.report.Step, p.report.Errno}
			}
			return errors.New("the process that was to start the tool was killed")
		}
		unix.Poll([]unix.PollFd{{Fd: int32(p.status), Events: unix.POLLIN}}, -1)
		p.Report()
	}
	collect(p.PID)
	unix.Close(p.PidFD)
	p.PID, p.PidFD = p.brother, -1
	if fd, err := unix.PidfdOpen(p.PID, 0); err == nil { // our own child cannot be gone before we have asked for it
		p.PidFD = fd
	}
	return nil
}

// collect waits for a child that has ended or is about to.
func collect(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// wait lists what a process begins with that has been started but must not go on before it was admitted.
func (c *calls) wait(e ends) {
	c.add("wait for the starter", unix.SYS_READ, e.sync, make([]byte, 1), 1).mode = mustNotBeZero
}

// become changes the user and group, for who may, and leaves all other groups.
func (c *calls) become(user int) {
	c.add("leave all groups", unix.SYS_SETGROUPS, 0, 0)
	c.add("become the group "+strconv.Itoa(user), unix.SYS_SETRESGID, user, user, user)
	c.add("become the user "+strconv.Itoa(user), unix.SYS_SETRESUID, user, user, user)
}

// endWithStarter has the kernel end the process with the thread that started it. Who changes its user later loses that.
func (c *calls) endWithStarter(e ends) {
	c.add("end with the starter", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	poll := []unix.PollFd{{Fd: int32(e.sync)}} // its other end was closed: that is always told
	c.pins = append(c.pins, poll)
	c.add("look for the starter", unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll[0])), 1, make([]byte, 16), 0, 0).mode = mustBeZero
}
