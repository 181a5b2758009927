package bus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas/check"
)

// said stores events of a run as executors do.
func said(t *testing.T, b *Bus, events ...contracts.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := b.js.PublishMsg(t.Context(), b.eventMessage(b.subjects.Status(e.ID), e, "")); err != nil {
			t.Fatal(err)
		}
	}
}

// lastLetter reads the newest dead letter, and checks it by its schema.
func lastLetter(t *testing.T, b *Bus) (contracts.DeadLetter, contracts.Header) {
	t.Helper()
	m, err := b.streams.dead.GetLastMsgForSubject(t.Context(), "tools.dead.*")
	if err != nil {
		t.Fatal(err)
	}
	text := m.Header.Get(contracts.HeaderDead)
	letter, err := contracts.DecodeDeadLetter(text)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	if err := check.Value("dead-letter", document); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return letter, contracts.Header(m.Header)
}

var someDigest = "sha256:" + strings.Repeat("0", 64)

// buried is a letter and a delivery, as the core has them.
func buried(id string, seq uint64) (contracts.DeadLetter, contracts.Delivery) {
	now := time.Now().UTC()
	return contracts.DeadLetter{ID: id, Digest: someDigest, Engine: "local", Seq: seq, Stored: now, Executor: "core", Time: now, Delivered: 2, Attempts: 1, Error: contracts.Errorf(contracts.ExecutorLost, "lost")},
		contracts.Delivery{Engine: "local", Priority: contracts.PriorityHigh, Seq: seq, Created: now, Stored: now, Data: []byte(`{"id":"` + id + `","tool":"greet","wrong":1}`)}
}

func TestDeadLetterHasTheHistory(t *testing.T) {
	b := connect(t, startServer(t).URL())
	run := func(kind string, attempt int) contracts.Event {
		e := event(b, kind, "run", attempt)
		e.Digest, e.ExecSeq = someDigest, 3
		return e
	}
	started, retry, other := run(contracts.TypeStarted, 1), run(contracts.TypeRetry, 1), run(contracts.TypeStarted, 1)
	started.Engine, started.Tool = "local", "greet"
	retry.Code, retry.Reason = contracts.ExecutorLost, "the executor was stopped"
	other.Digest, other.ExecSeq = "", 99
	progress := []contracts.Event{started}
	for range historyBatch + 10 { // more than one question gives
		e := run(contracts.TypeProgress, 1)
		e.Stage = "pull"
		progress = append(progress, e)
	}
	said(t, b, append(progress, other, retry)...)
	letter, d := buried("run", 7)
	if err := b.Bury(t.Context(), letter, d); err != nil {
		t.Fatal(err)
	}
	got, _ := lastLetter(t, b)
	if got.Tool != "greet" || got.Priority != contracts.PriorityHigh || got.Digest != someDigest || got.HistoryError != "" || got.HistoryOmitted != 0 {
		t.Errorf("%+v", got)
	}
	if len(got.History) != 2 || got.History[0].Type != contracts.TypeStarted || got.History[0].Engine != "local" || got.History[0].Executor != b.name ||
		got.History[1].Code != contracts.ExecutorLost || got.History[1].Reason != "the executor was stopped" || !got.History[1].Time.Equal(retry.Time) {
		t.Errorf("%+v", got.History)
	}
	// Nothing was said about a run, or its id could not be read.
	for _, id := range []string{"silent", ""} {
		letter, d := buried(id, uint64(10+len(id)))
		if err := b.Bury(t.Context(), letter, d); err != nil {
			t.Fatal(err)
		}
		if got, _ := lastLetter(t, b); got.ID != id || got.History != nil || got.HistoryError != "" {
			t.Errorf("%+v", got)
		}
	}
}

// The largest history, the largest message and the largest headers are a letter all the same.
func TestLargeDeadLetterIsStored(t *testing.T) {
	b := connect(t, startServer(t).URL())
	var events []contracts.Event
	for i := range 40 {
		e := event(b, contracts.TypeRetry, "run", i+1)
		e.ExecSeq, e.Code, e.Reason = 7, contracts.Internal, strings.Repeat("\x01", 500)
		events = append(events, e)
	}
	said(t, b, events...)
	letter, d := buried("run", 7)
	letter.Error = contracts.Errorf(contracts.Internal, "%s", strings.Repeat("<é>", 20_000))
	d.Header = contracts.Header{"X-Large": {strings.Repeat("x", 15<<10)}, "X-Larger": {strings.Repeat("x", 40<<10)}}
	if err := b.Bury(t.Context(), letter, d); err != nil {
		t.Fatal(err)
	}
	got, header := lastLetter(t, b)
	if len(got.History)+got.HistoryOmitted != 40 || header.Get("X-Large") == "" || header.Get("X-Larger") != "" {
		t.Errorf("%d events, %d omitted", len(got.History), got.HistoryOmitted)
	}
}

// A history that cannot be read keeps no request from its letter, which says so.
func TestDeadLetterWithoutItsHistory(t *testing.T) {
	b := connect(t, startServer(t).URL())
	if err := b.js.DeleteStream(t.Context(), "TOOLS_REPLY"); err != nil {
		t.Fatal(err)
	}
	letter, d := buried("run", 7)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Bury(ctx, letter, d); err != nil {
		t.Fatal(err)
	}
	if got, _ := lastLetter(t, b); got.HistoryError == "" || got.History != nil || got.Error.Code != contracts.ExecutorLost {
		t.Errorf("%+v", got)
	}
}

// While NATS is away a letter waits; it is stored, with its history, when NATS is back.
func TestBuryWaitsForNATS(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	e := event(b, contracts.TypeStarted, "run", 1)
	e.ExecSeq, e.Engine = 7, "local"
	said(t, b, e)
	s.Stop()
	eventually(t, "the connection is lost", func() bool { return !b.Connected() })
	letter, d := buried("run", 7)
	done := make(chan error, 1)
	go func() { done <- b.Bury(t.Context(), letter, d) }()
	s.start()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not stored 20 s later")
	}
	if got, _ := lastLetter(t, b); len(got.History) != 1 || got.HistoryError != "" {
		t.Errorf("%+v", got)
	}
	// Nobody waits beyond the end of its context.
	s.Stop()
	eventually(t, "the connection is lost again", func() bool { return !b.Connected() })
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := b.Bury(ctx, letter, d); !errors.Is(err, enough) && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestToolOf(t *testing.T) {
	for text, want := range map[string]string{
		`{"tool":"a"}`: "a", `{"contract":{"name":"b"}}`: "b", `{"tool":"a","wrong":1}`: "a", `{"tool":1}`: "", `{`: "", "": "", `[]`: "", `null`: "",
		`{"tool":"` + strings.Repeat("x", 65) + `"}`: "",
	} {
		if got := toolOf([]byte(text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
