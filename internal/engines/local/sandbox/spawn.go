//go:build linux

package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reportBegun is said by a process that has started the tool as its brother: value is the id of that.
const reportBegun uint32 = 4

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
//go:nosplit
//go:noinline
func spawn(pidfd *int32, f *forked, twice bool) (pid uintptr, errno syscall.Errno) {
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
			tell(f, reportExec, 0, errno)
			leave()
		}
		if other != 0 {
			tell(f, reportBegun, other, 0)
			leave()
		}
	}
	i, errno := perform(f.tool, &f.kept)
	tell(f, reportExec, i, errno)
	leave()
	return 0, 0
}

// startTool starts a tool that is a child of this process, to be waited for as any other, after the calls that list writes
// down. The calling goroutine is locked to its thread, and is the only one that forks.
func startTool(p *Plan, tool Tool, twice bool, list func(ends) (*calls, error)) (*Process, error) {
	if arch == 0 {
		return nil, fmt.Errorf("there is no filter of system calls for %s", runtime.GOARCH)
	}
	var sync, status [2]int
	if err := unix.Pipe2(sync[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC); err != nil {
		unix.Close(sync[0])
		unix.Close(sync[1])
		return nil, fmt.Errorf("pipe: %w", err)
	}
	process := &Process{sync: sync[1], status: status[0], PidFD: -1}
	ours := ends{streams: tool.Streams, sync: sync[0], status: status[1]}
	var err error
	if process.setUp, err = list(ours); err == nil {
		process.tool = &calls{}
		process.tool.endWithStarter(ours)
		process.tool.join(p.tool(ours, tool))
		err = process.spawn(twice, ours)
	}
	unix.Close(sync[0])
	unix.Close(status[1])
	if err == nil {
		if err = process.admit(&Plan{User: -1, Cgroups: p.Cgroups}, sync[1]); err == nil && twice {
			err = process.meet()
		}
		if err != nil {
			unix.Kill(process.PID, unix.SIGKILL)
			collect(process.PID)
			unix.Close(process.PidFD)
		}
	}
	if err != nil {
		unix.Close(sync[1])
		unix.Close(status[0])
		return nil, err
	}
	return process, nil
}

func (p *Process) spawn(twice bool, e ends) error {
	f := &forked{setUp: p.setUp.list, tool: p.tool.list, to: uintptr(e.status)}
	pidfd := new(int32)
	*pidfd = -1
	all, before := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	pid, errno := spawn(pidfd, f, twice)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		panic(err) // it was possible a moment ago
	}
	runtime.KeepAlive(p.setUp)
	runtime.KeepAlive(p.tool)
	if errno != 0 {
		return fmt.Errorf("start a process: %w", errno)
	}
	p.PID, p.PidFD = int(pid), int(*pidfd)
	return nil
}

// meet waits until the process has started the tool, which takes its place.
func (p *Process) meet() error {
	var failed Report
	for {
		kind, r, more := p.hear()
		switch {
		case !more && failed.Failed:
			return &StepError{failed.Step, failed.Errno}
		case !more:
			return errors.New("the process that was to start the tool was killed")
		case kind == reportBegun:
			collect(p.PID)
			unix.Close(p.PidFD)
			p.early = failed
			p.PID, p.PidFD = int(r.Status), -1
			if fd, err := unix.PidfdOpen(p.PID, 0); err == nil { // our own child cannot be gone before we have asked for it
				p.PidFD = fd
			}
			return nil
		default:
			failed = r // perhaps of the tool's process, which can be the first to speak
		}
	}
}

// hear reads one report; none comes where nobody is left to make one.
func (p *Process) hear() (kind uint32, r Report, more bool) {
	text := make([]byte, reportSize)
	n, err := unix.Read(p.status, text)
	for err == unix.EINTR {
		n, err = unix.Read(p.status, text)
	}
	if err != nil || n != reportSize {
		return 0, r, false
	}
	kind, value, errno := binary.NativeEndian.Uint32(text), binary.NativeEndian.Uint32(text[4:]), binary.NativeEndian.Uint32(text[8:])
	list := p.setUp
	switch kind {
	case reportBegun:
		return kind, Report{Status: syscall.WaitStatus(value)}, true
	case reportExited:
		return kind, Report{Ended: true, Status: syscall.WaitStatus(value)}, true
	case reportExec:
		list = p.tool
	}
	r = Report{Failed: true, Errno: syscall.Errno(errno)}
	if int(value) < len(list.what) {
		r.Step = list.what[value]
	}
	return kind, r, true
}

// collect waits for a child that has ended or is about to.
func collect(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// join appends the calls of a list that keeps no results.
func (c *calls) join(more *calls) {
	c.list, c.what, c.pins = append(c.list, more.list...), append(c.what, more.what...), append(c.pins, more.pins...)
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
	poll := []unix.PollFd{{Fd: int32(e.sync), Events: unix.POLLIN}}
	c.pins = append(c.pins, poll)
	c.add("look for the starter", unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll[0])), 1, make([]byte, 16), 0, 0).mode = mustBeZero
}
