package enginetest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func testOutput(t *testing.T, s *session) {
	t.Run("both streams apart", func(t *testing.T) {
		s.script(t, "out:one ", "err:a ", "out:two\n", "err:b\n", "out:three").printed(t, "one two\nthree", "a b\n")
	})
	t.Run("none", func(t *testing.T) {
		s.script(t).printed(t, "", "")
	})
	t.Run("text of all sizes of characters", func(t *testing.T) {
		const text = "ä € 𝄞 \t \"quoted\" <&> \\ \r\n line\n\n"
		s.script(t, "out:"+text, "err:"+text).printed(t, text, text)
	})
	t.Run("more than a pipe holds, on both at once", func(t *testing.T) {
		want := string(floodText(3<<20 + 5))
		s.script(t, "background:1", "flooderr:3145733", "flood:3145733", "wait").printed(t, want, want)
	})
}

func testBinary(t *testing.T, s *session) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	all = append(all, 0, 0, 0xff, 0xfe, 0xc3) // ends within a character
	s.script(t, "outhex:"+hex.EncodeToString(all), "errhex:"+hex.EncodeToString(all)).printed(t, string(all), string(all))
}

func testLive(t *testing.T, s *session) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := s.start(t, ask{ctx: ctx, script: []string{"out:first\n", "block"}})
	r.await(t, "first\n") // the tool will never end by itself, so this came while it ran
	cancel()
	r.wait(t)
}

func testPartial(t *testing.T, s *session) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	want := string(floodText(1 << 20))
	r := s.start(t, ask{ctx: ctx, script: []string{"err:before", "flood:1M", "out:all\n", "block"}})
	r.await(t, "all\n")
	cancel(cause)
	r.wait(t).ended(t, cause)
	r.printed(t, want+"all\n", "before")

	r = s.run(t, ask{script: []string{"out:said", "signal:SEGV"}})
	r.printed(t, "said", "")
}

func testVolume(t *testing.T, s *session) {
	var check Flood
	r := s.run(t, ask{script: []string{"flood:256M"}, stdout: &check})
	r.exited(t, 0)
	if check.Bytes != 256<<20 {
		t.Errorf("%d bytes arrived", check.Bytes)
	}
	t.Logf("256 MiB, checked, in %s: %.0f MiB/s", r.took.Round(time.Millisecond), 256/r.took.Seconds())
}

func testEndless(t *testing.T, s *session) {
	if !Long() {
		t.Skip("SKIPPED: takes long; EXECUTOR_TEST_LONG=1 runs it")
	}
	var n counter
	before := heap()
	r := s.run(t, ask{script: []string{"flood:10G"}, stdout: &n})
	r.exited(t, 0)
	if n != 10<<30 {
		t.Errorf("%d bytes arrived", n)
	}
	t.Logf("10 GiB, discarded, in %s: %.0f MiB/s; the heap grew by %d KiB", r.took.Round(time.Millisecond), 10240/r.took.Seconds(), (heap()-before)>>10)
}

// counter discards.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// gate is a writer that blocks until it is opened.
type gate struct {
	opened chan struct{}
	once   sync.Once
	came   chan struct{} // closed: something was written
	to     io.Writer
}

func newGate(to io.Writer) *gate {
	return &gate{opened: make(chan struct{}), came: make(chan struct{}), to: to}
}

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.came) })
	<-g.opened
	return g.to.Write(p)
}

func testBackPressure(t *testing.T, s *session) {
	t.Run("a writer that blocks makes the tool wait", func(t *testing.T) {
		var check Flood
		g := newGate(&check)
		before := heap()
		r := s.start(t, ask{script: []string{"flood:64M", "err:done"}, stdout: g})
		within(t, g.came)
		// That something does not happen can only be seen by looking for a while.
		for range 30 {
			time.Sleep(10 * time.Millisecond)
			if text := r.stderr.text(); text != "" {
				t.Fatalf("the tool went on while nobody took its output: %q", text)
			}
		}
		if grown := heap() - before; grown > 8<<20 {
			t.Errorf("the heap grew by %d bytes while the writer blocked", grown)
		}
		close(g.opened)
		r.wait(t).exited(t, 0)
		r.printed(t, "", "done")
		if check.Bytes != 64<<20 {
			t.Errorf("%d bytes arrived", check.Bytes)
		}
	})
	t.Run("a slow writer loses nothing after the tool has ended", func(t *testing.T) {
		// The pipe holds more than one read takes, so that output is left when the tool has long been gone.
		var kept bytes.Buffer
		r := s.run(t, ask{script: []string{"pipesize:1048576", "flood:900K"}, stdout: writerFunc(func(p []byte) (int, error) {
			time.Sleep(150 * time.Millisecond)
			return kept.Write(p)
		})})
		r.exited(t, 0)
		if want := floodText(900 << 10); !bytes.Equal(kept.Bytes(), want) {
			t.Errorf("%d of %d bytes arrived", kept.Len(), len(want))
		}
	})
	t.Run("a cancel ends the tool, and Run returns once the writer does", func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		g := newGate(io.Discard)
		r := s.start(t, ask{ctx: ctx, script: []string{"flood:64M"}, stdout: g})
		within(t, g.came)
		cancel(cause)
		Eventually(t, "the tool is gone", func() bool { return len(s.processes(r.marker)) == 0 })
		close(g.opened)
		r.wait(t).ended(t, cause)
	})
}

func within(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func testWriterFails(t *testing.T, s *session) {
	broken := writerFunc(func([]byte) (int, error) { return 0, errors.New("the writer is broken") })
	t.Run("stdout", func(t *testing.T) {
		r := s.run(t, ask{script: []string{"flood:4M", "err:still here", "exit:7"}, stdout: broken})
		r.exited(t, 7)
		r.printed(t, "", "still here")
	})
	t.Run("both", func(t *testing.T) {
		s.run(t, ask{script: []string{"flood:4M", "flooderr:4M", "exit:7"}, stdout: broken, stderr: broken}).exited(t, 7)
	})
	t.Run("after a while", func(t *testing.T) {
		var got bytes.Buffer
		r := s.run(t, ask{script: []string{"flood:4M", "exit:7"}, stdout: writerFunc(func(p []byte) (int, error) {
			if got.Len() > 100_000 {
				return 0, errors.New("the writer is full")
			}
			return got.Write(p)
		})})
		r.exited(t, 7)
		if !bytes.HasPrefix(floodText(4<<20), got.Bytes()) {
			t.Error("what came before the failure is wrong")
		}
	})
}

func testStreamsClosed(t *testing.T, s *session) {
	r := s.run(t, ask{script: []string{"out:a", "closeout", "err:b", "sleep:50ms", "err:c", "exit:5"}})
	r.exited(t, 5)
	r.printed(t, "a", "bc")
	r = s.run(t, ask{script: []string{"out:a", "err:b", "closeerr", "closeout", "sleep:50ms", "exit:6"}})
	r.exited(t, 6)
	r.printed(t, "a", "b")
}

func testStdin(t *testing.T, s *session) {
	t.Run("empty", func(t *testing.T) {
		s.script(t, "cat", "out:.").printed(t, ".", "")
	})
	t.Run("1 MiB", func(t *testing.T) {
		want := floodText(1 << 20)
		r := s.run(t, ask{script: []string{"cat"}, stdin: want})
		r.exited(t, 0)
		r.printed(t, string(want), "")
	})
	t.Run("never read", func(t *testing.T) {
		r := s.run(t, ask{script: []string{"out:no", "exit:3"}, stdin: []byte(strings.Repeat("x", 1<<20))})
		r.exited(t, 3)
		r.printed(t, "no", "")
	})
}
