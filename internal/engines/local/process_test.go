//go:build linux

package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// under is a run under way.
type under struct {
	marker string
	stdout bytes.Buffer
	mu     sync.Mutex
	done   chan struct{}
	exit   engines.Exit
	err    error
	cancel context.CancelCauseFunc
}

var errSeenEnough = errors.New("the test has seen enough")

// begin starts a run of the testtool and returns when it has printed "up".
func begin(t *testing.T, e *Engine, script ...string) *under {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	u := &under{marker: fmt.Sprintf("%016x", rand.Uint64()), done: make(chan struct{}), cancel: cancel}
	up := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(u.done)
		u.exit, u.err = e.Run(ctx, tool(t, append([]string{"mark:" + u.marker}, script...)...), writerFunc(func(p []byte) (int, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.stdout.Write(p)
			if bytes.Contains(u.stdout.Bytes(), []byte("up")) {
				once.Do(func() { close(up) })
			}
			return len(p), nil
		}), nil)
	}()
	t.Cleanup(func() { cancel(nil); <-u.done })
	select {
	case <-up:
	case <-u.done:
		t.Fatalf("the tool ended before it was up: %+v, %v", u.exit, u.err)
	}
	return u
}

func (u *under) gone(t *testing.T) {
	t.Helper()
	enginetest.Eventually(t, "all processes of the tool are gone", func() bool { return len(enginetest.Marked(u.marker)) == 0 })
}

// shimsOf lists the shims that are children of a process.
func shimsOf(pid int) (found []int) {
	for _, p := range descendants(pid) {
		if parent, _, ok := stat(p.pid); !ok || parent != pid {
			continue
		}
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)); string(text) == shimName+"\x00" {
			found = append(found, p.pid)
		}
	}
	return found
}

// theShim is the shim of this process that has a tool.
func theShim(t *testing.T) int {
	t.Helper()
	return busyShim(t, os.Getpid())
}

// busyShim is the shim of a process that has a tool. Others may have a sandbox for the next.
func busyShim(t *testing.T, of int) int {
	t.Helper()
	var busy []int
	for _, shim := range shimsOf(of) {
		if slices.ContainsFunc(descendants(shim), func(p process) bool {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			return len(text) > 0 && string(text) != shimName+"\x00"
		}) {
			busy = append(busy, shim)
		}
	}
	if len(busy) != 1 {
		t.Fatalf("there are %d shims with a tool", len(busy))
	}
	return busy[0]
}

func TestKilledExecutorLeavesNothing(t *testing.T) {
	data, marker := t.TempDir(), fmt.Sprintf("%016x", rand.Uint64())
	c := helper{DataDir: data, Capture: true}.command(t, enginetest.Build(t), "mark:"+marker, "write:here:x", "chmod:000:here",
		"daemon:2", "ignore-term", "block", "background:2", "ignore-term", "block", "forkbomb:20:setsid", "cwd", "out:\n", "ignore-term", "block")
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	dir := strings.TrimSpace(line)
	if _, err2 := os.Stat(filepath.Join(dir, "here")); err != nil || err2 != nil {
		t.Fatal(dir, err, err2)
	}
	shims := shimsOf(c.Process.Pid)
	if len(shims) != 1 {
		t.Fatalf("%d shims", len(shims))
	}
	enginetest.Eventually(t, "all are there", func() bool { return len(enginetest.Marked(marker)) >= 20 })
	c.Process.Kill()
	c.Wait()
	enginetest.Eventually(t, "no process of the tool is left", func() bool { return len(enginetest.Marked(marker)) == 0 })
	enginetest.Eventually(t, "the directory of the run is gone", func() bool { _, err := os.Stat(filepath.Dir(dir)); return os.IsNotExist(err) })
	enginetest.Eventually(t, "the helper is gone", func() bool { return unix.Kill(shims[0], 0) == unix.ESRCH })
	// What was made ahead is removed by the next one.
	e := newEngine(t, func(c *Config) { c.DataDir = data })
	entries, err := os.ReadDir(filepath.Join(data, "runs"))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(e.space.dir) {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// Who kills everything that is called executor leaves tools without a parent. The next executor finds them.
func TestKilledExecutorAndShimLeaveNothingToTheNext(t *testing.T) {
	data, marker := t.TempDir(), fmt.Sprintf("%016x", rand.Uint64())
	c := helper{DataDir: data, Capture: true}.command(t, enginetest.Build(t), "mark:"+marker, "daemon:1", "block", "background:2", "ignore-term", "block", "out:up\n", "block")
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for _, shim := range shimsOf(c.Process.Pid) {
		unix.Kill(shim, unix.SIGSTOP)
		c.Process.Kill()
		unix.Kill(shim, unix.SIGKILL)
	}
	c.Wait()
	if len(enginetest.Marked(marker)) == 0 {
		t.Fatal("nothing is left that could be found")
	}
	newEngine(t, func(c *Config) { c.DataDir = data })
	if left := enginetest.Marked(marker); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
}

// The executor can also die when the tool has just ended and the helper is about to say so.
func TestExecutorDiesAtTheEndOfATool(t *testing.T) {
	e := newEngine(t)
	work, err := e.space.create(tool(t))
	if err != nil {
		t.Fatal(err)
	}
	shim, err := e.shims.start()
	if err != nil {
		t.Fatal(err)
	}
	streams, err := openStreams(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	defer streams.close()
	// Nobody hears the helper any more, and it cannot know before it speaks.
	if err := shim.socket.CloseRead(); err != nil {
		t.Fatal(err)
	}
	start := startRequest{Path: "/bin/true", Argv: []string{"true"}, Dir: "/", Remove: work.root}
	if _, err := shim.run(t.Context(), start, streams, 0, func() {}); err == nil {
		t.Error("no error")
	}
	<-shim.gone
	shim.socket.Close()
	if _, err := os.Stat(work.root); !os.IsNotExist(err) {
		t.Errorf("the directory of the run is still there: %v", err)
	}
	work.args.Close()
}

// killShim kills the helper of a tool with many processes, and looks at what comes of that.
func killShim(t *testing.T, e *Engine) {
	t.Helper()
	u := begin(t, e, "write:x:1", "background:2", "ignore-term", "block", "daemon:1", "block", "forkbomb:50:setsid", "out:up", "block")
	enginetest.Eventually(t, "all are there", func() bool { return len(enginetest.Marked(u.marker)) > 50 })
	if err := unix.Kill(theShim(t), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-u.done
	if left := enginetest.Marked(u.marker); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
	if u.err == nil || errorCode(u.err) != "" || errors.Is(u.err, context.Canceled) {
		t.Errorf("Run returned %v; it has to say that the tool was lost", u.err)
	}
}

func TestKilledShim(t *testing.T) {
	e := newEngine(t)
	killShim(t, e)
	if got := run(t, e, tool(t, "out:next")); got != "next" {
		t.Errorf("the next run printed %q", got)
	}
	if left := files(e); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	t.Run("while it was idle", func(t *testing.T) {
		idle := e.shims.idle[0]
		if err := idle.process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-idle.gone
		if got := run(t, e, tool(t, "out:next")); got != "next" {
			t.Errorf("the next run printed %q", got)
		}
	})
	t.Run("by its tool", func(t *testing.T) {
		_, err := e.Run(t.Context(), tool(t, "kill:parent:KILL", "block"), nil, nil)
		if err == nil {
			t.Error("no error")
		}
		if got := run(t, e, tool(t, "out:next")); got != "next" {
			t.Errorf("the next run printed %q", got)
		}
	})
}

// Without an answer that makes sense the tool may still run: it has to be gone before Run says that it was lost.
func TestDiscardedShimEndsItsTool(t *testing.T) {
	s := newSupervisor(zerolog.Nop())
	defer s.close()
	one, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	streams, err := openStreams(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	defer streams.close()
	marker := fmt.Sprintf("%016x", rand.Uint64())
	var group sync.WaitGroup
	group.Go(func() {
		one.run(t.Context(), startRequest{Path: enginetest.Build(t), Argv: []string{"tool", "mark:" + marker, "forkbomb:50:setsid", "block"}, Dir: "/"}, streams, 0, func() {})
	})
	enginetest.Eventually(t, "the tool runs", func() bool { return len(enginetest.Marked(marker)) > 50 })
	s.discard(one)
	if left := enginetest.Marked(marker); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
	group.Wait()
}

// Whoever stops a service may signal all its processes: the helpers end with the executor, not before.
func TestShimOutlivesOtherSignals(t *testing.T) {
	e := newEngine(t)
	flag := filepath.Join(t.TempDir(), "flag")
	u := begin(t, e, "out:up", "await:"+flag, "out:, and on", "exit:3")
	shim := theShim(t)
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGCONT} {
		if err := unix.Kill(shim, s); err != nil {
			t.Fatal(s, err)
		}
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-u.done
	if u.err != nil || u.exit.Code != 3 || u.stdout.String() != "up, and on" {
		t.Errorf("%+v, %v, %q", u.exit, u.err, u.stdout.String())
	}
}

func TestStoppedShimDoesNotOutliveATimeout(t *testing.T) {
	e := newEngine(t)
	u := begin(t, e, "background:1", "block", "kill:parent:STOP", "out:up", "exit:0")
	u.cancel(errSeenEnough)
	<-u.done
	if u.err != nil && !errors.Is(u.err, errSeenEnough) {
		t.Errorf("Run returned %v", u.err)
	}
	u.gone(t)
}

func TestForkBomb(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		for _, kind := range []string{"forkbomb:1000", "forkbomb:1000:setsid"} {
			t.Run(kind, func(t *testing.T) {
				u := begin(t, e, kind, "out:up", "block")
				enginetest.Eventually(t, "the bomb has gone off", func() bool { return len(enginetest.Marked(u.marker)) >= 1000 })
				begun := time.Now()
				u.cancel(errSeenEnough)
				<-u.done
				if left := enginetest.Marked(u.marker); len(left) > 0 || !errors.Is(u.err, errSeenEnough) {
					t.Errorf("%d processes are left, %v", len(left), u.err)
				}
				t.Logf("1024 processes were ended in %s", time.Since(begun).Round(time.Millisecond))
			})
		}
	})
}

// A process whose id is another one each time that somebody looks must be caught also where there is much to look at.
func TestHoppingProcessOnABusyMachine(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		busy := begin(t, e, "forkbomb:1000", "out:up", "block")
		enginetest.Eventually(t, "the machine is busy", func() bool { return len(enginetest.Marked(busy.marker)) >= 1000 })
		var longest time.Duration
		for _, kind := range []string{"hop:20000", "hop:20000:setsid"} {
			for range 5 {
				begun := time.Now()
				if run(t, e, tool(t, kind)) != "" {
					t.Error("it was not caught")
				}
				longest = max(longest, time.Since(begun))
			}
		}
		t.Logf("it took at most %s to catch it", longest.Round(time.Millisecond))
	})
}

// A chain of processes, of which each is known to the one before alone.
func TestDeepTree(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		script := []string{"block"}
		for range 60 {
			script = append(append([]string{fmt.Sprintf("background:%d", len(script))}, script...), "block")
		}
		u := begin(t, e, append([]string{"out:up"}, script...)...)
		enginetest.Eventually(t, "all are there", func() bool { return len(enginetest.Marked(u.marker)) == 61 })
		u.cancel(errSeenEnough)
		<-u.done
		if left := enginetest.Marked(u.marker); len(left) > 0 {
			t.Errorf("%d processes are left", len(left))
		}
	})
}

// A tool that runs for long must not collect zombies until there are no more process ids.
func TestOrphansAreReapedWhileTheToolRuns(t *testing.T) {
	e := newEngine(t)
	u := begin(t, e, "orphans:1000", "out:up", "block")
	shim := theShim(t)
	zombies := func() (n int) {
		for _, p := range descendants(shim) {
			if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid)); err == nil && bytes.Contains(text, []byte(") Z ")) {
				n++
			}
		}
		return n
	}
	enginetest.Eventually(t, "the orphans are reaped", func() bool { return zombies() == 0 })
	select {
	case <-u.done:
		t.Errorf("the tool has ended: %+v, %v", u.exit, u.err)
	default:
	}
	u.cancel(errSeenEnough)
	<-u.done
	if !errors.Is(u.err, errSeenEnough) {
		t.Error(u.err)
	}
}

// strange makes a helper be started by a process with signals ignored and blocked, and descriptors open, that programs
// inherit.
func strange(t *testing.T, argv ...string) string {
	t.Helper()
	c := helper{DataDir: t.TempDir(), Capture: true}.command(t, argv...)
	script := []string{enginetest.Build(t)}
	for _, name := range []string{"INT", "HUP", "PIPE", "QUIT", "TSTP", "TTIN", "TTOU", "CONT", "USR1", "TERM", "ALRM", "32", "33", "40"} {
		script = append(script, "ignore:"+name)
	}
	for _, name := range []string{"INT", "TERM", "USR2", "PIPE", "HUP", "CONT", "41"} {
		script = append(script, "mask:"+name)
	}
	c.Args = append(append(script, "leak:9", "leak:77", "exec", c.Path), argv...)
	c.Path = script[0]
	text, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return string(text)
}

func TestToolsStartWithTheDefaultEffectOfSignals(t *testing.T) {
	// Not a Go program, whose runtime would change that before it can be seen.
	got := strange(t, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
	if want := "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"; got != want {
		t.Errorf("the tool has\n%s", got)
	}
}

func TestToolsInheritNoDescriptors(t *testing.T) {
	if got := strange(t, "ls", "-1", "/proc/self/fd"); got != "0\n1\n2\n3\n" { // 3 is the directory that it reads
		t.Errorf("the tool has the descriptors %q", got)
	}
}

func TestToolsHaveNoTerminal(t *testing.T) {
	c := helper{DataDir: t.TempDir(), Capture: true}.command(t, enginetest.Build(t), "tty")
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIPPED: there are no terminals here: %s", err)
	}
	defer ptmx.Close()
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	for _, what := range []struct {
		name, says string
		as         func() *exec.Cmd
	}{
		// The first shows that the second could fail.
		{"a program on a terminal", "there", func() *exec.Cmd { return exec.Command(enginetest.Build(t), "tty") }},
		{"a tool of an executor on a terminal", "none", func() *exec.Cmd { return c }},
	} {
		t.Run(what.name, func(t *testing.T) {
			c := what.as()
			c.Stdin = tty
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if text, err := c.CombinedOutput(); err != nil || string(text) != what.says {
				t.Errorf("%v: the terminal is %q, %q is right", err, text, what.says)
			}
		})
	}
}

func TestCloseEndsTheShims(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() { run(t, e, tool(t, "sleep:20ms")) })
		}
		group.Wait()
		if n := len(shimsOf(os.Getpid())); n == 0 || n > 8+1 { // one is made ahead
			t.Errorf("8 runs made %d helpers", n)
		}
		e.Close()
		if left := shimsOf(os.Getpid()); len(left) > 0 {
			t.Errorf("%d helpers are left", len(left))
		}
		if _, err := os.Stat(e.space.dir); !os.IsNotExist(err) {
			t.Errorf("its directory is left: %v", err)
		}
		e.Close() // once more does nothing
	})
}

func TestIdleShimsRetire(t *testing.T) {
	e := newEngine(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { run(t, e, tool(t, "sleep:50ms")) })
	}
	group.Wait()
	e.shims.mu.Lock()
	for _, one := range e.shims.idle {
		one.used = one.used.Add(-idleShims)
	}
	e.shims.mu.Unlock()
	e.shims.retire()
	enginetest.Eventually(t, "one helper is kept", func() bool { return len(shimsOf(os.Getpid())) == 1 })
	run(t, e, tool(t))
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestManyRunsWithRandomEndsLeaveNothing(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		const workers = 16
		runs := 2000
		if testing.Short() {
			runs = 200
		}
		longest := 8000 // microseconds
		enginetest.Build(t)
		before := descriptors(t)
		threads := runtime.NumGoroutine()
		e := newEngine(t, tier, func(c *Config) { c.KillGrace = 20 * time.Millisecond })
		boxed := e.Tier() != TierNone
		mountsBefore := mounts(t, e)
		begun := time.Now()
		var all sync.WaitGroup
		for range workers {
			all.Go(func() { run(t, e, job("/bin/true")) })
		}
		all.Wait()
		longest = max(longest, 4*int(time.Since(begun).Microseconds()))
		marker := fmt.Sprintf("%016x", rand.Uint64())
		scripts := [][]string{
			{"out:x", "exit:3"},
			{"background:1", "block", "daemon-quiet:2", "ignore-term", "block", "exit:0"},
			{"write:x:1", "sleep:2ms", "flood:100K"},
			{"flood:100M"},
			{"background:1", "block", "block"},
			{"daemon:2", "ignore-term", "block", "ignore-term", "block"},
			{"on-term:exit:0", "sleep:1ms", "block"},
			{"forkbomb:8:setsid", "block"},
			{"kill:group:KILL"},
			{"signal:SEGV"},
			{"deep:3:000", "block"},
			{"hop:2000:setsid", "exit:0"},
			{"orphans:5", "block"},
		}
		jobs := make(chan int)
		var group sync.WaitGroup
		var lost, stopped, ended int
		var mu sync.Mutex
		for range workers {
			group.Go(func() {
				for i := range jobs {
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(rand.N(longest))*time.Microsecond, errSeenEnough)
					script := scripts[rand.N(len(scripts))]
					killsShim := i%100 == 0
					if killsShim {
						script = []string{"kill:parent:KILL", "block"}
					}
					j := tool(t, append([]string{"mark:" + marker}, script...)...)
					if boxed && i%4 == 0 { // in a cgroup, where there are some
						j.Spec.Common().MemoryLimit = 256 << 20
					}
					if boxed && killsShim { // no tool in a sandbox can: somebody else does it, to whoever is there
						if shims := shimsOf(os.Getpid()); len(shims) > 0 {
							unix.Kill(shims[rand.N(len(shims))], unix.SIGKILL)
						}
					}
					_, err := e.Run(ctx, j, io.Discard, io.Discard)
					cancel()
					mu.Lock()
					switch {
					case err == nil:
						ended++
					case errors.Is(err, errSeenEnough):
						stopped++
					case killsShim, boxed && strings.Contains(err.Error(), "the helper that runs the tool"):
						lost++
					default:
						t.Errorf("run %d, %q: %v", i, script, err)
					}
					mu.Unlock()
				}
			})
		}
		for i := range runs {
			jobs <- i
		}
		close(jobs)
		group.Wait()
		t.Logf("%d ended, %d were stopped, %d lost their helper", ended, stopped, lost)
		if ended < runs/20 || stopped < runs/4 || lost == 0 && !testing.Short() {
			t.Error("that is not the mix that the test is about")
		}
		if left := enginetest.Marked(marker); len(left) > 0 {
			t.Errorf("%d processes are left", len(left))
		}
		if left := files(e); len(left) > 0 {
			t.Errorf("%d files are left: %q", len(left), left[:min(len(left), 10)])
		}
		if n := len(shimsOf(os.Getpid())); n > workers+1 {
			t.Errorf("%d helpers for %d runs at a time", n, workers)
		}
		e.space.filler.Wait()
		if n := len(e.space.ahead); n > workers {
			t.Errorf("%d workspaces wait for %d runs at a time", n, workers)
		}
		e.Close()
		if e.cgroups != nil {
			for _, h := range e.cgroups.hierarchies {
				if left, _ := filepath.Glob(filepath.Join(h.dir, e.cgroups.prefix+"*")); len(left) > 0 {
					t.Errorf("cgroups are left: %q", left)
				}
			}
		}
		if after := mounts(t, e); !slices.Equal(after, mountsBefore) {
			t.Errorf("the mounts were %q, and are %q", mountsBefore, after)
		}
		if after := descriptors(t); after > before { // fewer: a finalizer closed what a test before had left
			t.Errorf("%d descriptors were open, and %d are", before, after)
		}
		enginetest.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= threads })
		if left := shimsOf(os.Getpid()); len(left) > 0 {
			t.Errorf("%d helpers are left", len(left))
		}
	})
}

// A helper that says what makes no sense must not take the executor with it.
func TestBrokenAnswers(t *testing.T) {
	frame := func(kind byte, size uint32, text string) []byte {
		b := []byte{kind, 0, 0, 0, 0}
		binary.LittleEndian.PutUint32(b[1:], size)
		return append(b, text...)
	}
	for name, answer := range map[string][]byte{
		"nothing":          {},
		"half a header":    {frameEnded, 1},
		"another kind":     frame('X', 2, "{}"),
		"a huge size":      frame(frameEnded, 1<<31, "{}"),
		"not all of it":    frame(frameEnded, 100, "{}"),
		"no JSON":          frame(frameEnded, 5, "hello"),
		"the wrong JSON":   frame(frameEnded, 12, `{"status":""`+"}")[:frameHeader+12],
		"a list for a map": frame(frameEnded, 2, "[]"),
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
			conn, err := net.FileConn(ours)
			ours.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			streams, err := openStreams(nil, true)
			if err != nil {
				t.Fatal(err)
			}
			defer streams.close()
			theirs.Write(answer)
			if err := unix.Shutdown(int(theirs.Fd()), unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			p := &shimProcess{socket: conn.(*net.UnixConn)}
			if _, err := p.run(t.Context(), startRequest{Path: "/bin/true"}, streams, 0, func() {}); err == nil {
				t.Error("no error")
			}
			theirs.Close()
		})
	}
}

// A helper that hears what makes no sense ends.
func TestBrokenMessages(t *testing.T) {
	stderr := os.Stderr
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null // they say so
	defer func() { os.Stderr = stderr }()
	s := newSupervisor(zerolog.Nop())
	defer s.close()
	for name, message := range map[string][]byte{
		"a start without streams": frameOf(frameStart, startRequest{Path: "/bin/true", Argv: []string{"true"}, Dir: "/"}.encode()),
		"a start of nothing":      frameOf(frameStart, nil),
		"a huge size":             {frameStart, 0xff, 0xff, 0xff, 0xff},
		"half a message":          {frameStart, 9, 0, 0, 0, 'x'},
	} {
		t.Run(name, func(t *testing.T) {
			one, err := s.start()
			if err != nil {
				t.Fatal(err)
			}
			one.socket.Write(frameOf(frameTerm, nil)) // no tool runs: nothing comes of it
			one.socket.Write(message)
			one.socket.CloseWrite()
			select {
			case <-one.gone:
			case <-time.After(time.Minute):
				t.Error("it goes on")
			}
			one.socket.Close()
		})
	}
}
