package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an executor with a scripted engine on a real bus.
type rig struct {
	logs   *logs
	t      *testing.T
	url    string
	nc     *nats.Conn       // an agent's
	engine *enginetest.Fake // local, or the first of those it was joined with
	fakes  map[string]*enginetest.Fake
	core   *Executor
	bus    *bus.Bus
	care   *bus.Unserved
	stop   func(cause error) // ends it: with a cause, what runs is stopped
}

type rigBus struct {
	*bus.Bus
	presence *bus.Presence
}

func (b rigBus) Serving(ctx context.Context) (map[string][]string, bool) {
	return b.presence.Serving(ctx)
}

func (b rigBus) Limit(tool, key string, n int) Limit { return b.Bus.Limit(tool, key, n) }

func (b rigBus) Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) Journal {
	return b.Bus.Journal(ctx, id, attempt, copies, freed)
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testConfig() Config {
	return Config{Name: "rig", DefaultEngine: "local", MaxAttempts: 3, MaxExecutionTime: time.Hour, ResultInlineBytes: 64 << 10, MaxOutputBytes: 1 << 20,
		Policy: Policy{InlineContracts: true, Shell: true}}
}

// newRig starts one; config may be changed. Rigs of one server share its queues.
func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	s, err := bus.StartServer(bus.ServerConfig{Port: -1, Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return joinRig(t, s.URL(), change...)
}

func joinRig(t *testing.T, url string, change ...func(*Config)) *rig {
	t.Helper()
	return joinRigOf(t, url, []string{contracts.EngineLocal}, change...)
}

// joinRigOf starts one with these engines.
func joinRigOf(t *testing.T, url string, names []string, change ...func(*Config)) *rig {
	t.Helper()
	c := testConfig()
	for _, f := range change {
		f(&c)
	}
	r := &rig{t: t, url: url, fakes: map[string]*enginetest.Fake{}}
	all := map[string]engines.Engine{}
	for _, name := range names {
		r.fakes[name] = enginetest.NewFake(name)
		all[name] = r.fakes[name]
	}
	r.engine = r.fakes[names[0]]
	var err error
	if r.nc, err = nats.Connect(url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.nc.Close)
	conf := bus.DefaultConfig()
	conf.URLs, conf.AckWait = []string{url}, contracts.Seconds(2)
	conf.Streams.QueueBytes, conf.Streams.ReplyBytes, conf.Streams.ResultBytes, conf.Streams.DeadBytes = 64<<20, 128<<20, 64<<20, 16<<20
	r.logs = &logs{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.logs.text())
		}
	})
	log := zerolog.New(r.logs)
	if r.bus, err = bus.Connect(t.Context(), conf, c.Name, log); err != nil {
		t.Fatal(err)
	}
	if err := r.bus.Declare(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	registry := NewRegistry()
	for _, tool := range toolsOfRig(t) {
		registry.tools[tool.Name] = append(registry.tools[tool.Name], tool)
	}
	presence := r.bus.Presence(func() contracts.Presence {
		p := contracts.Presence{Name: c.Name, Engines: map[string]contracts.EnginePresence{}}
		for name := range all {
			p.Engines[name] = contracts.EnginePresence{Ready: r.core.Healthy(name) == nil}
		}
		return p
	})
	r.core = New(c, rigBus{r.bus, presence}, all, registry, conf.InboxPrefix, log)
	r.core.Check(t.Context())
	if err := r.bus.OnCancel(r.core.Cancel); err != nil {
		t.Fatal(err)
	}
	var intake []bus.EngineIntake
	for _, name := range names {
		intake = append(intake, bus.EngineIntake{Engine: name, Open: func() bool { return r.core.Healthy(name) == nil }})
	}
	take, stopTaking := context.WithCancel(context.Background())
	work, stopWork := context.WithCancelCause(context.Background())
	if err := r.bus.OnCancelOnce(func(id string) { r.core.EndWaiting(context.Background(), id) }); err != nil {
		t.Fatal(err)
	}
	if err := presence.Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.care = r.bus.Unserved(presence, r.core.Handle)
	r.care.Grace = 600 * time.Millisecond
	var parts sync.WaitGroup
	parts.Go(func() { r.core.Keep(take) })
	parts.Go(func() { presence.Announce(take) })
	parts.Go(func() { r.core.WatchHealth(take, func(string, error) { presence.Changed() }) })
	parts.Go(func() { r.care.Care(take, work) })
	ended := make(chan error, 1)
	go func() {
		ended <- r.bus.Consume(take, work, bus.Intake{Engines: intake, Slots: bus.NewSlots(4), Handle: r.core.Handle})
	}()
	stopped := false
	r.stop = func(cause error) {
		if stopped {
			return
		}
		stopped = true
		stopTaking()
		if cause != nil {
			stopWork(cause)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stopWork(nil)
		parts.Wait()
	}
	t.Cleanup(func() { r.stop(Draining); r.bus.Close() })
	return r
}

// toolsOfRig are the tools that rigs know by name.
func toolsOfRig(t *testing.T) []*contracts.Contract {
	t.Helper()
	list, err := contracts.ParseContracts("rig.yaml", []byte(`
tools:
  - name: script
    version: 1.0.0
    engine: local
    engine_spec: {command: [tool, "{{args.a}}", "{{args.b}}", "{{args.c}}", "{{args.d}}"]}
    parameters: [{name: a}, {name: b}, {name: c}, {name: d}]
  - name: typed
    engine: local
    engine_spec: {command: [tool, "out:{{args.count}}", argv, "{{args.word}}"]}
    parameters:
      - {name: count, type: integer, required: true}
      - {name: word, default: hello, enum: [hello, bye]}
  - name: container
    engine: docker
    engine_spec: {image: busybox, command: ["true"]}
  - name: moves
    engine: docker
    engine_spec: {image: busybox, command: [tool, "{{args.a}}", "out:docker"]}
    fallback: [{engine: local, engine_spec: {command: [tool, "{{args.b}}", "out:local"]}}]
    parameters: [{name: a, default: "out:"}, {name: b, default: "out:"}]
  - name: again
    engine: local
    engine_spec: {command: [tool, "{{args.a}}", "{{args.b}}"], timeout: 0.5}
    parameters: [{name: a}, {name: b}]
    retry: {max_attempts: 3, backoff: 0.1, on: [failed, timed_out, lost, unavailable]}
  - name: slowly
    engine: local
    engine_spec: {command: [tool, "{{args.a}}"]}
    parameters: [{name: a}]
    retry: {max_attempts: 3, backoff: 60}
  - name: once
    engine: local
    engine_spec: {command: [tool, "{{args.a}}"]}
    parameters: [{name: a}]
    delivery: at_most_once
  - name: few
    engine: local
    engine_spec: {command: [tool, "{{args.a}}", "{{args.b}}"]}
    parameters: [{name: a}, {name: b}, {name: k}]
    concurrency: 1
    concurrency_key: "{{args.k}}"
  - name: stops
    engine: local
    engine_spec: {command: [tool, "flood:4000000"]}
    on_output_limit: stop
  - name: brief
    engine: local
    engine_spec: {command: [tool, "out:x", block], timeout: 0.2}
`))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// script is a request that runs a script of the fake engine.
func script(id string, verbs ...string) string {
	request := map[string]any{"contract": map[string]any{"name": "inline", "engine": "local", "engine_spec": map[string]any{"command": append([]string{"tool"}, verbs...)}}}
	if id != "" {
		request["id"] = id
	}
	text, err := json.Marshal(request)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// answer is what came to a reply subject: the types of the copies in order, and the result.
type answer struct {
	sub *nats.Subscription
	t   *testing.T
}

// ask puts a request into a queue with an inbox for the copies; headers as pairs.
func (r *rig) ask(request string, headers ...string) *answer {
	r.t.Helper()
	return r.askOn("tools.exec.local", request, headers...)
}

func (r *rig) askOn(subject, request string, headers ...string) *answer {
	r.t.Helper()
	sub, err := r.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		r.t.Fatal(err)
	}
	r.nc.Flush()
	msg := nats.NewMsg(subject)
	msg.Data = []byte(request)
	msg.Header.Set(contracts.HeaderReplyTo, sub.Subject)
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	ack, err := r.nc.RequestMsg(msg, 5*time.Second)
	if err != nil || !strings.Contains(string(ack.Data), `"seq"`) {
		r.t.Fatalf("the request was not stored: %v %s", err, ack.Data)
	}
	return &answer{sub, r.t}
}

// read returns the types of the copies up to the end, as "started output result", and the result.
func (a *answer) read() (string, *contracts.Result) {
	a.t.Helper()
	var kinds []string
	var result *contracts.Result
	for {
		m, err := a.sub.NextMsg(15 * time.Second)
		if err != nil {
			a.t.Fatalf("after %v: %v", kinds, err)
		}
		kind := m.Header.Get(contracts.HeaderType)
		if kind == "" && len(m.Data) == 0 {
			return strings.Join(kinds, " "), result
		}
		kinds = append(kinds, kind)
		if kind == contracts.TypeResult {
			result = &contracts.Result{}
			if err := json.Unmarshal(m.Data, result); err != nil {
				a.t.Fatal(err)
			}
		}
	}
}

func (a *answer) result() *contracts.Result {
	a.t.Helper()
	_, result := a.read()
	return result
}

// stored reads all messages of a stream below a subject.
func (r *rig) stored(stream, subject string) []*nats.Msg {
	r.t.Helper()
	var list []*nats.Msg
	for seq := uint64(1); ; {
		m, err := r.nc.Request("$JS.API.DIRECT.GET."+stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, seq, subject), 5*time.Second)
		if err != nil {
			r.t.Fatal(err)
		}
		if m.Header.Get("Status") == "404" {
			return list
		}
		list = append(list, m)
		fmt.Sscan(m.Header.Get("Nats-Sequence"), &seq)
		seq++
	}
}

// expectStatus waits until the stored events of a run are those.
func (r *rig) expectStatus(id, want string) {
	r.t.Helper()
	var got []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		got = nil
		for _, m := range r.stored("TOOLS_REPLY", "tools.reply."+id+".status") {
			got = append(got, m.Header.Get(contracts.HeaderType))
		}
		if strings.Join(got, " ") == want {
			return
		}
	}
	r.t.Errorf("status of %s: %q, want %q", id, strings.Join(got, " "), want)
}

// queueEmpty waits until no request is left.
func (r *rig) queueEmpty() {
	r.t.Helper()
	r.awaitQueued(0)
}

// await waits until something is so.
func (r *rig) await(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

// awaitQueued waits until that many requests are in the queues, those that are handled included.
func (r *rig) awaitQueued(n int) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		m, err := r.nc.Request("$JS.API.STREAM.INFO.TOOLS_EXEC", nil, 5*time.Second)
		if err != nil {
			r.t.Fatal(err)
		}
		var info struct{ State struct{ Messages int } }
		if err := json.Unmarshal(m.Data, &info); err != nil {
			r.t.Fatal(err)
		}
		if info.State.Messages == n {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d requests are in the queue, want %d", info.State.Messages, n)
		}
	}
}

// deadLetters reads the reasons of the dead letters.
func (r *rig) deadLetters() []contracts.DeadLetter {
	r.t.Helper()
	var list []contracts.DeadLetter
	for _, m := range r.stored("TOOLS_DEAD", "tools.dead.*") {
		var letter contracts.DeadLetter
		if err := json.Unmarshal([]byte(m.Header.Get("Tools-Dead")), &letter); err != nil {
			r.t.Fatal(err)
		}
		list = append(list, letter)
	}
	return list
}
