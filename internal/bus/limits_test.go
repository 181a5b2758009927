package bus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// places are the places of limits that are taken, by what the server has.
func places(t *testing.T, b *Bus) int {
	t.Helper()
	info, err := b.streams.limits.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	return len(info.State.Subjects)
}

// However many instances and runs want a place, there are never more than the limit, and all get one in the end.
func TestLimitIsForTheFleet(t *testing.T) {
	s := startServer(t)
	buses := []*Bus{connect(t, s.URL()), connect(t, s.URL()), connect(t, s.URL())}
	for _, n := range []int{1, 3} {
		var now, most, done atomic.Int64
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				limit := buses[i%3].Limit("tool", "key"+itoa(n), n)
				free, err := limit.Try(t.Context())
				if err == nil && free == nil {
					free, err = limit.Wait(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
				is := now.Add(1)
				for was := most.Load(); is > was && !most.CompareAndSwap(was, is); was = most.Load() {
				}
				if i%7 == 0 {
					time.Sleep(time.Millisecond) // a run
				}
				now.Add(-1)
				done.Add(1)
				free()
			})
		}
		all.Wait()
		if most.Load() > int64(n) || done.Load() != 60 {
			t.Errorf("limit %d: %d at once, %d done", n, most.Load(), done.Load())
		}
	}
	eventually(t, "all places are given back", func() bool { return places(t, buses[0]) == 0 })
	for _, b := range buses {
		eventually(t, "all limits are forgotten", func() bool {
			b.limits.mu.Lock()
			defer b.limits.mu.Unlock()
			return len(b.limits.open) == 0
		})
	}
}

// Another key, and another tool, are other limits.
func TestLimitsAreApart(t *testing.T) {
	b := connect(t, startServer(t).URL())
	for _, l := range []Limit{b.Limit("a", "", 1), b.Limit("a", "x", 1), b.Limit("b", "x", 1)} {
		if free, err := l.Try(t.Context()); free == nil || err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if free, err := b.Limit("a", "x", 1).Try(t.Context()); free != nil || err != nil {
		t.Errorf("taken twice: %v", err)
	}
}

// The place of an executor that died is free again when an ack-wait has passed, and not before.
func TestLimitOutlivesNoHolder(t *testing.T) {
	s := startServer(t)
	quick := func(c *Config) { c.AckWait = contracts.Seconds(2) }
	dying, heir := connect(t, s.URL(), quick), connect(t, s.URL(), quick)
	if free, err := dying.Limit("tool", "", 1).Try(t.Context()); free == nil || err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // longer than its TTL: it is renewed
	defer cancel()
	if free, err := heir.Limit("tool", "", 1).Wait(ctx); free != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("given away while its holder lives: %v", err)
	}
	dying.nc.Close() // as after kill -9
	died := time.Now()
	free, err := heir.Limit("tool", "", 1).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	free()
	if took := time.Since(died); took > 8*time.Second {
		t.Errorf("free again after %s", took)
	}
}

// While runs follow each other there is no word with the server.
func TestPlacesAreKeptForTheNextRun(t *testing.T) {
	b := connect(t, startServer(t).URL())
	limit := b.Limit("tool", "", 4)
	before := b.nc.Stats().OutMsgs
	for range 100 {
		free, err := limit.Try(t.Context())
		if free == nil || err != nil {
			t.Fatal(err)
		}
		free()
	}
	if asked := b.nc.Stats().OutMsgs - before; asked > 20 {
		t.Errorf("%d messages for 100 runs", asked)
	}
	eventually(t, "the place is given back", func() bool { return places(t, b) == 0 })
}

// A restart of the server in between loses no place, and nobody waits for ever.
func TestLimitOverARestart(t *testing.T) {
	s := startRestartable(t)
	b, other := connect(t, s.URL()), connect(t, s.URL())
	free, err := b.Limit("tool", "", 1).Try(t.Context())
	if free == nil || err != nil {
		t.Fatal(err)
	}
	got := make(chan func(), 1)
	go func() {
		free, err := other.Limit("tool", "", 1).Wait(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- free
	}()
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() && !other.Connected() })
	s.start()
	eventually(t, "they are back", func() bool { return b.Connected() && other.Connected() })
	select {
	case <-got:
		t.Fatal("the place was given twice")
	case <-time.After(300 * time.Millisecond):
	}
	free()
	select {
	case free := <-got:
		free()
	case <-time.After(10 * time.Second):
		t.Fatal("the place was not given on")
	}
}
