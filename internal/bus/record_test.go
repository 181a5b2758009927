package bus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestRecord(t *testing.T) {
	b := connect(t, startServer(t).URL())
	ctx := t.Context()
	if r, err := b.Record(ctx, "a", true); err != nil || r != (contracts.Record{}) {
		t.Fatalf("of a run that nobody knows: %+v, %v", r, err)
	}
	if seq, err := b.Advance(ctx, event(b, contracts.TypeStarted, "a", 1), 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	if err := b.Cancel(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.StoreResult(ctx, result(b, "a", 1), ""); err != nil {
		t.Fatal(err)
	}
	r, err := b.Record(ctx, "a", true)
	if err != nil {
		t.Fatal(err)
	}
	if r.Result == nil || r.Result.Status != contracts.Succeeded || r.Status == nil || r.Status.Type != contracts.TypeStarted || r.StatusSeq == 0 || !r.Cancelled {
		t.Errorf("%+v", r)
	}
	if r, _ := b.Record(ctx, "a", false); r.Status != nil {
		t.Error("the status was read although nobody asked for it")
	}
}

// Many claim the same attempt; one gets it.
func TestClaimIsForOne(t *testing.T) {
	s := startServer(t)
	buses := []*Bus{connect(t, s.URL()), connect(t, s.URL()), connect(t, s.URL())}
	for round := range 20 {
		id := "run-" + itoa(round)
		var all sync.WaitGroup
		var won atomic.Int64
		for i := range 9 {
			all.Go(func() {
				b := buses[i%3]
				started := event(b, contracts.TypeStarted, id, 1)
				started.Executor += "-" + itoa(i)
				seq, err := b.Advance(t.Context(), started, 0, "")
				if err != nil {
					t.Error(err)
				}
				if seq > 0 {
					won.Add(1)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d claims were granted", won.Load())
		}
	}
}

func TestClaimAfterAnEarlierAttempt(t *testing.T) {
	b := connect(t, startServer(t).URL())
	ctx := t.Context()
	b.Advance(ctx, event(b, contracts.TypeStarted, "a", 1), 0, "")
	if seq, err := b.Advance(ctx, event(b, contracts.TypeStarted, "a", 2), 0, ""); seq != 0 || err != nil {
		t.Errorf("a claim that knows nothing of the first: %d, %v", seq, err)
	}
	r, _ := b.Record(ctx, "a", true)
	if seq, err := b.Advance(ctx, event(b, contracts.TypeStarted, "a", 2), r.StatusSeq, ""); seq == 0 || err != nil {
		t.Errorf("a claim that does: %d, %v", seq, err)
	}
}

// The answer to a claim can get lost. Asked again, the server says "wrong sequence", and it is ours all the same.
func TestClaimWhoseAnswerWasLost(t *testing.T) {
	b := connect(t, startServer(t).URL())
	started := event(b, contracts.TypeStarted, "a", 1)
	for range 2 {
		if seq, err := b.Advance(t.Context(), started, 0, ""); seq == 0 || err != nil {
			t.Fatal(seq, err)
		}
	}
}

func TestClaimWaitsForTheServer(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	claimed := make(chan bool, 1)
	go func() {
		seq, err := b.Advance(context.Background(), event(b, contracts.TypeStarted, "a", 1), 0, "")
		claimed <- seq > 0 && err == nil
	}()
	s.start()
	if !<-claimed {
		t.Error("not claimed after the restart")
	}
	// Its context ends the wait.
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(reason)
	if _, err := b.Advance(ctx, event(b, contracts.TypeStarted, "b", 1), 0, ""); err == nil {
		t.Error("claimed without a server")
	}
}

// One result: the second writer gets the first one's.
func TestResultIsStoredOnce(t *testing.T) {
	s := startServer(t)
	first, second := connect(t, s.URL()), connect(t, s.URL())
	ctx := t.Context()
	if stored, err := first.StoreResult(ctx, result(first, "a", 1), ""); err != nil || stored.Executor != first.name {
		t.Fatal(stored, err)
	}
	late := result(second, "a", 2)
	late.Status = contracts.Failed
	stored, err := second.StoreResult(ctx, late, "")
	if err != nil || stored.Executor != first.name || stored.Status != contracts.Succeeded {
		t.Errorf("the second writer was told %+v, %v", stored, err)
	}
	info, _ := first.streams.result.Info(ctx)
	if info.State.Msgs != 1 {
		t.Errorf("%d results are stored", info.State.Msgs)
	}
}

func TestResultOfManyWritersAtOnce(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	var all sync.WaitGroup
	winners := make(chan int, 16)
	for i := range 16 {
		all.Go(func() {
			stored, err := b.StoreResult(t.Context(), result(b, "a", i+1), "")
			if err != nil {
				t.Error(err)
				return
			}
			winners <- stored.Attempt
		})
	}
	all.Wait()
	close(winners)
	first := <-winners
	for other := range winners {
		if other != first {
			t.Fatalf("two writers were told of different results: attempts %d and %d", first, other)
		}
	}
}

func TestResultIsStoredAfterARestart(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	stored := make(chan error, 1)
	go func() {
		_, err := b.StoreResult(context.Background(), result(b, "a", 1), "")
		stored <- err
	}()
	s.start()
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if r, err := b.Result(t.Context(), "a"); err != nil || r == nil {
		t.Error(r, err)
	}
}

func TestQueued(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	seq := publish(t, agent(t, s.URL()), "tools.exec.local", "x")
	if there, err := b.Queued(t.Context(), seq); !there || err != nil {
		t.Error(there, err)
	}
	if there, err := b.Queued(t.Context(), seq+1); there || err != nil {
		t.Error(there, err)
	}
}

func TestDeadLetterKeepsTheRequest(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	d := contracts.Delivery{Engine: "local", Seq: 7, Created: time.Now(), Data: []byte("\x00not json"),
		Header: contracts.Header{"X-Mine": {"1"}, nats.MsgIdHdr: {"old"}, nats.ExpectedLastSeqHdr: {"99"}}}
	letter := contracts.DeadLetter{ID: "a", Engine: "local", Seq: 7, Error: contracts.Errorf(contracts.InvalidRequest, "no\nJSON")}
	for range 2 { // a second letter about the same request is the same letter
		if err := b.Bury(t.Context(), letter, d); err != nil {
			t.Fatal(err)
		}
	}
	info, _ := b.streams.dead.Info(t.Context())
	if info.State.Msgs != 1 {
		t.Fatalf("%d letters", info.State.Msgs)
	}
	m, err := b.streams.dead.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	var about contracts.DeadLetter
	if err := json.Unmarshal([]byte(m.Header.Get("Tools-Dead")), &about); err != nil || about.Error.Message != "no\nJSON" {
		t.Errorf("%s: %v", m.Header.Get("Tools-Dead"), err)
	}
	if string(m.Data) != "\x00not json" || m.Header.Get("X-Mine") != "1" || m.Subject != "tools.dead.local" {
		t.Errorf("%+v", m)
	}
}

func TestCancelIsHeardAndKept(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	heard := make(chan string, 1)
	if err := b.OnCancel(func(id string) { heard <- id }); err != nil {
		t.Fatal(err)
	}
	publish(t, agent(t, s.URL()), "tools.cancel.run-1", "")
	if id := <-heard; id != "run-1" {
		t.Error(id)
	}
	for id, want := range map[string]bool{"run-1": true, "run-2": false} {
		if is, err := b.Cancelled(t.Context(), id); is != want || err != nil {
			t.Errorf("%s: %v, %v", id, is, err)
		}
	}
}

func TestCopies(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	rejected := result(b, "a", 0)
	rejected.Status, rejected.Error = contracts.Rejected, contracts.Errorf(contracts.UnknownTool, "no\r\nsuch <tool>")
	for name, test := range map[string]struct {
		reply  string
		result *contracts.Result
		want   string
	}{
		"events":          {contracts.ReplyEvents, result(b, "a", 1), "started result end"},
		"result only":     {contracts.ReplyResult, result(b, "a", 1), "result"},
		"a service error": {contracts.ReplyResult, rejected, "result(404)"},
	} {
		t.Run(name, func(t *testing.T) {
			inbox := nats.NewInbox()
			sub, _ := nc.SubscribeSync(inbox)
			nc.Flush()
			to := contracts.Copies{Subject: inbox, Reply: test.reply, Trace: "00-trace"}
			b.CopyEvent(to, event(b, contracts.TypeStarted, "a", 1))
			b.CopyResult(to, test.result)
			b.nc.Flush()
			var got []string
			for range strings.Fields(test.want) {
				m, err := sub.NextMsg(5 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				kind := m.Header.Get(contracts.HeaderType)
				if code := m.Header.Get(contracts.HeaderServiceErrorCode); code != "" {
					kind += "(" + code + ")"
					if text := m.Header.Get(contracts.HeaderServiceError); strings.ContainsAny(text, "\r\n") || !strings.Contains(text, "such <tool>") {
						t.Errorf("header %q", text)
					}
				}
				if kind == "" && len(m.Data) == 0 {
					kind = "end"
				} else if m.Header.Get(contracts.HeaderID) != "a" || m.Header.Get(contracts.HeaderExecutor) != b.name || m.Header.Get(contracts.HeaderTraceparent) != "00-trace" {
					t.Errorf("headers %v", m.Header)
				}
				got = append(got, kind)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
			if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
				t.Errorf("more came: %v", m)
			}
		})
	}
}
