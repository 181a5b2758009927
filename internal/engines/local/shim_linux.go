package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A shim and its executor talk over a socket. The executor sends frames: a byte that says what, the length of a JSON
// text in four bytes, the text. The shim answers a start with one frame when nothing of the tool is left.
const (
	frameStart = 'S' // startRequest, with the descriptors of stdin, stdout and stderr
	frameTerm  = 'T' // ask the tool to stop
	frameKill  = 'K' // end it
	frameEnded = 'E' // ended

	frameHeader = 5
	maxFrame    = 16 << 20
)

// startRequest is what a shim is to start.
type startRequest struct {
	Path   string   `json:"path"`
	Argv   []string `json:"argv"`
	Env    []string `json:"env"`
	Dir    string   `json:"dir"`
	Remove string   `json:"remove,omitempty"` // directory to remove if the executor dies meanwhile
}

// ended is how it went.
type ended struct {
	Error   string        `json:"error,omitempty"` // it could not be started
	Errno   int           `json:"errno,omitempty"` // why, where that is a system error
	Status  int           `json:"status"`          // of wait4
	CPU     time.Duration `json:"cpu"`             // of the whole tree
	MaxRSS  int64         `json:"max_rss"`         // bytes, of the largest process of the tree; 0: no more than the shim had
	Stopped bool          `json:"stopped"`         // the executor had asked for the end
}

const (
	shimName   = "executor-shim" // argv[0], by which a process knows that it is one
	shimSocket = 3               // the descriptor of the socket
)

// ShimInvoked reports whether this process was started as a shim. The program, and every test binary that uses the
// engine, asks first thing and calls ShimMain if so.
func ShimInvoked() bool { return len(os.Args) == 1 && os.Args[0] == shimName }

// ShimMain runs tools for the executor at the other end of the socket until that closes, then exits the process.
//
// It is one loop on one thread, with system calls that block: the parent-death signal of a tool belongs to the thread
// that forked, and nothing here must wait for a scheduler.
func ShimMain() {
	runtime.LockOSThread()
	s := shim{}
	if err := s.setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "executor: the helper that starts tools:", err)
		os.Exit(1)
	}
	for {
		kind, text, files, err := s.receive()
		if err != nil {
			os.Exit(0) // the executor is gone, and no tool runs
		}
		if kind != frameStart {
			continue // a stop that came after the end
		}
		var start startRequest
		if err := json.Unmarshal(text, &start); err != nil || len(files) != 3 {
			fmt.Fprintln(os.Stderr, "executor: the helper that starts tools got a broken message:", err)
			os.Exit(1)
		}
		s.send(s.run(start, files))
	}
}

type shim struct {
	asked bool // for the end of the tool
	alone bool // the executor is gone
}

func (s *shim) setUp() error {
	// Orphans of the tool become our children, wherever they hide.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	// The tool has our user: keep it from tracing us and from reading our memory and descriptors.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close this process to others: %w", err)
	}
	unix.CloseOnExec(shimSocket)
	return nil
}

// run starts a tool, waits for its end, and ends what it left behind.
func (s *shim) run(start startRequest, files []int) ended {
	s.asked = false
	pidfd := -1
	pid, _, err := syscall.StartProcess(start.Path, start.Argv, &syscall.ProcAttr{
		Dir: start.Dir, Env: start.Env, Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
	})
	for _, fd := range files {
		unix.Close(fd)
	}
	if err != nil {
		e := ended{Error: err.Error()}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			e.Errno = int(errno)
		}
		return e
	}
	s.await(pid, pidfd)
	e := reapAll(pid)
	e.Stopped = s.asked
	if s.alone {
		if start.Remove != "" {
			removeTree(start.Remove)
		}
		os.Exit(0)
	}
	return e
}

// await returns when the tool's first process has ended, or must end now.
func (s *shim) await(pid, pidfd int) {
	defer unix.Close(pidfd)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: shimSocket, Events: unix.POLLIN}}
		if pidfd < 0 { // a kernel before 5.4: look for the end ourselves
			fds[0].Fd = -1
		}
		timeout := -1
		if pidfd < 0 {
			timeout = 5
		}
		if _, err := unix.Poll(fds, timeout); err != nil && err != unix.EINTR {
			return
		}
		if fds[0].Revents != 0 || pidfd < 0 && exited(pid) {
			return
		}
		if fds[1].Revents == 0 {
			continue
		}
		kind, _, _, err := s.receive()
		switch {
		case err != nil:
			s.alone = true
			return
		case kind == frameTerm:
			s.asked = true
			unix.Kill(-pid, unix.SIGTERM)
			for _, other := range descendants(os.Getpid()) {
				if group, err := unix.Getpgid(other); err == nil && group != pid {
					unix.Kill(other, unix.SIGTERM)
				}
			}
		case kind == frameKill:
			s.asked = true
			return
		}
	}
}

// exited reports whether a child has ended, and leaves it to be reaped.
func exited(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != nil || info.Signo != 0
}

// reapAll ends all descendants and collects them. It returns when there is none any more: as their adoptive parent we
// have no child exactly then.
func reapAll(first int) ended {
	var e ended
	var own unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &own)
	for round := 0; ; round++ {
		var status unix.WaitStatus
		var usage unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD
			return e
		case pid > 0:
			if pid == first {
				e.Status = int(status)
			}
			e.CPU += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
			// A process inherits the peak of the one it was forked from, until its own is higher.
			if usage.Maxrss > own.Maxrss {
				e.MaxRSS = max(e.MaxRSS, usage.Maxrss<<10)
			}
			round = -1
			continue
		}
		killTree(os.Getpid())
		// What was killed needs a moment to die; a process in an uninterruptible system call needs until that ends.
		unix.Poll(nil, min(round, 20))
	}
}

// receive reads one frame. An error means that the executor closed the socket, or died.
func (s *shim) receive() (kind byte, text []byte, files []int, err error) {
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

func (s *shim) send(e ended) {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // numbers and strings
	}
	frame := frameOf(frameEnded, text)
	for len(frame) > 0 {
		n, err := unix.SendmsgN(shimSocket, frame, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			os.Exit(0)
		}
		frame = frame[n:]
	}
}

func frameOf(kind byte, text []byte) []byte {
	frame := make([]byte, frameHeader, frameHeader+len(text))
	frame[0] = kind
	binary.LittleEndian.PutUint32(frame[1:], uint32(len(text)))
	return append(frame, text...)
}
