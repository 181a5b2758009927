package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// patience is how long tests wait for what has to happen. EXECUTOR_TEST_PATIENCE, a duration, changes it.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("EXECUTOR_TEST_PATIENCE")); err == nil {
		return d
	}
	return time.Minute
}()

// ask is one run of the testtool, or of another command that common names. What is left out is as usual.
type ask struct {
	script      []string
	common      contracts.CommonSpec
	contract    contracts.Contract
	stdin       []byte
	args        map[string]any
	context     map[string]any
	passthrough map[string]string
	stdout      io.Writer // nil: kept
	stderr      io.Writer
	starting    func() error
	ctx         context.Context
}

// running is a run under way.
type running struct {
	marker string // among the arguments of all its processes
	stdout *sink
	stderr *sink

	done   chan struct{}
	exit   engines.Exit
	err    error
	starts int
	took   time.Duration
	left   []int // processes of it that were there when Run returned
}

// start begins a run of the testtool.
func (s *session) start(t *testing.T, a ask) *running {
	t.Helper()
	r := &running{
		marker: fmt.Sprintf("%016x", rand.Uint64()),
		stdout: newSink(t, "stdout", a.stdout), stderr: newSink(t, "stderr", a.stderr),
		done: make(chan struct{}),
	}
	if a.common.Command.Argv == nil {
		command := append(append([]string{}, s.suite.Tool...), "mark:"+r.marker)
		a.common.Command.Argv = append(command, a.script...)
	}
	contract := a.contract
	contract.Name, contract.Engine, contract.Spec = "testtool", s.suite.Engine, s.suite.Spec(a.common)
	if err := s.engine.Check(&contract); err != nil {
		t.Fatalf("Check refuses a contract that it has to take: %s", err)
	}
	if a.ctx == nil {
		a.ctx = t.Context()
	}
	job := &engines.Job{
		ID: r.marker, Attempt: 1, Contract: &contract, Spec: contract.Spec,
		Args: a.args, Context: a.context, Stdin: a.stdin, Passthrough: a.passthrough,
		Starting: func() error {
			r.starts++
			if a.starting != nil {
				return a.starting()
			}
			return nil
		},
		Progress: func(string, string, float64) {},
	}
	begun := time.Now()
	go func() {
		defer close(r.done)
		r.exit, r.err = s.engine.Run(a.ctx, job, r.stdout, r.stderr)
		r.left = s.processes(r.marker) // at once: nothing may need a moment more
		r.stdout.close()
		r.stderr.close()
		r.took = time.Since(begun)
	}()
	return r
}

// wait waits for the end of a run and checks what is true of every run.
func (r *running) wait(t *testing.T) *running {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("Run has not returned after %s; all goroutines:\n%s", patience, stacks[:runtime.Stack(stacks, true)])
	}
	if len(r.left) > 0 {
		t.Errorf("%d processes of the tool were still there when Run returned", len(r.left))
	}
	if r.starts > 1 || r.err == nil && r.starts == 0 {
		t.Errorf("Starting was called %d times", r.starts)
	}
	if r.exit.Code < 0 || r.exit.Code > 255 {
		t.Errorf("exit code %d", r.exit.Code)
	}
	return r
}

// run runs the testtool to its end.
func (s *session) run(t *testing.T, a ask) *running {
	t.Helper()
	return s.start(t, a).wait(t)
}

// script runs the testtool with nothing special; it must exit with 0.
func (s *session) script(t *testing.T, script ...string) *running {
	t.Helper()
	r := s.run(t, ask{script: script})
	r.exited(t, 0)
	return r
}

// exited checks that the tool exited by itself.
func (r *running) exited(t *testing.T, code int) {
	t.Helper()
	if r.err != nil || r.exit.Signal != "" || r.exit.Code != code {
		t.Fatalf("the tool ended with code %d, signal %q, error %v; code %d is right. stderr: %s", r.exit.Code, r.exit.Signal, r.err, code, shorten(r.stderr.text()))
	}
}

// printed checks the whole of both streams.
func (r *running) printed(t *testing.T, stdout, stderr string) {
	t.Helper()
	for _, one := range []struct {
		s    *sink
		want string
	}{{r.stdout, stdout}, {r.stderr, stderr}} {
		if got := one.s.text(); got != one.want {
			t.Errorf("%s has %d bytes, %d are right:\n%q\nnot\n%q", one.s.name, len(got), len(one.want), shorten(got), shorten(one.want))
		}
	}
}

// ended checks that Run returned the cause.
func (r *running) ended(t *testing.T, cause error) {
	t.Helper()
	if !errors.Is(r.err, cause) {
		t.Errorf("Run returned %v; the cause %v is right", r.err, cause)
	}
}

func shorten(s string) string {
	if len(s) > 400 {
		return s[:200] + " … " + s[len(s)-200:]
	}
	return s
}

// sink takes one stream of a run. It checks what engines promise about writers, and lets tests wait for output.
type sink struct {
	name string
	t    *testing.T
	to   io.Writer // nil: kept
	busy sync.Mutex

	mu   sync.Mutex
	kept bytes.Buffer
	more chan struct{} // closed and made anew with each write
	over bool
}

func newSink(t *testing.T, name string, to io.Writer) *sink {
	return &sink{name: name, t: t, to: to, more: make(chan struct{})}
}

// Write takes output.
func (s *sink) Write(p []byte) (int, error) {
	if !s.busy.TryLock() {
		s.t.Errorf("two goroutines write to %s at once", s.name)
		s.busy.Lock()
	}
	defer s.busy.Unlock()
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		panic("the engine writes to " + s.name + " after Run has returned")
	}
	if s.to == nil {
		s.kept.Write(p)
	}
	close(s.more)
	s.more = make(chan struct{})
	s.mu.Unlock()
	if s.to != nil {
		return s.to.Write(p)
	}
	return len(p), nil
}

func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

func (s *sink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.String()
}

// await waits until the text was printed while the tool runs.
func (r *running) await(t *testing.T, text string) {
	t.Helper()
	clock := time.NewTimer(patience)
	defer clock.Stop()
	for {
		r.stdout.mu.Lock()
		more, there := r.stdout.more, bytes.Contains(r.stdout.kept.Bytes(), []byte(text))
		r.stdout.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-r.done:
			if !bytes.Contains(r.stdout.kept.Bytes(), []byte(text)) {
				t.Fatalf("the tool ended with code %d, signal %q, error %v before it printed %q; stderr: %s", r.exit.Code, r.exit.Signal, r.err, text, shorten(r.stderr.text()))
			}
			return
		case <-clock.C:
			t.Fatalf("the tool has not printed %q", text)
		}
	}
}

// Eventually polls until ok says yes, and fails the test with the message where that takes too long.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// Long reports whether tests that take minutes are to be run: EXECUTOR_TEST_LONG=1.
func Long() bool { return os.Getenv("EXECUTOR_TEST_LONG") == "1" }
