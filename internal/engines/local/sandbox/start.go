//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tool is the program of a sandbox.
type Tool struct {
	Path    string // inside, as all others
	Argv    []string
	Env     []string
	Dir     string
	Streams [3]int // descriptors of stdin, stdout and stderr
}

// Process is the first process of a sandbox. All others end with it, and it ends with the thread that started it.
type Process struct {
	PID   int
	PidFD int // readable once it has ended, and with it everything in the sandbox; below 0: there is none

	sync   int // held as long as the starter lives
	status int
	setUp  *calls
	tool   *calls
	early  Report // what was heard before it was asked for
}

// Report is how it went, to be asked for when the process has ended.
type Report struct {
	Status syscall.WaitStatus // of the tool, where Ended
	Ended  bool               // by itself; else its sandbox was killed

	Failed bool   // the tool was not started
	Step   string // what failed of making the sandbox; "": the program could not be executed
	Errno  syscall.Errno
}

// Start makes a sandbox and starts a tool in it. The calling goroutine is locked to its thread for as long as the sandbox
// lives, and is the only one that forks. An error means that nothing is left; what fails later is in the report.
func Start(p *Plan, tool Tool) (*Process, error) {
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
	if process.setUp, err = p.setUp(ours); err == nil {
		process.tool = p.tool(ours, tool)
		err = process.start(p, ours)
	}
	unix.Close(sync[0])
	unix.Close(status[1])
	if err == nil {
		if err = process.admit(p, sync[1]); err != nil {
			unix.Kill(process.PID, unix.SIGKILL)
			var ended unix.WaitStatus
			for {
				if _, err := unix.Wait4(process.PID, &ended, 0, nil); err != unix.EINTR {
					break
				}
			}
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

func (p *Process) start(plan *Plan, e ends) error {
	rest := e.rest()
	f := &forked{setUp: p.setUp.list, tool: p.tool.list, rest: rest.list, to: uintptr(e.status)}
	pidfd := new(int32)
	*pidfd = -1
	all, before := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	pid, errno := fork(plan.cloneFlags()|unix.CLONE_PIDFD, pidfd, f)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		panic(err) // it was possible a moment ago
	}
	runtime.KeepAlive(p.setUp)
	runtime.KeepAlive(p.tool)
	runtime.KeepAlive(rest)
	if errno != 0 {
		return fmt.Errorf("make namespaces: %w", errno)
	}
	p.PID, p.PidFD = int(pid), int(*pidfd)
	return nil
}

// admit does from outside what the process cannot, and lets it begin.
func (p *Process) admit(plan *Plan, sync int) error {
	proc := "/proc/" + strconv.Itoa(p.PID)
	if plan.User >= 0 {
		for _, file := range []string{"/uid_map", "/gid_map"} {
			if err := writeTo(proc+file, fmt.Sprintf("%d %d 1", ID, plan.User)); err != nil {
				return fmt.Errorf("give the sandbox the user %d: %w", plan.User, err)
			}
		}
	}
	for _, dir := range plan.Cgroups {
		if err := writeTo(dir+"/cgroup.procs", strconv.Itoa(p.PID)); err != nil {
			return fmt.Errorf("put the sandbox into its cgroup: %w", err)
		}
	}
	if _, err := unix.Write(sync, []byte{1}); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// writeTo writes a file of the kernel in one piece.
func writeTo(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// Report says how it went. The process has ended; it is asked once.
func (p *Process) Report() Report {
	defer unix.Close(p.sync)
	defer unix.Close(p.status)
	if p.early.Failed {
		return p.early
	}
	_, r, _ := p.hear()
	return r
}
