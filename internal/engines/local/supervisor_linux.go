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
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// idleShims is how long a shim that nobody needs is kept; one is always kept, so that the next run starts at once.
const idleShims = time.Minute

// boxAge is how long a sandbox may wait for its run: it does not see what is mounted on the host after it was made.
const boxAge = 10 * time.Minute

// shimEnv is all of a shim's environment: it has one thing to do at a time, and little memory.
var shimEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// supervisor keeps the shims: one for each run under way, and those that wait for the next. Where runs have sandboxes, each
// that waits has made one already, like that of its last run.
type supervisor struct {
	log     zerolog.Logger
	mu      sync.Mutex
	idle    []*shimProcess // the last used last
	closed  bool
	growing bool // one is being started ahead
	timer   *time.Timer
	wait    sync.WaitGroup // for the processes, and who starts them
}

// shimProcess is a shim as the executor sees it. It has one run at a time.
type shimProcess struct {
	process  *os.Process
	socket   *net.UnixConn
	gone     chan struct{} // closed: the process has ended
	used     time.Time     // when it was put back
	box      int           // first process of the sandbox of the current run; 0: there is none, or it is not known yet
	room     bool          // the sandbox is one that bwrap makes
	boxBegan string        // when that was started, in ticks since the boot

	plan []string  // of the sandbox that waits in it; nil: none does
	look string    // what the plan's sources were when it was made
	made time.Time // when that was
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

// get returns an idle shim, best one in which a sandbox of that plan waits, or a new one. The plan is nil where none that was
// made ahead is wanted.
func (s *supervisor) get(plan []string, look string) (*shimProcess, error) {
	s.mu.Lock()
	one := s.takeIdle(plan, look)
	if plan != nil && !s.growing && !s.closed && len(s.idle) < mostAheadOfRuns && !slices.ContainsFunc(s.idle, func(p *shimProcess) bool { return p.fits(plan, look) }) {
		// Runs that come one after the other find a sandbox ready if one is made while another is used; and contracts in turn
		// do not take the sandboxes of each other.
		s.growing = true
		s.wait.Go(func() { s.grow(plan, look) })
	}
	s.mu.Unlock()
	if one != nil {
		return one, nil
	}
	return s.start()
}

// mostAheadOfRuns bounds the shims that are started for a run that has not come.
const mostAheadOfRuns = 8

// readyAfter is how long it takes to make a sandbox, most often.
const readyAfter = 3 * time.Millisecond

// takeIdle returns the idle shim that serves the plan best, and removes it from the idle ones; nil: there is none.
func (s *supervisor) takeIdle(plan []string, look string) *shimProcess {
	for len(s.idle) > 0 {
		best := len(s.idle) - 1
		if plan != nil {
			best = s.best(plan, look)
		}
		one := s.idle[best]
		s.idle = slices.Delete(s.idle, best, best+1)
		select {
		case <-one.gone: // killed by somebody while it waited
			one.socket.Close()
			continue
		default:
			return one
		}
	}
	return nil
}

// best is the place of the idle shim in which a sandbox of the plan is ready: of several the one that was used last, so that
// those retire that are not needed. Where none is it is one that makes one, then one that has none, then the one that waited
// longest.
func (s *supervisor) best(plan []string, look string) (best int) {
	const (
		ofAnother = iota
		none
		making
		ready
	)
	rank := func(one *shimProcess) int {
		switch {
		case one.plan == nil, one.look != look && slices.Equal(one.plan, plan): // that is of no use any more
			return none
		case !one.fits(plan, look):
			return ofAnother
		case time.Since(one.made) < readyAfter:
			return making
		}
		return ready
	}
	most := -1
	for i, one := range s.idle {
		if r := rank(one); r > most || r == ready { // there is no better rank
			best, most = i, r
		}
	}
	return best
}

// fits reports whether a sandbox of that plan waits in the shim.
func (p *shimProcess) fits(plan []string, look string) bool {
	return p.plan != nil && p.look == look && slices.Equal(p.plan, plan)
}

// grow starts a shim for the next run.
func (s *supervisor) grow(plan []string, look string) {
	one, err := s.start()
	if err == nil { // else the run that needs one says so
		one.ahead(plan, look)
		s.put(one)
	}
	s.mu.Lock()
	s.growing = false
	s.mu.Unlock()
}

// ahead has the shim make a sandbox for the next run. A failure is seen by that.
func (p *shimProcess) ahead(plan []string, look string) {
	if _, err := p.socket.Write(frameOf(frameAhead, startRequest{Box: plan}.encode())); err == nil {
		p.plan, p.look, p.made = plan, look, time.Now()
	}
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
	s.watch()
}

// watch looks at the idle shims again later.
func (s *supervisor) watch() {
	if s.timer == nil {
		s.timer = time.AfterFunc(idleShims, s.retire)
	}
}

// discard ends a shim that failed. It ends its tool before itself, if it still can.
func (s *supervisor) discard(one *shimProcess) {
	one.socket.Close()
	one.process.Signal(unix.SIGCONT)
	<-one.gone
	switch {
	case one.box != 0:
		awaitBox(one.box, one.boxBegan)
	case one.room: // which was not there yet, or we were not told
		for range 10 { // who is killed with the shim needs a moment for it
			endStrays()
			time.Sleep(time.Millisecond)
		}
	}
}

// awaitBox waits for the end of a sandbox whose shim is gone: the kernel ends its first process with the shim, and all
// others with that, but not at once. A first process that is a zombie has no others any more.
func awaitBox(pid int, began string) {
	for end := time.Now().Add(huntingTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, started, ok := stat(pid); !ok || started != began || isZombie(pid) {
			return
		}
	}
}

// retire ends shims that were idle for long, and has sandboxes made again that waited for long.
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
	for _, one := range s.idle {
		if one.plan != nil && time.Since(one.made) >= boxAge {
			one.ahead(one.plan, one.look)
		}
		if one.plan != nil || len(s.idle) > 1 {
			s.watch()
		}
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
	p.box, p.boxBegan, p.room = 0, "", start.Tier == TierBubblewrap
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
		if size != 4 {
			return e, errors.New("sent a broken message")
		}
		p.box = int(binary.LittleEndian.Uint32(text))
		_, p.boxBegan, _ = stat(p.box)
	}
}

var errShimGone = errors.New("was killed while the tool ran")
