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

	b.Claim(ctx, event(b, contracts.TypeStarted, "a", 1), 0, "")
	first := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	first.Output(chunk(1), nil)
	first.Flush()

	early := follow(t, nc, `{"id":"a"}`)
	if got := early.read(2); got != "started output:1.1" {
		t.Fatalf("so far: %s", got)
	}
	// The executor dies; another attempt begins its output anew.
	r, _ := b.Record(ctx, "a", true)
	b.Claim(ctx, event(b, contracts.TypeStarted, "a", 2), r.StatusSeq, "")
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
	b.Claim(t.Context(), event(b, contracts.TypeStarted, "a", 1), 0, "")
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
	for _, question := range []string{"", "{}", `{"id":"a.*"}`, `{"id":"a","form":1}`, `{"id":"a","from":-1}`} {
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
