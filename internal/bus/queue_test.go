package bus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// order takes what is queued with one slot, and returns the priorities as they were taken.
func order(t *testing.T, weights Weights, high, normal, low int) (taken []string) {
	t.Helper()
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	for priority, n := range map[string]int{contracts.PriorityHigh: high, contracts.PriorityNormal: normal, contracts.PriorityLow: low} {
		for range n {
			publish(t, nc, b.subjects.Exec("local", priority), "x")
		}
	}
	took := make(chan string, high+normal+low)
	take, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Consume(take, context.Background(), Intake{Engines: []EngineIntake{{Engine: "local"}}, Slots: NewSlots(1), Weights: weights,
			Handle: func(_ context.Context, d contracts.Delivery) contracts.Settlement {
				took <- d.Priority
				return contracts.Settlement{}
			}})
	}()
	for range high + normal + low {
		select {
		case p := <-took:
			taken = append(taken, p)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %d were taken", len(taken))
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return taken
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

func TestWeights(t *testing.T) {
	taken := order(t, Weights{High: 16, Normal: 4, Low: 1}, 60, 60, 60)
	first := taken[:42]
	if h, n, l := count(first, "high"), count(first, "normal"), count(first, "low"); h < 28 || n < 6 || l < 1 || l > 4 {
		t.Errorf("of the first 42 there were %d high, %d normal, %d low", h, n, l)
	}
}

// What waits alone is not held up by weights, and a priority that was not used has saved nothing up.
func TestWeightsSaveNothingUp(t *testing.T) {
	l := &loop{}
	weights := Weights{High: 16, Normal: 4, Low: 1}
	for _, p := range contracts.Priorities {
		l.queues = append(l.queues, queue{priority: p, share: weights.share(p)})
	}
	low, high := &l.queues[2], &l.queues[0]
	l.expect(low)
	for range 1000 { // a long time of low alone
		if q := l.next(); q != low {
			t.Fatal("not low")
		}
		l.took(low)
	}
	l.expect(high)
	in := map[string]int{}
	for range 34 {
		q := l.next()
		in[q.priority]++
		l.took(q)
	}
	if in["low"] > 3 || in["high"] < 30 {
		t.Errorf("%v", in)
	}
}

// An engine that is closed is not taken from, and its bell rings for others.
func TestClosedEngine(t *testing.T) {
	withoutTick(t)
	s := startServer(t)
	ill, well := connect(t, s.URL()), connect(t, s.URL())
	nc := agent(t, s.URL())
	var open atomic.Bool
	take, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ill.Consume(take, context.Background(), Intake{Engines: []EngineIntake{{Engine: "local", Open: open.Load}}, Slots: NewSlots(4),
			Handle: func(context.Context, contracts.Delivery) contracts.Settlement {
				t.Error("taken by the closed one")
				return contracts.Settlement{}
			}})
	}()
	h := &hearing{t: t, got: make(chan string, 100)}
	consume(t, well, 4, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		h.got <- string(d.Data)
		return contracts.Settlement{}
	})
	for range 20 {
		h.wakes(func() { publish(t, nc, "tools.exec.local", "x") }, "x")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// A delivery that waits has no slot, and has one again when it goes on.
func TestYield(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	waiting, entered, held, others := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{}, 10)
	ended, stopped := make(chan error, 10), make(chan error, 10)
	// Each may come again: before the loop has ended, or after a stall that was longer than the lease.
	waited, enters := sync.OnceFunc(func() { close(waiting) }), sync.OnceFunc(func() { close(entered) })
	goOn := sync.OnceFunc(func() { close(held) })
	defer goOn() // also where the test has failed: its end waits for handlers
	stop := consume(t, b, 1, func(ctx context.Context, d contracts.Delivery) contracts.Settlement {
		switch string(d.Data) {
		case "waits":
			ended <- d.Yield(ctx, func(context.Context) error { waited(); <-held; return nil })
		case "waits to the end":
			stopped <- d.Yield(ctx, func(ctx context.Context) error {
				enters()
				<-ctx.Done()
				return context.Cause(ctx)
			})
			return contracts.Settlement{Outcome: contracts.Again}
		default:
			others <- struct{}{}
		}
		return contracts.Settlement{}
	})
	publish(t, nc, "tools.exec.local", "waits")
	<-waiting
	for range 3 {
		publish(t, nc, "tools.exec.local", "other")
		select {
		case <-others:
		case <-time.After(5 * time.Second):
			t.Fatal("the slot was kept")
		}
	}
	goOn()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	publish(t, nc, "tools.exec.local", "waits to the end")
	<-entered
	stop()
	if err := <-stopped; !errors.Is(err, contracts.ErrStopping) {
		t.Error(err)
	}
}

// More than a number do not wait: they are given back to the queue.
func TestCrowd(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	var waits, crowded atomic.Int64
	consume(t, b, 2, func(ctx context.Context, d contracts.Delivery) contracts.Settlement {
		err := d.Yield(ctx, func(ctx context.Context) error { waits.Add(1); <-ctx.Done(); return context.Cause(ctx) })
		if errors.Is(err, contracts.ErrCrowded) {
			crowded.Add(1)
			return contracts.Settlement{Outcome: contracts.Again, Delay: time.Hour}
		}
		return contracts.Settlement{Outcome: contracts.Again}
	})
	for range maxWaiting + 10 {
		publish(t, nc, "tools.exec.local", "x")
	}
	eventually(t, "all were taken", func() bool { return waits.Load() == maxWaiting && crowded.Load() == 10 })
}
