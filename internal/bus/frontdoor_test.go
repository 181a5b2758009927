package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// openDoor opens a front door that knows the tool "known" only.
func openDoor(t *testing.T, b *Bus) *FrontDoor {
	t.Helper()
	door, err := b.OpenFrontDoor(Desk{
		Admit: func(_ context.Context, r *contracts.Request, named string) (string, error) {
			if r.Tool != "known" {
				return "", contracts.Errorf(contracts.UnknownTool, "there is no tool %q", r.Tool)
			}
			return cmp.Or(named, "local"), nil
		},
		ReplyTo: func(subject string) error {
			if !strings.HasPrefix(subject, "_INBOX.") {
				return contracts.Errorf(contracts.PolicyDenied, "not there")
			}
			return nil
		},
		Discover: func(context.Context) (contracts.Discovery, error) {
			return contracts.Discovery{Type: "discovery", Prefix: "tools", Engines: []string{"local"}, Tools: []*contracts.Contract{
				contractNamed(t, "known"), contractNamed(t, "other")}}, nil
		},
	}, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	return door
}

func contractNamed(t *testing.T, name string) *contracts.Contract {
	t.Helper()
	list, err := contracts.ParseContracts("", []byte("{name: "+name+", engine: local, engine_spec: {command: [x]}}"))
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// runAll answers every request by a stored result, as the core does.
func runAll(t *testing.T, b *Bus) *atomic.Int64 {
	var n atomic.Int64
	consume(t, b, 4, func(ctx context.Context, d contracts.Delivery) contracts.Settlement {
		n.Add(1)
		r, err := contracts.DecodeRequest(d.Data)
		if err != nil {
			t.Error(err)
		}
		id := r.ID
		if id == "" {
			id = contracts.QueueID(d.Created, d.Seq)
		}
		to := contracts.Copies{Subject: d.Header.Get(contracts.HeaderReplyTo), Reply: d.Header.Get(contracts.HeaderReply), Trace: d.Header.Get(contracts.HeaderTraceparent)}
		b.CopyEvent(to, event(b, contracts.TypeStarted, id, 1))
		stored, err := b.StoreResult(ctx, result(b, id, 1), to.Trace)
		if err != nil {
			t.Error(err)
		}
		b.CopyResult(to, stored)
		return contracts.Settlement{}
	})
	return &n
}

func TestRunAnswersOnceWithTheResult(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	runAll(t, b)
	nc := agent(t, s.URL())
	for _, subject := range []string{"tools.run", "tools.run.local"} {
		msg := nats.NewMsg(subject)
		msg.Data = []byte(`{"tool":"known"}`)
		msg.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		reply, err := nc.RequestMsg(msg, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var r contracts.Result
		if err := json.Unmarshal(reply.Data, &r); err != nil || r.Status != contracts.Succeeded || !strings.HasPrefix(r.ID, "q") {
			t.Errorf("%s: %s (%v)", subject, reply.Data, err)
		}
		if reply.Header.Get(contracts.HeaderType) != "result" || reply.Header.Get("traceparent") != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" {
			t.Errorf("%s: headers %v", subject, reply.Header)
		}
	}
}

func TestStreamRepliesWithEveryEvent(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	runAll(t, b)
	nc := agent(t, s.URL())
	sub, _ := nc.SubscribeSync(nats.NewInbox())
	if err := nc.PublishRequest("tools.stream", sub.Subject, []byte(`{"id":"mine","tool":"known","priority":"high"}`)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for {
		m, err := sub.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		kind := m.Header.Get(contracts.HeaderType)
		if kind == "" {
			if len(m.Data) > 0 {
				t.Errorf("a message without a type: %s", m.Data)
			}
			break
		}
		seen[kind]++
		if kind == contracts.TypeAccepted {
			var e contracts.Event
			if err := json.Unmarshal(m.Data, &e); err != nil || e.ID != "mine" || e.Stream != "TOOLS_EXEC" || e.Seq == 0 || e.Reply != "tools.reply.mine" {
				t.Errorf("accepted: %s", m.Data)
			}
		}
	}
	if seen["result"] != 1 || seen["started"] != 1 {
		t.Errorf("saw %v", seen)
	}
}

func TestFrontDoorRefuses(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	nc := agent(t, s.URL())
	for name, test := range map[string]struct{ data, code, want string }{
		"not JSON":        {"{", "400", "is not JSON"},
		"unknown field":   {`{"tool":"known","toool":1}`, "400", "unknown key"},
		"unknown tool":    {`{"tool":"nope"}`, "404", `there is no tool "nope"`},
		"too large":       {`{"tool":"known","stdin":"` + strings.Repeat("x", int(contracts.MaxRequest(1<<20))) + `"}`, "400", "takes 1015808 at most"},
		"bad id":          {`{"tool":"known","id":"a.b"}`, "400", "is not an id"},
		"tool and inline": {`{"tool":"known","contract":{"name":"x","engine":"local","engine_spec":{"command":["x"]}}}`, "400", "keep one"},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := nc.Request("tools.run", []byte(test.data), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var r contracts.Result
			if err := json.Unmarshal(reply.Data, &r); err != nil || r.Status != contracts.Rejected || r.Error == nil || !strings.Contains(r.Error.Message, test.want) {
				t.Errorf("%s (%v)", reply.Data, err)
			}
			if reply.Header.Get(contracts.HeaderServiceErrorCode) != test.code {
				t.Errorf("headers %v, want the code %s", reply.Header, test.code)
			}
		})
	}
	if n := queued(t, b); n != 0 {
		t.Errorf("%d refused requests were stored", n)
	}
}

// Nobody uses the front door to write where he may not.
func TestFrontDoorAnswersOnlyIntoInboxes(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	n := runAll(t, b)
	nc := agent(t, s.URL())
	sub, _ := nc.SubscribeSync("private.>")
	for _, subject := range []string{"tools.run", "tools.stream", "tools.follow", "tools.discover"} {
		nc.PublishRequest(subject, "private.place", []byte(`{"tool":"known","id":"x"}`))
	}
	if reply, err := nc.Request("tools.run", []byte(`{"tool":"known"}`), 5*time.Second); err != nil || len(reply.Data) == 0 {
		t.Fatal(err) // all before it were handled
	}
	if m, err := sub.NextMsg(100 * time.Millisecond); err == nil {
		t.Errorf("wrote %s to %s", m.Data, m.Subject)
	}
	if n.Load() != 1 {
		t.Errorf("%d requests were stored, want 1", n.Load())
	}
}

func TestFullQueueIsTold(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL(), func(c *Config) { c.Streams.QueueMessages = 2 })
	openDoor(t, b)
	nc := agent(t, s.URL())
	for range 2 {
		publish(t, nc, "tools.exec.local", `{"tool":"known"}`)
	}
	reply, err := nc.Request("tools.run", []byte(`{"tool":"known"}`), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var r contracts.Result
	json.Unmarshal(reply.Data, &r)
	if r.Error == nil || r.Error.Code != contracts.QueueFull || reply.Header.Get(contracts.HeaderServiceErrorCode) != "429" {
		t.Errorf("%s %v", reply.Data, reply.Header)
	}
	// Another priority has a queue of its own.
	publish(t, nc, "tools.exec.local.high", `{"tool":"known"}`)
}

// The same id again goes in again, past the server's own notion of duplicates: who takes it knows what to answer.
func TestSameIDIsStoredAgain(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	n := runAll(t, b)
	nc := agent(t, s.URL())
	for i := range 3 {
		if _, err := nc.Request("tools.run", []byte(`{"id":"same","tool":"known"}`), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if n.Load() != int64(i+1) {
			t.Fatalf("request %d: %d were taken", i+1, n.Load())
		}
	}
}

func TestDiscover(t *testing.T) {
	s := startServer(t)
	openDoor(t, connect(t, s.URL()))
	nc := agent(t, s.URL())
	for question, tools := range map[string]int{"": 2, `{"tool":"known"}`: 1, `{"tool":"nope"}`: 0} {
		reply, err := nc.Request("tools.discover", []byte(question), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var d contracts.Discovery
		if err := json.Unmarshal(reply.Data, &d); err != nil || len(d.Tools) != tools || d.Tools == nil || d.Prefix != "tools" {
			t.Errorf("%q: %s (%v)", question, reply.Data, err)
		}
	}
	reply, err := nc.Request("tools.discover", []byte(`{"tol":1}`), 5*time.Second)
	if err != nil || !strings.Contains(reply.Header.Get(contracts.HeaderServiceError), `did you mean "tool"?`) {
		t.Errorf("%v %v", reply.Header, err)
	}
}

// With a dialect the answer is what a language model is to be told about the tools.
func TestDiscoverAsDeclarations(t *testing.T) {
	s := startServer(t)
	openDoor(t, connect(t, s.URL()))
	nc := agent(t, s.URL())
	ask := func(question string) *nats.Msg {
		t.Helper()
		reply, err := nc.Request("tools.discover", []byte(question), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	const schema = `{"type":"object","properties":{},"additionalProperties":true}`
	for dialect, want := range map[string]string{
		contracts.DialectOpenAI:    `{"type":"function","function":{"name":"known","parameters":` + schema + `}}`,
		contracts.DialectAnthropic: `{"name":"known","input_schema":` + schema + `}`,
		contracts.DialectMCP:       `{"name":"known","inputSchema":` + schema + `}`,
	} {
		reply := ask(`{"as":"` + dialect + `","tool":"known"}`)
		if got := string(reply.Data); got != `{"type":"declarations","as":"`+dialect+`","tools":[`+want+`]}` || len(reply.Header) > 0 {
			t.Errorf("%s: %s %v", dialect, got, reply.Header)
		}
		var d contracts.Declarations
		if err := json.Unmarshal(ask(`{"as":"`+dialect+`"}`).Data, &d); err != nil || len(d.Tools) != 2 || d.As != dialect {
			t.Errorf("%s: %+v (%v)", dialect, d, err)
		}
		if got := string(ask(`{"as":"` + dialect + `","tool":"nope"}`).Data); got != `{"type":"declarations","as":"`+dialect+`","tools":[]}` {
			t.Errorf("%s: %s", dialect, got)
		}
	}
	for question, want := range map[string]string{
		`{"as":"gemini"}`: `as: there is no dialect "gemini"; there are openai, anthropic, mcp`,
		`{"as":""}`:       `as: there is no dialect ""`,
		`{"As":"mcp"}`:    `did you mean "as"?`,
	} {
		reply := ask(question)
		var body struct {
			Type  string
			Error *contracts.Error
		}
		if err := json.Unmarshal(reply.Data, &body); err != nil || body.Type != "error" || body.Error == nil || body.Error.Code != contracts.InvalidRequest ||
			!strings.Contains(body.Error.Message, want) || reply.Header.Get(contracts.HeaderServiceErrorCode) != "400" {
			t.Errorf("%s: %s %v (%v)", question, reply.Data, reply.Header, err)
		}
	}
}

// The service is visible to `nats micro`.
func TestServiceIsRegistered(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	reply, err := agent(t, s.URL()).Request("$SRV.INFO.executor", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Version   string
		Metadata  map[string]string
		Endpoints []struct{ Subject string }
	}
	if err := json.Unmarshal(reply.Data, &info); err != nil || info.Version != "1.2.3" || info.Metadata["executor"] != b.name {
		t.Errorf("%s", reply.Data)
	}
	subjects := map[string]bool{}
	for _, e := range info.Endpoints {
		subjects[e.Subject] = true
	}
	for _, want := range []string{"tools.run", "tools.run.*", "tools.stream", "tools.stream.*", "tools.follow", "tools.discover"} {
		if !subjects[want] {
			t.Errorf("no endpoint %s in %v", want, subjects)
		}
	}
}
