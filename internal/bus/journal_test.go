package bus

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// storedChunks reads the output of a run as the stream has it.
func storedChunks(t *testing.T, b *Bus, id string) []*nats.Msg {
	t.Helper()
	var list []*nats.Msg
	for seq := uint64(1); ; {
		m, err := b.next(t.Context(), b.subjects.Output(id), seq)
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			return list
		}
		list = append(list, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		seq = m.Sequence + 1
	}
}

func checkChunks(t *testing.T, list []*nats.Msg, n int) {
	t.Helper()
	if len(list) != n {
		t.Errorf("%d chunks are stored, want %d", len(list), n)
	}
	for i, m := range list {
		if m.Header.Get(contracts.HeaderSeq) != strconv.Itoa(i+1) || string(m.Data) != "chunk "+strconv.Itoa(i+1) {
			t.Fatalf("place %d has chunk %s: %.20q", i+1, m.Header.Get(contracts.HeaderSeq), m.Data)
		}
	}
}

func chunk(n int) contracts.Chunk {
	return contracts.Chunk{Stream: contracts.Stdout, Seq: uint64(n), Offset: int64(n), Data: []byte("chunk " + strconv.Itoa(n))}
}

func TestJournalStoresInOrderAndCopies(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	inbox := nats.NewInbox()
	sub, _ := nc.SubscribeSync(inbox)
	nc.Flush()
	var freed atomic.Int64
	j := b.Journal(t.Context(), "a", 2, contracts.Copies{Subject: inbox, Reply: contracts.ReplyEvents, Trace: "00-t"}, func() { freed.Add(1) })
	var done atomic.Int64
	const n = 500
	for i := 1; i <= n; i++ {
		if err := j.Output(chunk(i), func() { done.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Event(event(b, contracts.TypeFinished, "a", 2)); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	list := storedChunks(t, b, "a")
	checkChunks(t, list, n)
	h := list[0].Header
	for name, want := range map[string]string{contracts.HeaderType: "output", contracts.HeaderID: "a", contracts.HeaderAttempt: "2", contracts.HeaderExecutor: b.name,
		contracts.HeaderStream: "stdout", contracts.HeaderOffset: "1", contracts.HeaderTraceparent: "00-t"} {
		if h.Get(name) != want {
			t.Errorf("header %s is %q, want %q", name, h.Get(name), want)
		}
	}
	if done.Load() != n || freed.Load() == 0 {
		t.Errorf("%d buffers given back, room told of %d times", done.Load(), freed.Load())
	}
	for i := 1; i <= n; i++ {
		m, err := sub.NextMsg(5 * time.Second)
		if err != nil || string(m.Data) != "chunk "+strconv.Itoa(i) {
			t.Fatalf("copy %d: %v %v", i, m, err)
		}
	}
	if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("finished was copied, though copies end with the result: %s", m.Data)
	}
	if last, _, _ := b.lastStatus(t.Context(), "a"); last == nil || last.Type != contracts.TypeFinished {
		t.Errorf("last status %+v", last)
	}
}

// The server goes away in the middle and comes back: nothing is missing, nothing is there twice, all is in order.
func TestJournalOverRestarts(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	written := make(chan error, 1)
	var reached atomic.Int64
	var enough atomic.Bool
	go func() {
		for i := 1; !enough.Load(); i++ {
			if err := j.Output(chunk(i), nil); err != nil {
				written <- err
				return
			}
			reached.Store(int64(i))
		}
		written <- j.Flush()
	}()
	for range 3 {
		before := reached.Load()
		eventually(t, "some more is written", func() bool { return reached.Load() >= before+800 })
		s.Stop()
		eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
		s.start()
	}
	eventually(t, "it is connected again", b.Connected)
	enough.Store(true)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	checkChunks(t, storedChunks(t, b, "a"), int(reached.Load()))
}

// While the server is away the writer waits, and memory is bounded by the window.
func TestJournalBlocksWhenItsWindowIsFull(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	ctx, cancel := context.WithCancelCause(context.Background())
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	var reached atomic.Int64
	ended := make(chan error, 1)
	go func() {
		for i := 1; ; i++ {
			if err := j.Output(chunk(i), nil); err != nil {
				ended <- err
				return
			}
			reached.Store(int64(i))
		}
	}()
	eventually(t, "the window is full", func() bool { return reached.Load() == windowMessages })
	if j.Ahead() {
		t.Error("a full window wants more")
	}
	select {
	case <-ended:
		t.Fatal("the writer was not made to wait")
	case <-time.After(100 * time.Millisecond):
	}
	reason := errors.New("the executor stops")
	cancel(reason)
	if err := <-ended; !errors.Is(err, reason) {
		t.Errorf("the writer was told %v", err)
	}
	if err := j.Flush(); !errors.Is(err, reason) {
		t.Errorf("flush: %v", err)
	}
}

// Large chunks fill the window by their bytes.
func TestJournalWindowInBytes(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	big := bytes.Repeat([]byte("x"), 512<<10)
	var reached atomic.Int64
	go func() {
		for i := 1; j.Output(contracts.Chunk{Stream: "stdout", Seq: uint64(i), Data: big}, nil) == nil; i++ {
			reached.Store(int64(i))
		}
	}()
	eventually(t, "the window is full", func() bool { return reached.Load() == windowBytes/(512<<10) })
	cancel()
}

// What was published on a lost connection and arrives late is not stored twice.
func TestJournalRepeatsAreRecognised(t *testing.T) {
	b := connect(t, startServer(t).URL())
	for range 2 { // the second journal knows nothing of what the first has stored
		j := b.Journal(t.Context(), "a", 1, contracts.Copies{}, nil)
		for i := 1; i <= 10; i++ {
			if err := j.Output(chunk(i), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	checkChunks(t, storedChunks(t, b, "a"), 10)
}

func TestJournalSaysThatTheRunGoesOn(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	inbox := nats.NewInbox()
	sub, _ := nc.SubscribeSync(inbox)
	nc.Flush()
	j := b.Journal(t.Context(), "a", 1, contracts.Copies{Subject: inbox, Reply: contracts.ReplyEvents}, nil)
	j.Running(event(b, contracts.TypeRunning, "a", 1), time.Hour) // not silent for that long
	j.Running(event(b, contracts.TypeRunning, "a", 1), 0)
	m, err := sub.NextMsg(5 * time.Second)
	if err != nil || m.Header.Get(contracts.HeaderType) != contracts.TypeRunning {
		t.Fatal(m, err)
	}
	if _, err := sub.NextMsg(50 * time.Millisecond); err == nil {
		t.Error("it was said although something had just been said")
	}
	if info, _ := b.streams.reply.Info(t.Context()); info.State.Msgs != 0 {
		t.Error("it was stored")
	}
}

// A connection that is cut again and again, while a tool prints slowly and chunks are on their way: all of it is stored,
// once, and in order.
func TestJournalOverCuts(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	p.slow.Store(int64(2 * time.Millisecond))
	b := connect(t, p.url())
	direct := connect(t, s.URL())
	j := b.Journal(t.Context(), "cuts", 1, contracts.Copies{}, nil)
	const chunks, each = 600, 60
	pace := time.NewTicker(10 * time.Millisecond) // so slow that the window has room during a cut
	defer pace.Stop()
	for i := 1; i <= chunks; i++ {
		<-pace.C
		if err := j.Output(chunk(i), nil); err != nil {
			t.Fatal(err)
		}
		if i%each == each/2 {
			p.cut(false)
		}
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	checkChunks(t, storedChunks(t, direct, "cuts"), chunks)
}
