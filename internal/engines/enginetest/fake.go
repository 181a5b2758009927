package enginetest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

var _ engines.Engine = (*Fake)(nil)

// Fake is an engine without processes, for tests of what uses engines. What it does is read from the contract's command,
// whose first element is passed over as the name of a program; the rest is a script like that of the testtool, so that
// one contract serves both. Placeholders are replaced, so a request's args may hold the script.
//
// Of the testtool it knows out, err, outhex, errhex, lines, flood, flooderr, closeout, closeerr, pipesize, argv, cat, mark,
// sleep, block, exit, signal, background (which ends with the tool), wait, eat and burn (of which it only says that they
// were used). Its own verbs are
//
//	progress:STAGE:MESSAGE       tells progress; before all other verbs it does so before the start
//	await:NAME                   waits until the test says Release(NAME); also before the start
//	fail-before:CODE:MESSAGE     the tool cannot be started: a *contracts.Error
//	fail-after:MESSAGE           the engine loses the tool: an error that says so
//	ignore-cancel                what comes after does not heed the end of the context
//	oom                          ends as killed for its memory
//	panic:MESSAGE                the engine panics
//	unsupported:REASON           Check refuses the contract
type Fake struct {
	name string

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew with each change
	starts   []Start
	running  int
	most     int
	released map[string]bool
	ready    error
}

// Start is a start of a tool by the Fake: job.Starting had returned nil.
type Start struct {
	ID      string
	Attempt int
	Job     *engines.Job
}

// NewFake makes a fake engine that runs the contracts for the engine of that name.
func NewFake(name string) *Fake {
	return &Fake{name: name, changed: make(chan struct{}), released: map[string]bool{}}
}

// SetReady makes Ready return err from now on.
func (f *Fake) SetReady(err error) { f.change(func() { f.ready = err }) }

// Release lets scripts go on that wait for the name, now or later.
func (f *Fake) Release(name string) { f.change(func() { f.released[name] = true }) }

// Starts are the starts so far, in order.
func (f *Fake) Starts() []Start {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Start(nil), f.starts...)
}

// Running is how many tools run now; most is how many ran at once at most.
func (f *Fake) Running() (now, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.most
}

// AwaitStarts waits until there were n starts, and returns them.
func (f *Fake) AwaitStarts(tb testing.TB, n int) []Start {
	tb.Helper()
	f.await(tb, func() bool { return len(f.starts) >= n }, func() string { return fmt.Sprintf("%d of %d starts", len(f.starts), n) })
	return f.Starts()
}

// AwaitIdle waits until no tool runs.
func (f *Fake) AwaitIdle(tb testing.TB) {
	tb.Helper()
	f.await(tb, func() bool { return f.running == 0 }, func() string { return fmt.Sprintf("%d tools still run", f.running) })
}

func (f *Fake) await(tb testing.TB, ok func() bool, what func() string) {
	tb.Helper()
	clock := time.NewTimer(patience)
	defer clock.Stop()
	for {
		f.mu.Lock()
		there, text, changed := ok(), what(), f.changed
		f.mu.Unlock()
		if there {
			return
		}
		select {
		case <-changed:
		case <-clock.C:
			tb.Fatalf("the fake engine, after %s: %s", patience, text)
		}
	}
}

func (f *Fake) change(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Check implements engines.Engine.
func (f *Fake) Check(c *contracts.Contract) error {
	spec := c.SpecFor(f.name)
	if spec == nil {
		return contracts.Errorf(contracts.Unsupported, "the contract of %s has no engine_spec for the %s engine", c.Name, f.name)
	}
	for _, verb := range spec.Common().Command.Argv {
		if reason, ok := strings.CutPrefix(verb, "unsupported:"); ok {
			return contracts.Errorf(contracts.Unsupported, "%s", reason)
		}
	}
	return nil
}

// Ready implements engines.Engine.
func (f *Fake) Ready(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

// Run implements engines.Engine.
func (f *Fake) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	t := &fakeTool{fake: f, ctx: ctx, job: job, streams: [2]io.Writer{stdout, stderr}, printing: &sync.Mutex{},
		exit: engines.Exit{Isolation: contracts.Isolation{Tier: "none", Network: "host", Limits: "none"}}}
	argv, err := contracts.Expand(job.Spec.Common().Command.Argv, job.Args, job.Context)
	if err != nil {
		return t.exit, err
	}
	if len(argv) > 0 {
		t.script = argv[1:]
	}
	if err := t.prepare(); err != nil {
		return t.exit, err
	}
	if ctx.Err() != nil {
		return t.exit, context.Cause(ctx)
	}
	if err := job.Starting(); err != nil {
		return t.exit, err
	}
	f.change(func() {
		f.starts = append(f.starts, Start{job.ID, job.Attempt, job})
		f.running++
		f.most = max(f.most, f.running)
	})
	defer f.change(func() { f.running-- })
	err = t.play()
	return t.exit, err
}

// fakeTool is one run of a script.
type fakeTool struct {
	fake    *Fake
	ctx     context.Context
	job     *engines.Job
	script  []string
	streams [2]io.Writer // nil: closed, or its writer has failed
	exit    engines.Exit
	over    bool
	deaf    bool // to the end of ctx

	children sync.WaitGroup
	printing *sync.Mutex // shared with children
}

// prepare does what comes before the start.
func (t *fakeTool) prepare() error {
	for len(t.script) > 0 {
		verb := t.script[0]
		word, rest, _ := strings.Cut(verb, ":")
		switch word {
		case "fail-before":
			code, message, _ := strings.Cut(rest, ":")
			return contracts.Errorf(contracts.Code(code), "%s", message)
		case "progress", "await", "mark":
			if err := t.step(verb); err != nil {
				return err
			}
		default:
			return nil
		}
		t.script = t.script[1:]
	}
	return nil
}

// play runs the script, and ends what it left in the background.
func (t *fakeTool) play() error {
	var end context.CancelFunc
	outer := t.ctx
	t.ctx, end = context.WithCancel(outer)
	defer t.children.Wait()
	defer end()
	for len(t.script) > 0 && !t.over {
		verb := t.script[0]
		t.script = t.script[1:]
		if err := t.step(verb); err != nil {
			return err
		}
		if outer.Err() != nil && !t.deaf {
			return context.Cause(outer)
		}
	}
	return nil
}

func (t *fakeTool) background(script []string) {
	child := &fakeTool{fake: t.fake, ctx: t.ctx, job: t.job, script: script, streams: t.streams, printing: t.printing}
	t.children.Go(func() { child.play() })
}

// step runs one verb. An error ends the run.
func (t *fakeTool) step(verb string) error {
	word, rest, _ := strings.Cut(verb, ":")
	first, second, _ := strings.Cut(rest, ":")
	var wrong error // about the script
	switch word {
	case "mark", "unsupported", "pipesize":
	case "out", "err":
		t.print(word, []byte(rest))
	case "outhex", "errhex":
		var b []byte
		b, wrong = hex.DecodeString(rest)
		t.print(word[:3], b)
	case "lines":
		n, err := strconv.Atoi(first)
		d, err2 := time.ParseDuration(second)
		wrong = errors.Join(err, err2)
		for i := 1; i <= n && wrong == nil; i++ {
			t.print("out", fmt.Appendf(nil, "line %d\n", i))
			if err := t.pause(time.After(d)); err != nil {
				return err
			}
		}
	case "flood", "flooderr":
		var size contracts.Size
		if size, wrong = contracts.ParseSize(strings.ToLower(rest)); wrong == nil {
			return t.flood(word, int64(size))
		}
	case "closeout":
		t.streams[0] = nil
	case "closeerr":
		t.streams[1] = nil
	case "argv":
		text, err := json.Marshal(append([]string{verb}, t.script...))
		t.print("out", text)
		t.script, wrong = nil, err
	case "cat":
		t.print("out", t.job.Stdin)
	case "progress":
		if t.job.Progress != nil {
			t.job.Progress(first, second, -1)
		}
	case "sleep":
		var d time.Duration
		if d, wrong = time.ParseDuration(rest); wrong == nil {
			return t.pause(time.After(d))
		}
	case "await":
		return t.await(rest)
	case "block":
		return t.pause(nil)
	case "background":
		var n int
		if n, wrong = strconv.Atoi(rest); wrong == nil && (n < 0 || n > len(t.script)) {
			wrong = errors.New("so many arguments do not follow")
		}
		if wrong == nil {
			t.background(t.script[:n])
			t.script = t.script[n:]
		}
	case "wait":
		t.children.Wait()
	case "ignore-cancel":
		t.deaf = true
	case "eat":
		var size contracts.Size
		size, wrong = contracts.ParseSize(strings.ToLower(rest))
		t.exit.Usage.MaxRSSBytes = int64(size)
	case "burn":
		var d time.Duration
		d, wrong = time.ParseDuration(rest)
		t.exit.Usage.CPUMS = float64(d) / float64(time.Millisecond)
	case "exit":
		t.exit.Code, wrong = strconv.Atoi(rest)
		t.over = true
	case "signal":
		t.exit.Signal, t.over = "SIG"+strings.TrimPrefix(rest, "SIG"), true
	case "oom":
		t.exit.Signal, t.exit.OOMKilled, t.over = "SIGKILL", true, true
	case "fail-after":
		return errors.New(rest)
	case "panic":
		panic(rest)
	default:
		t.print("err", fmt.Appendf(nil, "the fake engine: %s: there is no such verb\n", verb))
		t.exit.Code, t.over = 64, true
	}
	if wrong != nil {
		t.print("err", fmt.Appendf(nil, "the fake engine: %s: %s\n", verb, wrong))
		t.exit.Code, t.over = 65, true
	}
	return nil
}

func (t *fakeTool) print(name string, p []byte) {
	i := 0
	if name == "err" {
		i = 1
	}
	if w := t.streams[i]; w != nil && len(p) > 0 {
		t.printing.Lock()
		defer t.printing.Unlock()
		if _, err := w.Write(p); err != nil {
			t.streams[i] = nil
		}
	}
}

// flood prints what the testtool does, 64 KiB at a time as pipes do.
func (t *fakeTool) flood(word string, size int64) error {
	name := "out"
	if word == "flooderr" {
		name = "err"
	}
	var block floodBlock
	for number := int64(0); size > 0; number++ {
		n := min(size, floodSize)
		t.print(name, block.at(number)[:n])
		size -= n
		if t.ctx.Err() != nil && !t.deaf {
			return context.Cause(t.ctx)
		}
	}
	return nil
}

// pause waits for c, or the end of ctx.
func (t *fakeTool) pause(c <-chan time.Time) error {
	if t.deaf {
		<-c
		return nil
	}
	select {
	case <-c:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

func (t *fakeTool) await(name string) error {
	for {
		t.fake.mu.Lock()
		there, changed := t.fake.released[name], t.fake.changed
		t.fake.mu.Unlock()
		if there {
			return nil
		}
		done := t.ctx.Done()
		if t.deaf {
			done = nil
		}
		select {
		case <-changed:
		case <-done:
			return context.Cause(t.ctx)
		}
	}
}
