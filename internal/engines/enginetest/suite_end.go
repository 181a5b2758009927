package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func testReadyAndCheck(t *testing.T, s *session) {
	if err := s.engine.Ready(t.Context()); err != nil {
		t.Errorf("Ready says %s", err)
	}
	unsupported := func(t *testing.T, c *contracts.Contract) {
		t.Helper()
		var wrong *contracts.Error
		if err := s.engine.Check(c); !errors.As(err, &wrong) || wrong.Code != contracts.Unsupported {
			t.Errorf("Check says %v; an error with the code %s is right", err, contracts.Unsupported)
		} else if len(wrong.Message) < 20 {
			t.Errorf("the message %q helps nobody", wrong.Message)
		}
	}
	t.Run("a contract for other engines alone", func(t *testing.T) {
		other := contracts.Contract{Name: "other", Engine: contracts.EngineDagger, Spec: &contracts.DaggerSpec{}}
		if s.suite.Engine != contracts.EngineLocal {
			other = contracts.Contract{Name: "other", Engine: contracts.EngineLocal, Spec: &contracts.LocalSpec{}}
		}
		unsupported(t, &other)
	})
	for what, spec := range s.suite.Refused {
		t.Run(what, func(t *testing.T) {
			unsupported(t, &contracts.Contract{Name: "refused", Engine: s.suite.Engine, Spec: spec})
		})
	}
}

func testExitCodes(t *testing.T, s *session) {
	codes := s.suite.ExitCodes
	if codes == nil {
		for code := range 256 {
			codes = append(codes, code)
		}
	}
	for _, code := range codes {
		s.run(t, ask{script: []string{fmt.Sprintf("exit:%d", code)}}).exited(t, code)
	}
}

func testSignals(t *testing.T, s *session) {
	for _, name := range []string{"SIGTERM", "SIGKILL", "SIGINT", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGSEGV", "SIGPIPE", "SIGUSR1", "SIGALRM", "SIGSYS"} {
		r := s.run(t, ask{script: []string{"out:" + name, "signal:" + name}})
		if r.err != nil || r.exit.Signal != name {
			t.Errorf("%s: code %d, signal %q, error %v", name, r.exit.Code, r.exit.Signal, r.err)
		}
		r.printed(t, name, "")
	}
	t.Run("one without a name", func(t *testing.T) {
		if r := s.run(t, ask{script: []string{"signal:40"}}); r.err != nil || r.exit.Signal == "" {
			t.Errorf("code %d, signal %q, error %v: a tool that a signal ended looks like one that exited", r.exit.Code, r.exit.Signal, r.err)
		}
	})
	t.Run("not ours: the tool of a shell that exits with 128 + n", func(t *testing.T) {
		s.run(t, ask{script: []string{"exit:137"}}).exited(t, 137)
	})
}

func testStarting(t *testing.T, s *session) {
	t.Run("just before the start", func(t *testing.T) {
		var r *running
		ready := make(chan struct{})
		r = s.start(t, ask{script: []string{"out:ran"}, starting: func() error {
			<-ready
			time.Sleep(20 * time.Millisecond) // an engine that does not wait for the answer would start meanwhile
			if s.processes(r.marker) != nil || r.stdout.text() != "" {
				t.Error("the tool was started before Starting had returned")
			}
			return nil
		}})
		close(ready)
		r.wait(t).exited(t, 0)
		r.printed(t, "ran", "")
		if r.starts != 1 {
			t.Errorf("it was called %d times", r.starts)
		}
	})
	t.Run("an error means not to start", func(t *testing.T) {
		elsewhere := errors.New("the run is somebody else's")
		r := s.run(t, ask{script: []string{"out:ran"}, starting: func() error { return elsewhere }})
		r.ended(t, elsewhere)
		r.printed(t, "", "")
		if r.starts != 1 {
			t.Errorf("it was called %d times", r.starts)
		}
		s.script(t, "out:next").printed(t, "next", "") // and the engine is as it was
		s.nothingLeft(t)
	})
}

func testSpawn(t *testing.T, s *session) {
	specs := map[string]contracts.CommonSpec{
		"no such file":                  {Command: contracts.Command{Argv: []string{"/there/is/no/such/program"}}},
		"no such name":                  {Command: contracts.Command{Argv: []string{"there-is-no-such-program"}}},
		"a directory":                   {Command: contracts.Command{Argv: []string{"/"}}},
		"no working directory":          {Command: contracts.Command{Argv: s.suite.Tool}, Cwd: "/there/is/no/such/directory"},
		"no such file in its directory": {Command: contracts.Command{Argv: []string{"./nowhere"}}},
	}
	for name, spec := range s.suite.Unstartable {
		specs[name] = spec
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			s.run(t, ask{common: spec}).refused(t, contracts.SpawnFailed)
		})
	}
	s.nothingLeft(t)
}

// blocked is a run that waits for its end.
type blocked struct {
	*running
	stop  context.CancelCauseFunc
	cause error
}

// startBlocked begins a run and returns when its script has been run and it waits for its end.
func (s *session) startBlocked(t *testing.T, script ...string) *blocked {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	t.Cleanup(func() { stop(nil) })
	b := &blocked{stop: stop, cause: errors.New("the test has seen enough")}
	b.running = s.start(t, ask{ctx: ctx, script: append(append([]string{}, script...), "out:all is up", "block")})
	b.await(t, "all is up")
	return b
}

// cancel ends the run.
func (b *blocked) cancel(t *testing.T) {
	t.Helper()
	b.stop(b.cause)
	b.wait(t).ended(t, b.cause)
}

func testCancel(t *testing.T, s *session) {
	cause := errors.New("somebody asked for it")
	t.Run("before the start", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		r := s.run(t, ask{ctx: ctx, script: []string{"out:ran"}})
		r.ended(t, cause)
		r.printed(t, "", "")
		if r.starts != 0 {
			t.Error("Starting was called")
		}
		s.nothingLeft(t)
	})
	t.Run("at the start", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		r := s.run(t, ask{ctx: ctx, script: []string{"block"}, starting: func() error { cancel(cause); return nil }})
		r.ended(t, cause)
	})
	t.Run("while it runs", func(t *testing.T) {
		r := s.startBlocked(t, "background:1", "block")
		r.cancel(t)
		r.printed(t, "all is up", "")
		s.nothingLeft(t)
	})
	t.Run("by a deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
		defer cancel()
		r := s.run(t, ask{ctx: ctx, script: []string{"out:up", "block"}})
		r.ended(t, cause)
	})
	t.Run("after the end", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		r := s.run(t, ask{ctx: ctx, script: []string{"exit:4"}})
		cancel(cause)
		r.exited(t, 4)
		s.script(t, "out:next").printed(t, "next", "")
	})
	t.Run("at any moment", func(t *testing.T) {
		for i := range 60 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(i)*200*time.Microsecond, cause)
			r := s.run(t, ask{ctx: ctx, script: []string{"background:1", "block", "out:up", "exit:4"}})
			cancel()
			if r.err != nil {
				r.ended(t, cause)
			} else {
				r.exited(t, 4)
				r.printed(t, "up", "")
			}
		}
		s.nothingLeft(t)
	})
}

func testGrace(t *testing.T, s *session) {
	t.Run("time to end in order", func(t *testing.T) {
		patient := &session{suite: s.suite, engine: s.suite.New(t, patience)}
		r := patient.startBlocked(t, "on-term:out:, and ends in order")
		r.cancel(t)
		r.printed(t, "all is up, and ends in order", "")
		if r.took >= patience {
			t.Errorf("it took %s, all of the grace", r.took)
		}
		// How it ended is not what it was asked, so the exit code does not make a success of it.
		r = patient.startBlocked(t, "on-term:exit:7")
		r.cancel(t)
	})
	t.Run("not more than that", func(t *testing.T) {
		r := s.startBlocked(t, "ignore-term", "background:2", "ignore-term", "block")
		begun := time.Now()
		r.cancel(t)
		if took := time.Since(begun); took < usualGrace || took > usualGrace+patience/2 {
			t.Errorf("it took %s; the grace is %s", took, usualGrace)
		}
	})
	t.Run("none", func(t *testing.T) {
		strict := &session{suite: s.suite, engine: s.suite.New(t, 0)}
		r := strict.startBlocked(t, "on-term:out:, and was asked")
		r.cancel(t)
		r.printed(t, "all is up", "")
	})
}

// descendants are scripts that start what does not end by itself.
var descendants = map[string][]string{
	"a child":                          {"background:1", "block"},
	"one that ignores SIGTERM":         {"background:2", "ignore-term", "block"},
	"a daemon that holds the streams":  {"daemon:1", "block"},
	"a daemon that ignores SIGTERM":    {"daemon-quiet:2", "ignore-term", "block"},
	"a daemon of a daemon":             {"daemon:3", "daemon-quiet:1", "block", "block"},
	"a family":                         {"background:7", "background:3", "background:1", "block", "block", "daemon:1", "block", "block"},
	"64 at once":                       {"forkbomb:64"},
	"64 at once, each with a session":  {"forkbomb:64:setsid"},
	"one that never stays the same":    {"hop:20000"},
	"the same, with changing sessions": {"hop:20000:setsid"},
}

func testTree(t *testing.T, s *session) {
	for name, script := range descendants {
		t.Run(name+", tool exits with 0", func(t *testing.T) {
			r := s.script(t, append(append([]string{}, script...), "out:done")...)
			r.printed(t, "done", "")
			if r.took > patience/3 {
				t.Errorf("it took %s", r.took)
			}
		})
		t.Run(name+", tool exits with 9", func(t *testing.T) {
			r := s.run(t, ask{script: append(append([]string{}, script...), "exit:9")})
			r.exited(t, 9)
			r.printed(t, "", "")
		})
		t.Run(name+", cancelled", func(t *testing.T) {
			r := s.startBlocked(t, script...)
			r.cancel(t)
			r.printed(t, "all is up", "")
			if r.took > patience/3 {
				t.Errorf("it took %s", r.took)
			}
		})
	}
	t.Run("the tool kills its own process group", func(t *testing.T) {
		r := s.run(t, ask{script: []string{"background:1", "block", "daemon-quiet:1", "block", "out:up", "kill:group:KILL"}})
		if r.err != nil || r.exit.Signal != "SIGKILL" {
			t.Errorf("code %d, signal %q, error %v", r.exit.Code, r.exit.Signal, r.err)
		}
		r.printed(t, "up", "")
	})
	t.Run("orphans that have ended", func(t *testing.T) {
		s.script(t, "orphans:1000", "out:done").printed(t, "done", "")
	})
	t.Run("the tool waits for its child", func(t *testing.T) {
		s.run(t, ask{script: []string{"child:2", "out:of the child", "exit:6"}}).exited(t, 6)
	})
}

func testConcurrency(t *testing.T, s *session) {
	n := s.suite.Concurrent
	if n == 0 {
		n = 200
	}
	text := func(i int) string { return strings.Repeat(fmt.Sprintf("run %d ", i), 1+i%50) }
	var runs []*running
	for i := range n {
		runs = append(runs, s.start(t, ask{script: []string{"out:" + text(i), "err:" + text(i), "background:1", "block", fmt.Sprintf("exit:%d", i%100)}}))
	}
	for i, r := range runs {
		r.wait(t).exited(t, i%100)
		r.printed(t, text(i), text(i))
	}
	s.nothingLeft(t)
}

func testLeftovers(t *testing.T, s *session) { s.nothingLeft(t) }
