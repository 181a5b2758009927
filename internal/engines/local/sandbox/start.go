//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tool is the program of a sandbox.
type Tool struct {
	Path    string // inside, as all others
	Argv    []string
	Env     []string
	Dir     string
	Args    []byte   // what is in ArgsFile
	Streams [3]int   // descriptors of stdin, stdout and stderr
	Cgroups []string // directories of the cgroups that it is put in
}

// Room is how many bytes a tool needs of what Make was given.
func (t Tool) Room() int {
	size := len(t.Path) + len(t.Dir) + len(t.Args) + roomForCalls
	for _, list := range [][]string{t.Argv, t.Env} {
		for _, s := range list {
			size += len(s) + roomForString
		}
	}
	return size
}

const (
	roomForCalls  = 8192   // lists, and what is in them beside the tool's own
	roomForString = 1 + 15 // a NUL, its address, and to the next multiple of 8

	// Ahead is room for most tools, whichever they are.
	Ahead = 1 << 20
)

// Process is the first process of a sandbox. All others end with it, and it ends with the thread that made it.
type Process struct {
	PID   int
	PidFD int // readable once it has ended, and with it everything in the sandbox

	sync    int // held as long as the starter lives
	status  int
	room    *room // nil: it was started with its tool
	has     enters
	report  Report
	silent  bool              // it will report no more
	brother int               // whom it started in its place; 0: nobody yet
	lists   map[uint32]*calls // by the kind of a report about one of them
}

// Report is how it went.
type Report struct {
	Status syscall.WaitStatus // of the tool, where Ended
	Ended  bool               // by itself; else its sandbox was killed

	Gone  bool           // all processes of the tool were collected, and the sandbox has nothing left to do but end
	Usage syscall.Rusage // of these, where Gone

	Failed bool   // the tool was not started
	Step   string // what failed of making the sandbox; "": the program could not be executed
	Errno  syscall.Errno
}

// newProcess makes what a starter and a process talk by.
func newProcess() (*Process, ends, error) {
	if arch == 0 {
		return nil, ends{}, fmt.Errorf("there is no filter of system calls for %s", runtime.GOARCH)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, ends{}, fmt.Errorf("socketpair: %w", err)
	}
	var status [2]int
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, ends{}, fmt.Errorf("pipe: %w", err)
	}
	return &Process{PID: -1, PidFD: -1, sync: pair[0], status: status[0]}, ends{sync: pair[1], status: status[1]}, nil
}

// close closes them in the starter.
func (e ends) close() {
	unix.Close(e.sync)
	unix.Close(e.status)
}

// Make makes a sandbox that waits for its tool, which may need so much room. The calling goroutine is locked to its thread for
// as long as the sandbox lives, and is the only one that forks. An error means that nothing is left; what fails later is in
// the report.
func Make(p *Plan, size int) (*Process, error) {
	one, theirs, err := newProcess()
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	if err = one.make(p, size, theirs); err != nil {
		one.End()
		return nil, err
	}
	return one, nil
}

func (p *Process) make(plan *Plan, size int, theirs ends) (err error) {
	if p.room, err = newRoom(size); err != nil {
		return err
	}
	setUp, has, err := plan.setUp(theirs)
	if err != nil {
		return err
	}
	p.has, p.lists = has, map[uint32]*calls{reportSetUp: setUp}
	if err = p.fork(plan, setUp, theirs); err != nil {
		return err
	}
	return p.admit(plan)
}

func (p *Process) fork(plan *Plan, setUp *calls, theirs ends) error {
	rest := theirs.rest()
	f := &forked{setUp: setUp.list, rest: rest.list, handed: p.room.handed(), to: uintptr(theirs.status)}
	defer runtime.KeepAlive(setUp)
	defer runtime.KeepAlive(rest)
	err := p.quietly(func(pidfd *int32) (uintptr, syscall.Errno) { return fork(plan.cloneFlags()|unix.CLONE_PIDFD, pidfd, f) })
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	return nil
}

// quietly forks a process while all signals are blocked.
func (p *Process) quietly(fork func(pidfd *int32) (uintptr, syscall.Errno)) error {
	pidfd := new(int32)
	*pidfd = -1
	all, before := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	pid, errno := fork(pidfd)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		panic(err) // it was possible a moment ago
	}
	if errno != 0 {
		return errno
	}
	p.PID, p.PidFD = int(pid), int(*pidfd)
	return nil
}

// admit does from outside what the process cannot, and lets it begin.
func (p *Process) admit(plan *Plan) error {
	if plan.User >= 0 {
		for _, file := range []string{"/uid_map", "/gid_map"} {
			if err := writeTo("/proc/"+strconv.Itoa(p.PID)+file, fmt.Sprintf("%d %d 1", ID, plan.User)); err != nil {
				return fmt.Errorf("give the sandbox the user %d: %w", plan.User, err)
			}
		}
	}
	if err := p.message(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// message lets the process go on, with descriptors. Who is gone has left a report, which is better than an error.
func (p *Process) message(descriptors ...int) error {
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if err := unix.Sendmsg(p.sync, []byte{0}, rights, nil, unix.MSG_NOSIGNAL); err != unix.EPIPE && err != unix.ECONNRESET {
		return err
	}
	return nil
}

// join puts the process into cgroups.
func (p *Process) join(cgroups []string) error {
	for _, dir := range cgroups {
		if err := writeTo(dir+"/cgroup.procs", strconv.Itoa(p.PID)); err != nil {
			return fmt.Errorf("put the sandbox into its cgroup: %w", err)
		}
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

// Waits reports whether the sandbox is there still, with room for the tool. One that was made ahead may have failed, or been
// killed, meanwhile.
func (p *Process) Waits(tool Tool) bool {
	if tool.Room() > len(p.room.memory) {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(p.PidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n == 0 && err == nil
}

// Enter starts a tool in the sandbox, once. An error means that it was not started, and that the sandbox is gone.
func (p *Process) Enter(tool Tool) error {
	err := p.hand(tool)
	if err != nil {
		p.End()
	}
	return err
}

func (p *Process) hand(tool Tool) error {
	enter, start := p.has.enter(tool, p.room), &calls{room: p.room}
	start.start(tool, p.has.streams, p.has.limits)
	*p.room.handed() = handed{enter: p.room.calls(enter.list), tool: p.room.calls(start.list)}
	if p.room.full {
		return errors.New("the command, its environment and arguments are larger than was reckoned with")
	}
	p.lists[reportEnter], p.lists[reportExec] = enter, start
	if err := p.join(tool.Cgroups); err != nil {
		return err
	}
	return p.message(tool.Streams[:]...)
}

// Began reports whether the process took its tool: one that was killed before can be replaced by another.
func (p *Process) Began() bool { return p.room == nil || p.room.handed().begun }

// Said is a descriptor that is readable when there is something new in the report; -1 when nothing more will come.
func (p *Process) Said() int {
	if p.silent {
		return -1
	}
	return p.status
}

// Report says how it went so far. All of it is there once the tool is gone, or the process has ended.
func (p *Process) Report() Report {
	text := make([]byte, reportSize)
	for {
		n, err := unix.Read(p.status, text)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != reportSize {
			p.silent = n == 0 && err == nil
			return p.report
		}
		p.take((*report)(unsafe.Pointer(unsafe.SliceData(text))))
	}
}

func (p *Process) take(r *report) {
	switch r.kind {
	case reportExited:
		p.report.Ended, p.report.Status = true, syscall.WaitStatus(r.value)
		return
	case reportGone:
		p.report.Gone, p.report.Usage = true, r.usage
		return
	case reportBegun:
		p.brother = int(r.value)
		return
	case reportFork:
		p.report.Failed, p.report.Errno, p.report.Step = true, syscall.Errno(r.errno), "start a process for the tool"
		return
	}
	list := p.lists[r.kind]
	if list == nil {
		return
	}
	p.report.Failed, p.report.Errno = true, syscall.Errno(r.errno)
	if int(r.value) < len(list.what) {
		p.report.Step = list.what[r.value]
	}
}

// Close lets go what the starter has of a sandbox that has ended and was waited for.
func (p *Process) Close() {
	if p.PidFD >= 0 {
		unix.Close(p.PidFD)
	}
	unix.Close(p.sync)
	unix.Close(p.status)
	if p.room != nil {
		p.room.close()
	}
}

// End ends a sandbox whatever it does, and waits for that.
func (p *Process) End() {
	if p.PID > 0 {
		unix.Kill(p.PID, unix.SIGKILL)
		collect(p.PID)
	}
	p.Close()
}
