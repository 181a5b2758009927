package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
	"github.com/praxis-sdk/executor/internal/executor"
)

// fleet is a NATS server and one executor, with an engine that plays scripts, in this process.
type fleet struct {
	url    string
	nc     *nats.Conn // an agent's
	engine *enginetest.Fake
	client *client.Client
	end    []func()
}

type fleetBus struct {
	*bus.Bus
	presence *bus.Presence
}

func (b fleetBus) Serving(ctx context.Context) (map[string][]string, bool) {
	return b.presence.Serving(ctx)
}

func (b fleetBus) Limit(tool, key string, n int) executor.Limit { return b.Bus.Limit(tool, key, n) }

func (b fleetBus) Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) executor.Journal {
	return b.Bus.Journal(ctx, id, attempt, copies, freed)
}

// fleetTool is the tool that it knows: its arguments are what the engine plays.
const fleetTool = `{name: play, version: 1.0.0, description: Plays a script., engine: local,
  engine_spec: {command: [tool, "{{args.first}}", "{{args.second}}", "{{args.third}}"]},
  parameters: [{name: first, default: "out:"}, {name: second, default: "out:"}, {name: third, default: "out:"}]}`

// startFleet starts one with files in dir, that runs so many tools at once.
func startFleet(dir string, slots int) (f *fleet, err error) {
	f = &fleet{engine: enginetest.NewFake(contracts.EngineLocal)}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	s, err := bus.StartServer(bus.ServerConfig{Port: -1, Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		return f, err
	}
	f.url = s.URL()
	f.end = append(f.end, s.Stop)
	if f.nc, err = nats.Connect(f.url); err != nil {
		return f, err
	}
	f.end = append(f.end, f.nc.Close)
	if f.client, err = client.New(f.nc); err != nil {
		return f, err
	}
	conf := bus.DefaultConfig()
	conf.URLs, conf.AckWait = []string{f.url}, contracts.Seconds(2)
	conf.Streams.QueueBytes, conf.Streams.ReplyBytes, conf.Streams.ResultBytes, conf.Streams.DeadBytes = 64<<20, 128<<20, 64<<20, 16<<20
	b, err := bus.Connect(context.Background(), conf, "fleet", zerolog.Nop())
	if err != nil {
		return f, err
	}
	f.end = append(f.end, b.Close)
	if err := b.Declare(context.Background(), []string{contracts.EngineLocal}); err != nil {
		return f, err
	}
	tools := filepath.Join(dir, "tools")
	if err := os.Mkdir(tools, 0o700); err != nil {
		return f, err
	}
	if err := os.WriteFile(filepath.Join(tools, "play.yaml"), []byte(fleetTool), 0o600); err != nil {
		return f, err
	}
	registry := executor.NewRegistry()
	if err := registry.Load([]string{tools}); err != nil {
		return f, err
	}
	core := executor.New(executor.Config{Name: "fleet", DefaultEngine: contracts.EngineLocal, MaxAttempts: 3, MaxExecutionTime: time.Hour,
		ResultInlineBytes: 64 << 10, MaxOutputBytes: 1 << 20}, fleetBus{b, b.Presence(nil)}, map[string]engines.Engine{contracts.EngineLocal: f.engine}, registry, conf.InboxPrefix, zerolog.Nop())
	core.Check(context.Background())
	if err := b.OnCancel(core.Cancel); err != nil {
		return f, err
	}
	take, stopTaking := context.WithCancel(context.Background())
	work, stopWork := context.WithCancelCause(context.Background())
	kept, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(kept); core.Keep(take) }()
	go func() {
		defer close(ended)
		_ = b.Consume(take, work, bus.Intake{Engines: []bus.EngineIntake{{Engine: contracts.EngineLocal}}, Slots: bus.NewSlots(slots), Handle: core.Handle})
	}()
	f.end = append(f.end, func() { stopTaking(); stopWork(executor.Draining); <-ended; <-kept })
	door, err := b.OpenFrontDoor(bus.Desk{
		Admit:   core.Admit,
		ReplyTo: func(string) error { return nil },
		Discover: func(context.Context) (contracts.Discovery, error) {
			return contracts.Discovery{Tools: registry.List(), Engines: []string{contracts.EngineLocal}}, nil
		},
	}, "1.0.0")
	if err != nil {
		return f, err
	}
	f.end = append(f.end, door.Close)
	return f, nil
}

func (f *fleet) stop() {
	for len(f.end) > 0 {
		last := len(f.end) - 1
		f.end[last]()
		f.end = f.end[:last]
	}
}

func newFleet(t *testing.T, slots int) *fleet {
	t.Helper()
	f, err := startFleet(t.TempDir(), slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}

// play is a request for the tool.
func play(id string, verbs ...string) client.Request {
	args := map[string]any{}
	for i, verb := range verbs {
		args[[]string{"first", "second", "third"}[i]] = verb
	}
	return client.Request{ID: id, Tool: "play", Args: args}
}

func submit(t *testing.T, f *fleet, request client.Request) client.Accepted {
	t.Helper()
	accepted, err := f.client.Submit(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return accepted
}

func TestSubmit(t *testing.T) {
	f := newFleet(t, 2)
	if got, want := submit(t, f, play("one", "out:a")), (client.Accepted{ID: "one", Stream: "TOOLS_EXEC", Seq: 1, Reply: "tools.reply.one"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := submit(t, f, play("", "out:a")); contracts.CheckID(got.ID) != nil || got.Reply != "tools.reply."+got.ID {
		t.Errorf("%+v", got)
	}
	_, err := f.client.Submit(t.Context(), client.Request{Tool: "plya"})
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Code != contracts.UnknownTool || !strings.Contains(refusal.Message, `did you mean "play"`) {
		t.Errorf("unknown tool: %v", err)
	}
	_, err = f.client.Submit(t.Context(), play("large", strings.Repeat("x", int(f.nc.MaxPayload()))))
	if !errors.As(err, &refusal) || refusal.Code != contracts.InvalidRequest {
		t.Errorf("too large: %v", err)
	}
	if s, err := f.client.State(t.Context(), "large"); err != nil || s.Last != nil || s.Result != nil {
		t.Errorf("what was refused is known: %+v, %v", s, err)
	}
}

// State, Snapshot and From, of a run that has printed two of its three chunks and waits, and of its end.
func TestStateSnapshotAndFrom(t *testing.T) {
	f := newFleet(t, 2)
	if s, err := f.client.State(t.Context(), "run"); err != nil || s.Last != nil || s.Result != nil {
		t.Errorf("before: %+v, %v", s, err)
	}
	submit(t, f, play("run", "out:begin", "await:go", "err:end"))
	live := f.client.Follow("run")
	for event, err := range live.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == client.TypeOutput {
			break
		}
	}
	place := live.Position()
	if want := (client.Position{Attempt: 1, Next: 2, Bytes: 5}); place != want {
		t.Errorf("position %+v, want %+v", place, want)
	}
	if s, err := f.client.State(t.Context(), "run"); err != nil || s.Result != nil || s.Last == nil || s.Last.Type != client.TypeStarted || s.Last.Executor != "fleet" {
		t.Errorf("meanwhile: %+v, %v", s, err)
	}
	expect := func(want string, options ...client.FollowOption) {
		t.Helper()
		if got, err := events(t, f.client.Follow("run", options...)); err != nil || got != want {
			t.Errorf("%s (%v)\nwant %s", got, err, want)
		}
	}
	expect("started 1, out begin, running 1", client.Snapshot())
	expect("started 1, running 1", client.Snapshot(), client.SkipOutput())
	expect("running 1", client.Snapshot(), client.From(place))
	if result, err := f.client.Follow("run", client.Snapshot()).Wait(t.Context()); err != nil || result != nil {
		t.Errorf("Wait with Snapshot: %+v, %v", result, err)
	}
	f.engine.Release("go")
	if result, err := f.client.Follow("run", client.SkipOutput()).Wait(t.Context()); err != nil || result.Stdout != "begin" || result.Stderr != "end" {
		t.Errorf("%+v, %v", result, err)
	}
	expect("started 1, out begin, err end, result succeeded")
	expect("err end, result succeeded", client.From(place))
	expect("started 1, out begin, err end, result succeeded", client.From(client.Position{}))
	expect("started 1, result succeeded", client.SkipOutput(), client.Snapshot())
	if s, err := f.client.State(t.Context(), "run"); err != nil || s.Last != nil || s.Result == nil || s.Result.Status != contracts.Succeeded {
		t.Errorf("after: %+v, %v", s, err)
	}
}

func TestQueues(t *testing.T) {
	f := newFleet(t, 1)
	queues, requests, err := f.client.Queues(t.Context(), 10)
	if err != nil || queues == nil || requests == nil || len(queues)+len(requests) != 0 {
		t.Errorf("empty: %v %v %v", queues, requests, err)
	}
	submit(t, f, play("first", "out:working", "await:go"))
	f.engine.AwaitStarts(t, 1)
	second := play("second")
	second.Priority = contracts.PriorityHigh
	submit(t, f, second)
	submit(t, f, play("third"))
	queues, requests, err = f.client.Queues(t.Context(), 10)
	if err != nil || len(queues) != 2 || queues[0] != (client.Queue{Engine: "local", Priority: "high", Requests: 1}) || queues[1] != (client.Queue{Engine: "local", Priority: "normal", Requests: 2}) {
		t.Errorf("%+v, %v", queues, err)
	}
	var seen []string
	for i, r := range requests {
		seen = append(seen, strings.Join([]string{r.ID, r.Tool, r.Engine, r.Priority, r.State, r.Executor}, " "))
		if r.Seq != uint64(i+1) || time.Since(r.Queued) > time.Minute || (r.State == client.StateRunning) != (r.Attempt == 1 && !r.Started.IsZero()) {
			t.Errorf("%+v", r)
		}
	}
	if got, want := strings.Join(seen, ", "), "first play local normal running fleet, second play local high queued , third play local normal queued "; got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	for limit := range 3 {
		if queues, requests, err := f.client.Queues(t.Context(), limit); err != nil || len(queues) != 2 || len(requests) != limit {
			t.Errorf("limit %d: %v %v %v", limit, queues, requests, err)
		}
	}
	f.engine.Release("go")
	others, err := client.New(f.nc, client.Prefix("others"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := others.Queues(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "there is no stream OTHERS_EXEC") {
		t.Errorf("%v", err)
	}
}

func TestDeclarations(t *testing.T) {
	f := newFleet(t, 1)
	for as, want := range map[string]string{"openai": `"parameters":`, "anthropic": `"input_schema":`, "mcp": `"inputSchema":`} {
		for _, name := range []string{"", "play"} {
			list, err := f.client.Declarations(t.Context(), name, as)
			if err != nil || len(list) != 1 || !strings.Contains(string(list[0]), want) || !strings.Contains(string(list[0]), `"name":"play"`) {
				t.Errorf("%s %q: %s, %v", as, name, list, err)
			}
		}
	}
	if list, err := f.client.Declarations(t.Context(), "nothing", "mcp"); err != nil || len(list) != 0 {
		t.Errorf("%s, %v", list, err)
	}
	if _, err := f.client.Declarations(t.Context(), "", "opnai"); err == nil || !strings.Contains(err.Error(), "openai") {
		t.Errorf("%v", err)
	}
}
