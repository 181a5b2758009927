package bus

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// following reads the replies of tools.follow as "started output:1 output:2 result end".
type following struct {
	t   *testing.T
	sub *nats.Subscription
}

func follow(t *testing.T, nc *nats.Conn, question string) *following {
	t.Helper()
	sub, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("tools.follow", sub.Subject, []byte(question)); err != nil {
		t.Fatal(err)
	}
	return &following{t, sub}
}

func (f *following) read(n int) string {
	f.t.Helper()
	var got []string
	for range n {
		m, err := f.sub.NextMsg(10 * time.Second)
		if err != nil {
			f.t.Fatalf("after %v: %v", got, err)
		}
		switch kind := m.Header.Get(contracts.HeaderType); {
		case kind == contracts.TypeOutput:
			got = append(got, "output:"+m.Header.Get(contracts.HeaderAttempt)+"."+m.Header.Get(contracts.HeaderSeq))
		case kind == "" && len(m.Data) == 0:
			got = append(got, "end")
		default:
			got = append(got, kind)
		}
		for name := range m.Header {
			if strings.HasPrefix(name, "Nats-") && !strings.HasPrefix(name, "Nats-Service-") {
				f.t.Errorf("a header of the stream came through: %s", name)
			}
		}
	}
	return strings.Join(got, " ")
}

func TestFollow(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	nc := agent(t, s.URL())
	ctx := t.Context()

	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 1), 0, "")
	first := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	first.Output(chunk(1), nil)
	first.Flush()

	early := follow(t, nc, `{"id":"a"}`)
	if got := early.read(2); got != "started output:1.1" {
		t.Fatalf("so far: %s", got)
	}
	// The executor dies; another attempt begins its output anew.
	r, _ := b.Record(ctx, "a", true)
	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 2), r.StatusSeq, "")
	second := b.Journal(ctx, "a", 2, contracts.Copies{}, nil)
	for i := 1; i <= 3; i++ {
		second.Output(chunk(i), nil)
	}
	second.Flush()
	if got := early.read(4); got != "started output:2.1 output:2.2 output:2.3" {
		t.Fatalf("the second attempt, live: %s", got)
	}
	b.StoreResult(ctx, result(b, "a", 2), "")
	second.Event(event(b, contracts.TypeFinished, "a", 2))
	second.Flush()
	if got := early.read(2); got != "result end" {
		t.Fatalf("the end, live: %s", got)
	}
	for question, want := range map[string]string{
		`{"id":"a"}`:                      "started started output:2.1 output:2.2 output:2.3 result end",
		`{"id":"a","from":3,"attempt":2}`: "started started output:2.3 result end",
		`{"id":"a","from":9,"attempt":1}`: "started started output:2.1 output:2.2 output:2.3 result end", // of an attempt that is void
	} {
		if got := follow(t, nc, question).read(len(strings.Fields(want))); got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
	}
}

// A snapshot is what is stored now. Where there is no result yet it ends with running, which names the attempt.
func TestFollowSnapshot(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	door := openDoor(t, b)
	nc := agent(t, s.URL())
	ctx := t.Context()
	expect := func(question, want string) {
		t.Helper()
		f := follow(t, nc, question)
		if got := f.read(len(strings.Fields(want))); got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
		eventually(t, "nobody waits for more", func() bool { return len(door.follows) == 0 })
		if m, err := f.sub.NextMsg(time.Millisecond); err == nil {
			t.Errorf("%s: after the end came %v %s", question, m.Header, m.Data)
		}
	}
	expect(`{"id":"a","snapshot":true}`, "running end") // not begun, or unknown
	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 1), 0, "")
	journal := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	for i := 1; i <= 3; i++ {
		journal.Output(chunk(i), nil)
	}
	journal.Flush()
	expect(`{"id":"a","snapshot":true}`, "started output:1.1 output:1.2 output:1.3 running end")
	expect(`{"id":"a","snapshot":true,"from":3,"attempt":1}`, "started output:1.3 running end")
	expect(`{"id":"a","snapshot":true,"from":4,"attempt":1}`, "started running end")
	expect(`{"id":"a","snapshot":true,"skip_output":true}`, "started running end")

	b.StoreResult(ctx, result(b, "a", 1), "")
	expect(`{"id":"a","snapshot":true}`, "started output:1.1 output:1.2 output:1.3 result end") // the last event is not stored yet
	journal.Event(event(b, contracts.TypeFinished, "a", 1))
	journal.Flush()
	expect(`{"id":"a","snapshot":true}`, "started output:1.1 output:1.2 output:1.3 result end")
	expect(`{"id":"a","snapshot":true,"skip_output":true}`, "started result end")
	expect(`{"id":"a","snapshot":false,"from":3,"attempt":1}`, "started output:1.3 result end")
}

// What a snapshot ends with tells whether the run has begun, and in which attempt it is.
func TestFollowSnapshotNamesTheAttempt(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	nc := agent(t, s.URL())
	b.Advance(t.Context(), event(b, contracts.TypeStarted, "a", 1), 0, "")
	r, _ := b.Record(t.Context(), "a", true)
	b.Advance(t.Context(), event(b, contracts.TypeStarted, "a", 2), r.StatusSeq, "")
	for id, attempt := range map[string]int{"unknown": 0, "a": 2} {
		f := follow(t, nc, `{"id":"`+id+`","snapshot":true}`)
		for {
			m, err := f.sub.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if m.Header.Get(contracts.HeaderType) != contracts.TypeRunning {
				continue
			}
			var e contracts.Event
			if err := json.Unmarshal(m.Data, &e); err != nil || e.Type != contracts.TypeRunning || e.ID != id || e.Attempt != attempt || m.Header.Get(contracts.HeaderAttempt) != itoa(attempt) {
				t.Errorf("%s: %v %s (%v)", id, m.Header, m.Data, err)
			}
			break
		}
	}
}

// Without output a follower gets the events of all attempts and the result, from what is stored and live.
func TestFollowSkipsOutput(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	nc := agent(t, s.URL())
	ctx := t.Context()

	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 1), 0, "")
	first := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	first.Output(chunk(1), nil)
	first.Flush()
	early := follow(t, nc, `{"id":"a","skip_output":true}`)
	if got := early.read(1); got != "started" {
		t.Fatalf("so far: %s", got)
	}
	r, _ := b.Record(ctx, "a", true)
	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 2), r.StatusSeq, "")
	second := b.Journal(ctx, "a", 2, contracts.Copies{}, nil)
	for i := 1; i <= 50; i++ {
		second.Output(chunk(i), nil)
	}
	second.Flush()
	b.StoreResult(ctx, result(b, "a", 2), "")
	second.Event(event(b, contracts.TypeFinished, "a", 2))
	second.Flush()
	if got := early.read(3); got != "started result end" {
		t.Fatalf("live: %s", got)
	}
	if got := follow(t, nc, `{"id":"a","skip_output":true}`).read(4); got != "started started result end" {
		t.Errorf("again: %s", got)
	}
}

// The end of a run whose last event was never stored is noticed without its output, too: nothing wakes the follower then.
func TestFollowSkipsOutputWithoutTheLastEvent(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	b.Advance(t.Context(), event(b, contracts.TypeStarted, "a", 1), 0, "")
	f := follow(t, agent(t, s.URL()), `{"id":"a","skip_output":true}`)
	if got := f.read(1); got != "started" {
		t.Fatal(got)
	}
	b.StoreResult(t.Context(), result(b, "a", 1), "")
	if got := f.read(2); got != "result end" {
		t.Error(got)
	}
}

// Output is kept for a shorter time than results: then the result alone is there.
func TestFollowWhatOnlyHasItsResult(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	b.StoreResult(t.Context(), result(b, "a", 1), "")
	if got := follow(t, agent(t, s.URL()), `{"id":"a"}`).read(2); got != "result end" {
		t.Error(got)
	}
}

// A result without the last event, as after a crash between the two, ends a follow all the same.
func TestFollowWithoutTheLastEvent(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	openDoor(t, b)
	b.Advance(t.Context(), event(b, contracts.TypeStarted, "a", 1), 0, "")
	f := follow(t, agent(t, s.URL()), `{"id":"a"}`)
	if got := f.read(1); got != "started" {
		t.Fatal(got)
	}
	b.StoreResult(t.Context(), result(b, "a", 1), "")
	if got := f.read(2); got != "result end" {
		t.Error(got)
	}
}

// A run that has not begun is waited for; the asker is told that we are there, and when he leaves, so do we.
func TestFollowWaitsAndNoticesThatNobodyListens(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	door := openDoor(t, b)
	f := follow(t, agent(t, s.URL()), `{"id":"not-yet"}`)
	if got := f.read(1); got != contracts.TypeRunning {
		t.Fatal(got)
	}
	if len(door.follows) != 1 {
		t.Fatalf("%d followers", len(door.follows))
	}
	f.sub.Unsubscribe()
	eventually(t, "the follower is let go", func() bool { return len(door.follows) == 0 })
}

func TestFollowRefuses(t *testing.T) {
	s := startServer(t)
	openDoor(t, connect(t, s.URL()))
	nc := agent(t, s.URL())
	for _, question := range []string{"", "{}", `{"id":"a.*"}`, `{"id":"a","form":1}`, `{"id":"a","from":-1}`, `{"id":"a","snapshot":"yes"}`, `{"id":"a","skip_output":null}`} {
		reply, err := nc.Request("tools.follow", []byte(question), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Error *contracts.Error }
		if err := json.Unmarshal(reply.Data, &body); err != nil || body.Error == nil || body.Error.Code != contracts.InvalidRequest {
			t.Errorf("%q: %s", question, reply.Data)
		}
		if reply.Header.Get(contracts.HeaderServiceErrorCode) == "" {
			t.Errorf("%q: no service error", question)
		}
	}
}
