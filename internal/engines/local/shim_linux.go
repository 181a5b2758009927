package local

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

const (
	shimName   = "executor-shim" // argv[0], by which a process knows that it is one
	shimSocket = 3               // the descriptor of the socket
)

// ShimInvoked reports whether this process was started as a shim. The program, and every test binary that uses the
// engine, asks first thing and calls ShimMain if so.
func ShimInvoked() bool {
	return len(os.Args) == 1 && (os.Args[0] == shimName || os.Args[0] == probeFile) || len(os.Args) == 2 && os.Args[1] == probeFile
}

// ShimMain runs tools for the executor at the other end of the socket until that closes, then exits the process.
//
// It is one loop on one thread, with system calls that block: the parent-death signal of a tool belongs to the thread
// that forked, and nothing here must wait for a scheduler.
func ShimMain() {
	if os.Args[len(os.Args)-1] == probeFile {
		os.Exit(0)
	}
	runtime.LockOSThread()
	if err := setUpShim(); err != nil {
		fmt.Fprintln(os.Stderr, "executor: the helper that starts tools:", err)
		os.Exit(1)
	}
	var ours shimBoxes
	for {
		kind, text, files, err := receive()
		ours.collect()
		if err != nil { // the executor is gone, and no tool runs
			ours.close()
			os.Exit(0)
		}
		if kind != frameStart && kind != frameAhead {
			continue // a stop that came after the end
		}
		start, err := decodeStart(text)
		if err != nil || kind == frameStart && len(files) != 3 {
			fmt.Fprintln(os.Stderr, "executor: the helper that starts tools got a broken message")
			os.Exit(1)
		}
		if kind == frameAhead {
			ours.make(start.Box)
			continue
		}
		s := shim{boxes: &ours}
		s.run(start, files)
		alone := s.alone || send(s.ended) != nil
		if s.box != nil && s.over {
			s.box.Close()
		} else if s.box != nil {
			ours.leave(s.box)
		}
		if alone {
			ours.close()
			if start.Remove != "" {
				_ = removeTree(start.Remove) // nobody is left to hear of a failure
			}
			os.Exit(0)
		}
	}
}

// setUpShim gives this process what makes it a shim, and takes away what tools must not inherit.
func setUpShim() error {
	// Orphans of the tool become our children, wherever they hide.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	// The tool has our user: keep it from tracing us and from reading our memory and descriptors.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close this process to others: %w", err)
	}
	// Descriptors that the executor got from whoever started it are not for tools.
	unix.CloseOnExec(shimSocket)
	if err := unix.CloseRange(shimSocket+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil { // before 5.11
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return fmt.Errorf("close descriptors: %w", err)
		}
		for _, name := range names {
			if fd, err := strconv.Atoi(name.Name()); err == nil && fd > shimSocket {
				unix.CloseOnExec(fd)
			}
		}
	}
	// Tools start with the default effect of all signals and none blocked, whatever the executor was started with: Go
	// gives the default effect to what we take notice of, and leaves these alone otherwise. That we take notice also
	// keeps us alive when somebody signals all our service's processes, as systemd does: we end with the executor.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT)
	heedAllSignals()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	return nil
}

// heedAllSignals gives the default effect to the signals that are ignored still: Go leaves alone those that it has no use
// for, as 32 and 33, and they may have been ignored by whoever started the executor.
func heedAllSignals() {
	const last = 64
	for signal := uintptr(1); signal <= last; signal++ {
		// The kernel's struct sigaction: the handler first, on every architecture, and no more than four words in all.
		var is, byDefault [4]uintptr
		const ignored = 1 // SIG_IGN
		const setSize = 8 // bytes of the kernel's sigset_t
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, 0, uintptr(unsafe.Pointer(&is)), setSize, 0, 0)
		if errno == 0 && is[0] == ignored {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&byDefault)), 0, setSize, 0, 0)
		}
	}
}

// shim is one run as the shim sees it.
type shim struct {
	first int // the tool's first process, or that of its sandbox
	pidfd int // of that; below 0: the kernel has none
	box   *sandbox.Process
	seen  bool // its end was awaited
	boxes *shimBoxes
	boxed bool  // first is the first process of its sandbox, not the tool
	room  *room // its namespaces, where another program made them
	over  bool  // it has ended and was collected
	asked bool  // for the end of the tool
	alone bool  // the executor is gone
	ended ended
}

// ownPeak is the most memory that this process had, in KiB, when that was last looked at.
var ownPeak int64

// run starts a tool, waits for its end, and ends what it left behind.
func (s *shim) run(start startRequest, files []int) {
	closeFiles := func() {
		for _, fd := range files {
			unix.Close(fd)
		}
		files = nil
	}
	err := s.begin(start, files)
	if err == nil && start.Ahead {
		if s.await(closeFiles); s.lost() && files != nil {
			s.box.Close()
			*s = shim{boxes: s.boxes}
			err = s.begin(start, files)
		}
	}
	closeFiles()
	if err != nil {
		s.ended.Error = err.Error()
		var errno syscall.Errno
		if errors.As(err, &errno) {
			s.ended.Errno = int(errno)
		}
		return
	}
	s.await(nil)
	if s.box == nil {
		unix.Close(s.pidfd)
		s.endAll()
	} else {
		r := s.box.Report()
		if !r.Gone {
			s.endAll()
			r = s.box.Report()
		}
		s.heed(r)
	}
	s.ended.Stopped = s.asked
}

// begin starts the first process of the tool, or has its sandbox do so.
func (s *shim) begin(start startRequest, files []int) (err error) {
	if start.Ahead || len(start.Box) > 0 {
		return s.startBox(start, files)
	}
	s.boxes.end() // it would be taken for something of the tool
	s.pidfd = -1
	s.first, _, err = syscall.StartProcess(start.Path, start.Argv, &syscall.ProcAttr{
		Dir: start.Dir, Env: start.Env, Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, PidFD: &s.pidfd},
	})
	return err
}

// boxTime is how long a sandbox may take to end after its tool was killed.
const boxTime = time.Second

// How long is waited for the end of a tool, in milliseconds, before something is done again.
const (
	whileRunning  = 1000
	whileStarting = 20 // its streams are held as long as it has not begun
	whileStopping = 5  // what starts just now has not got the signal
	withoutPidfd  = 5  // a kernel before 5.4: the end is looked for
)

// await returns when the tool's first process has ended, or must end now; started is called once that has taken its streams.
func (s *shim) await(started func()) {
	if s.seen {
		return
	}
	s.seen = true
	var killed time.Time
	asked, told := false, false // for the end, by a signal, and somebody has heard that
	for {
		timeout := whileRunning
		switch {
		case asked && !told || !killed.IsZero():
			timeout = whileStopping
		case s.pidfd < 0:
			timeout = withoutPidfd
		case started != nil:
			timeout = whileStarting
		}
		fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}, {Fd: shimSocket, Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
		if s.box != nil {
			fds[2].Fd = int32(s.box.Said())
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[2].Revents != 0 && s.box.Report().Gone {
			return
		}
		// Orphans of the tool that end meanwhile, each of which interrupts the poll, must not stay as zombies: a tool that
		// runs for days would use up all process ids.
		if s.reap(); s.over {
			return
		}
		if started != nil && (!s.boxed || s.box.Began()) {
			started()
			started = nil
		}
		if fds[1].Revents != 0 {
			kind, _, _, err := receive()
			switch {
			case err != nil:
				s.alone = true
				return
			case kind == frameTerm:
				s.asked, asked = true, true
			case kind == frameKill:
				s.asked = true
				if !s.boxed {
					return
				}
				killed = time.Now()
			}
		}
		switch {
		case !killed.IsZero():
			if time.Since(killed) > boxTime {
				return
			}
			s.killBox()
		case asked && !told:
			told = s.terminate()
		}
	}
}

// terminate asks the processes of the tool to end, and reports whether there are any.
func (s *shim) terminate() (heard bool) {
	if !s.boxed {
		if unix.Kill(-s.first, unix.SIGTERM) != nil { // it has no session of its own yet
			unix.Kill(s.first, unix.SIGTERM)
		}
	} else if !s.box.Began() {
		unix.Kill(s.first, unix.SIGKILL)
		return true
	}
	for _, p := range descendants(os.Getpid()) {
		if group, err := unix.Getpgid(p.pid); err == nil && group != s.first && p.pid != s.first && !s.room.holds(p.pid) && !s.boxes.holds(p.pid) {
			p.signal(unix.SIGTERM)
			heard = true
		}
	}
	return heard || !s.boxed
}

// reap collects what has ended, and reports whether no child is left. We are the parent of all orphans, so then nothing
// of the tool is.
func (s *shim) reap() (none bool) {
	for {
		var status unix.WaitStatus
		var usage unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD
			return true
		case pid == 0:
			return false
		}
		if s.boxes.gone(pid) {
			continue
		}
		if pid == s.first {
			s.over, s.ended.Status = true, int(status)
		}
		s.ended.CPU += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		s.sawPeak(usage.Maxrss)
	}
}

// sawPeak takes account of a process's peak of memory, in KiB. A process inherits that of the one it was forked from, and
// has it until its own is higher; so what is no more than ours says nothing about a tool.
func (s *shim) sawPeak(peak int64) {
	const inexact = 512 // KiB; Linux counts in parts, one for each processor
	if peak > ownPeak+inexact {
		ownPeak = max(ownPeak, readPeak()) // it may have grown since
	}
	if peak > ownPeak+inexact {
		s.ended.MaxRSS = max(s.ended.MaxRSS, peak<<10)
	}
}

// readPeak reads our own peak. It is not that of getrusage, which begins with the executor's.
func readPeak() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return math.MaxInt64 / 2
	}
	_, text, _ = bytes.Cut(text, []byte("VmHWM:"))
	text, _, _ = bytes.Cut(text, []byte("kB"))
	peak, _ := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return peak
}

// endAll ends all descendants and collects them.
func (s *shim) endAll() {
	s.endRoom()
	var tree hunt
	for round := 1; !s.reap(); round++ {
		killChildren()
		if round%16 == 0 { // a tree that makes new processes as we kill
			tree.step(os.Getpid())
		}
		// What was killed needs a moment to die; a process in an uninterruptible system call needs until that ends. The
		// end of a child interrupts the wait.
		unix.Poll(nil, min(1+round/16, 20))
	}
}

// receive reads one frame. An error means that the executor closed the socket, or died.
func receive() (kind byte, text []byte, files []int, err error) {
	header := make([]byte, frameHeader)
	rights := make([]byte, unix.CmsgSpace(3*4))
	got := 0
	for got < frameHeader {
		n, nRights, _, _, err := unix.Recvmsg(shimSocket, header[got:], rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0, nil, nil, errExecutorGone
		}
		if nRights > 0 {
			messages, err := unix.ParseSocketControlMessage(rights[:nRights])
			if err != nil {
				return 0, nil, nil, err
			}
			for _, m := range messages {
				fds, err := unix.ParseUnixRights(&m)
				if err != nil {
					return 0, nil, nil, err
				}
				files = append(files, fds...)
			}
		}
		got += n
	}
	size := binary.LittleEndian.Uint32(header[1:])
	if size > maxFrame {
		return 0, nil, nil, fmt.Errorf("a message of %d bytes", size)
	}
	text = make([]byte, size)
	for got = 0; got < len(text); {
		n, err := unix.Read(shimSocket, text[got:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0, nil, nil, errExecutorGone
		}
		got += n
	}
	return header[0], text, files, nil
}

var errExecutorGone = errors.New("the executor is gone")

// send tells the executor how it went. An error means that it is gone.
func send(e ended) error {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // numbers and strings
	}
	return sendFrame(frameEnded, text)
}

func sendFrame(kind byte, text []byte) error {
	for frame := frameOf(kind, text); len(frame) > 0; {
		n, err := unix.SendmsgN(shimSocket, frame, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return errExecutorGone
		}
		frame = frame[n:]
	}
	return nil
}
