package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// idleShims is how long a shim that nobody needs is kept; one is always kept, so that the next run starts at once.
const idleShims = time.Minute

// shimEnv is all of a shim's environment: it has one thing to do at a time, and little memory.
var shimEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// supervisor keeps the shims: one for each run under way, and those that wait for the next.
type supervisor struct {
	log    zerolog.Logger
	mu     sync.Mutex
	idle   []*shimProcess // the last used last
	closed bool
	timer  *time.Timer
	wait   sync.WaitGroup // for the processes
}

// shimProcess is a shim as the executor sees it. It has one run at a time.
type shimProcess struct {
	process *os.Process
	socket  *net.UnixConn
	gone    chan struct{} // closed: the process has ended
	used    time.Time
	box     int // first process of the sandbox of the current run; 0: there is none, or it is not known yet
	boxName string
}

func newSupervisor(log zerolog.Logger) *supervisor { return &supervisor{log: log} }

// warm starts the shim of the first run.
func (s *supervisor) warm() error {
	one, err := s.start()
	if err == nil {
		s.put(one)
	}
	return err
}

// get returns an idle shim, or a new one.
func (s *supervisor) get() (*shimProcess, error) {
	s.mu.Lock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		one := s.idle[n-1]
		s.idle = s.idle[:n-1]
		select {
		case <-one.gone: // killed by somebody while it waited
			one.socket.Close()
			continue
		default:
		}
		s.mu.Unlock()
		return one, nil
	}
	s.mu.Unlock()
	return s.start()
}

// put returns a shim whose run has ended.
func (s *supervisor) put(one *shimProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		one.socket.Close()
		return
	}
	one.used = time.Now()
	s.idle = append(s.idle, one)
	if s.timer == nil {
		s.timer = time.AfterFunc(idleShims, s.retire)
	}
}

// discard ends a shim that failed. It ends its tool before itself, if it still can.
func (s *supervisor) discard(one *shimProcess) {
	one.socket.Close()
	one.process.Signal(unix.SIGCONT)
	<-one.gone
	if one.box != 0 {
		awaitBox(one.box, one.boxName)
	}
}

// awaitBox waits for the end of a sandbox whose shim is gone: the kernel ends its first process with the shim, and all
// others with that, but not at once.
func awaitBox(pid int, name string) {
	for end := time.Now().Add(huntingTime); time.Now().Before(end) && name != ""; time.Sleep(time.Millisecond) {
		if boxName(pid) != name {
			return
		}
	}
}

// boxName is what the first process of a sandbox was called with, which hardly anybody is who gets its id later; "" where it has
// ended.
func boxName(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(name)
}

// retire ends shims that were idle for long.
func (s *supervisor) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for len(s.idle) > 1 && time.Since(s.idle[0].used) >= idleShims {
		s.idle[0].socket.Close()
		s.idle = s.idle[1:]
	}
	s.timer = nil
	if len(s.idle) > 1 {
		s.timer = time.AfterFunc(idleShims, s.retire)
	}
}

// close ends all shims and waits for their processes.
func (s *supervisor) close() {
	s.mu.Lock()
	s.closed = true
	for _, one := range s.idle {
		one.socket.Close()
	}
	s.idle = nil
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

// start starts this program again, as a shim, with an empty environment and a session of its own: Ctrl-C on a terminal
// goes to the executor alone.
func (s *supervisor) start() (*shimProcess, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "shim"), os.NewFile(uintptr(pair[1]), "executor")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{shimName}, Env: shimEnv, Dir: "/",
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	one := &shimProcess{process: cmd.Process, socket: conn.(*net.UnixConn), gone: make(chan struct{})}
	s.wait.Go(func() {
		defer close(one.gone)
		if err := cmd.Wait(); err != nil {
			s.log.Error().Err(err).Msg("a helper that runs tools ended by itself")
		}
	})
	return one, nil
}

// run has the shim run a tool and returns when nothing of it is left. When ctx is done the tool gets SIGTERM, and
// SIGKILL after the grace. begun is called once the tool has its streams. An error means that the shim failed.
func (p *shimProcess) run(ctx context.Context, start startRequest, streams *streams, grace time.Duration, begun func()) (ended, error) {
	rights := unix.UnixRights(int(streams.files[0].Fd()), int(streams.files[1].Fd()), int(streams.files[2].Fd()))
	p.box, p.boxName = 0, ""
	frame := frameOf(frameStart, start.encode())
	n, _, err := p.socket.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = p.socket.Write(frame[n:])
	}
	streams.started()
	begun()
	if err != nil {
		return ended{}, err
	}

	over := make(chan struct{})
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		p.stop(grace, over)
	})
	result, err := p.read()
	close(over)
	if !stop() {
		<-stopped
	}
	return result, err
}

// stop asks for the end of the tool, then makes it.
func (p *shimProcess) stop(grace time.Duration, over <-chan struct{}) {
	p.process.Signal(unix.SIGCONT) // a tool that stopped its helper would else outlive its timeout
	if grace > 0 {
		p.socket.Write(frameOf(frameTerm, nil))
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-over:
			return
		case <-timer.C:
		}
	}
	p.socket.Write(frameOf(frameKill, nil))
}

// read waits for how it ended.
func (p *shimProcess) read() (e ended, err error) {
	for {
		header := make([]byte, frameHeader)
		if _, err := io.ReadFull(p.socket, header); err != nil {
			return e, errShimGone
		}
		size := binary.LittleEndian.Uint32(header[1:])
		if header[0] != frameEnded && header[0] != frameBegun || size > maxFrame {
			return e, errors.New("sent a broken message")
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(p.socket, text); err != nil {
			return e, errShimGone
		}
		if header[0] == frameEnded {
			return e, json.Unmarshal(text, &e)
		}
		if size != 4 || p.box != 0 {
			return e, errors.New("sent a broken message")
		}
		p.box = int(binary.LittleEndian.Uint32(text))
		p.boxName = boxName(p.box)
	}
}

var errShimGone = errors.New("was killed while the tool ran")
