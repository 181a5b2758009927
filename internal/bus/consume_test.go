package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// withoutTick makes sure that what is taken was taken because a bell rang.
func withoutTick(t *testing.T) {
	t.Helper()
	before := tick
	tick = time.Hour
	t.Cleanup(func() { tick = before })
}

// hearing is what handlers take, in a test without the tick. The bell can ring before the queue has the request, on a busy
// machine by more than is looked after it; the tick, which is not there, would find that one. So the next bell has to, and it
// must not happen twice.
type hearing struct {
	t    *testing.T
	got  chan string
	late int
}

// next is what was taken next; again rings once more where nothing was.
func (h *hearing) next(again func()) string {
	h.t.Helper()
	for {
		select {
		case got := <-h.got:
			return got
		case <-time.After(5 * time.Second):
			if h.late++; h.late > 1 {
				h.t.Fatal("a request was not taken, the second time")
			}
			again()
		}
	}
}

// wakes publishes a request and returns when it was taken, and was what was wanted.
func (h *hearing) wakes(publish func(), want string) {
	h.t.Helper()
	publish()
	for left := 1; left > 0; left-- {
		late := h.late
		if got := h.next(publish); got != want {
			h.t.Fatalf("taken was %s, want %s", got, want)
		}
		left += h.late - late
	}
}

// pending returns when the consumer of a queue has, or has had, that many requests to give: it has them a little later than
// the stream.
func pending(t *testing.T, b *Bus, priority string, n uint64) {
	t.Helper()
	consumer, err := b.streams.exec.Consumer(t.Context(), b.subjects.Consumer("local", priority))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request waits in the queue", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.Delivered.Consumer+info.NumPending == n
	})
}

func TestDeliveryHasWhatTheCoreNeeds(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	got := make(chan contracts.Delivery, 1)
	consume(t, b, 1, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		got <- d
		return contracts.Settlement{}
	})
	before := time.Now()
	seq := publish(t, agent(t, s.URL()), "tools.exec.local.high", `{"tool":"x"}`)
	d := <-got
	if d.Engine != "local" || d.Priority != "high" || d.Seq != seq || d.Delivered != 1 || string(d.Data) != `{"tool":"x"}` {
		t.Errorf("%+v", d)
	}
	if d.Stored.Before(before.Add(-time.Second)) || d.Stored.After(time.Now().Add(time.Second)) || d.Created.IsZero() || d.Created.After(d.Stored) {
		t.Errorf("times: stored %s, stream made %s", d.Stored, d.Created)
	}
}

// With one slot, requests come in the order of their priorities, however they were published.
func TestPrioritiesAreStrict(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	for i := range 3 {
		publish(t, nc, "tools.exec.local.low", fmt.Sprint("low", i))
		publish(t, nc, "tools.exec.local", fmt.Sprint("normal", i))
		publish(t, nc, "tools.exec.local.high", fmt.Sprint("high", i))
	}
	var mu sync.Mutex
	var order []string
	consume(t, b, 1, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		mu.Lock()
		defer mu.Unlock()
		if order = append(order, string(d.Data)); len(order) == 4 {
			publish(t, nc, "tools.exec.local.high", "late") // overtakes what waits
		}
		return contracts.Settlement{}
	})
	eventually(t, "all are taken", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) == 10 })
	if got := strings.Join(order, " "); got != "high0 high1 high2 normal0 late normal1 normal2 low0 low1 low2" {
		t.Errorf("order: %s", got)
	}
}

// No slot, no request: what an instance cannot run at once stays in the queue for others.
func TestNothingIsHoarded(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	for range 20 {
		publish(t, nc, "tools.exec.local", "x")
	}
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release() // also where the test has failed: its end waits for handlers
	var running, most, done atomic.Int64
	consume(t, b, 3, func(context.Context, contracts.Delivery) contracts.Settlement {
		most.Store(max(most.Load(), running.Add(1)))
		<-held
		running.Add(-1)
		done.Add(1)
		return contracts.Settlement{}
	})
	eventually(t, "three run", func() bool { return running.Load() == 3 })
	consumer, err := b.streams.exec.Consumer(t.Context(), "local")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := consumer.Info(t.Context()); err != nil || info.NumAckPending != 3 {
		t.Errorf("%d requests are out, want 3 (%v)", info.NumAckPending, err)
	}
	release()
	eventually(t, "all are done", func() bool { return done.Load() == 20 })
	if most.Load() != 3 {
		t.Errorf("%d ran at a time on 3 slots", most.Load())
	}
}

func TestEachRequestGoesToOneInstance(t *testing.T) {
	s := startServer(t)
	nc := agent(t, s.URL())
	const n = 300
	var mu sync.Mutex
	taken := map[string]int{}
	instances := map[string]int{}
	for i := range 3 {
		b := connect(t, s.URL())
		consume(t, b, 2, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
			mu.Lock()
			defer mu.Unlock()
			taken[string(d.Data)]++
			instances[fmt.Sprint(i)]++
			return contracts.Settlement{}
		})
	}
	for i := range n {
		publish(t, nc, "tools.exec.local", fmt.Sprint(i))
	}
	eventually(t, "all are taken", func() bool { mu.Lock(); defer mu.Unlock(); return len(taken) == n })
	mu.Lock()
	defer mu.Unlock()
	for data, times := range taken {
		if times != 1 {
			t.Errorf("request %s was taken %d times", data, times)
		}
	}
	if len(instances) < 2 {
		t.Errorf("one instance did it all: %v", instances)
	}
}

// The bell wakes an idle instance; without it the request would lie until the next tick.
func TestBellWakesAnIdleInstance(t *testing.T) {
	withoutTick(t)
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	h := &hearing{t: t, got: make(chan string, 100)}
	consume(t, b, 4, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		h.got <- d.Priority
		return contracts.Settlement{}
	})
	for i := range 60 {
		priority := contracts.Priorities[i%3]
		h.wakes(func() { publish(t, nc, b.subjects.Exec("local", priority), "x") }, priority)
	}
}

// The bell rings for one instance; if that cannot take all there is, it rings on for the others.
func TestBellIsPassedOn(t *testing.T) {
	withoutTick(t)
	s := startServer(t)
	nc := agent(t, s.URL())
	var instances []*Bus
	for range 4 {
		instances = append(instances, connect(t, s.URL()))
	}
	// The bell of each request would wake all four, one each: here it rings by hand, once.
	config := instances[0].execStream()
	config.RePublish = nil
	if _, err := instances[0].js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	h := &hearing{t: t, got: make(chan string, 10)}
	held := make(chan struct{})
	defer close(held) // also where the test has failed: its end waits for handlers
	for i, b := range instances {
		before := b.nc.NumSubscriptions()
		consume(t, b, 1, func(context.Context, contracts.Delivery) contracts.Settlement {
			h.got <- itoa(i)
			<-held
			return contracts.Settlement{}
		})
		// It looks once more after it has begun to listen; each look has a subscription of its own for a moment.
		idle := 0
		eventually(t, "it listens to the bell", func() bool {
			if idle++; b.nc.NumSubscriptions() != before+2 {
				idle = 0
			}
			return idle == 10
		})
		if err := b.nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		publish(t, nc, "tools.exec.local", "x")
	}
	pending(t, instances[0], contracts.PriorityNormal, 4)
	ring := func() {
		if err := nc.Publish("tools.bell.local", nil); err != nil {
			t.Fatal(err)
		}
	}
	ring()
	run := map[string]bool{}
	for range 4 { // an instance that runs one takes no other
		run[h.next(ring)] = true
	}
	if len(run) != 4 {
		t.Errorf("of four instances %d run one", len(run))
	}
}

// A request that comes while all are busy is taken when one gets free, though nobody heard its bell.
func TestBusyInstanceLooksWhenASlotIsFree(t *testing.T) {
	withoutTick(t)
	s := startServer(t)
	nc := agent(t, s.URL())
	b := connect(t, s.URL())
	started, held := make(chan string, 10), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	next := func() string {
		t.Helper()
		select {
		case data := <-started:
			return data
		case <-time.After(10 * time.Second):
			t.Fatal("not taken")
			return ""
		}
	}
	// What is there before an instance looks needs no bell, which could be lost.
	publish(t, nc, "tools.exec.local", "first")
	pending(t, b, contracts.PriorityNormal, 1)
	consume(t, b, 1, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		started <- string(d.Data)
		<-held
		return contracts.Settlement{}
	})
	if data := next(); data != "first" {
		t.Fatalf("first came %s", data)
	}
	publish(t, nc, "tools.exec.local.low", "second")
	publish(t, nc, "tools.exec.local.high", "third")
	pending(t, b, contracts.PriorityLow, 1)
	pending(t, b, contracts.PriorityHigh, 1)
	release()
	if a, b := next(), next(); a != "third" || b != "second" {
		t.Errorf("then came %s, %s", a, b)
	}
}

// The lease lives as long as the handling, however long that is.
func TestLeaseIsKept(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL(), func(c *Config) { c.AckWait = contracts.Seconds(2) })
	var times atomic.Int64
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	consume(t, b, 2, func(context.Context, contracts.Delivery) contracts.Settlement {
		times.Add(1)
		<-time.After(5 * time.Second)
		end()
		return contracts.Settlement{}
	})
	publish(t, agent(t, s.URL()), "tools.exec.local", "x")
	<-ended
	eventually(t, "the queue is empty", func() bool { return queued(t, b) == 0 })
	if times.Load() != 1 {
		t.Errorf("taken %d times within its lease", times.Load())
	}
}

func queued(t *testing.T, b *Bus) uint64 {
	t.Helper()
	info, err := b.streams.exec.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

// When an instance is gone, what it had is taken by another, one ack-wait later.
func TestTakeover(t *testing.T) {
	s := startServer(t)
	quick := func(c *Config) { c.AckWait = contracts.Seconds(1) }
	dying := connect(t, s.URL(), quick)
	publish(t, agent(t, s.URL()), "tools.exec.local", "x")
	taken, never := make(chan struct{}), make(chan struct{})
	take, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		dying.Consume(take, take, Intake{Engines: []EngineIntake{{Engine: "local"}}, Slots: NewSlots(1), Handle: func(context.Context, contracts.Delivery) contracts.Settlement {
			close(taken)
			<-never
			return contracts.Settlement{Outcome: contracts.Again}
		}})
	}()
	<-taken
	dying.nc.Close() // as after kill -9: no ack, no heartbeat
	got := make(chan contracts.Delivery, 1)
	consume(t, connect(t, s.URL(), quick), 1, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		got <- d
		return contracts.Settlement{}
	})
	select {
	case d := <-got:
		if d.Delivered != 2 {
			t.Errorf("delivered %d times", d.Delivered)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not taken over")
	}
	cancel()
	close(never)
	<-finished
}

func TestSettlements(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	advisory, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.TOOLS_EXEC.*")
	if err != nil {
		t.Fatal(err)
	}
	nc.Flush()
	var mu sync.Mutex
	seen := map[string][]time.Time{}
	consume(t, b, 4, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		mu.Lock()
		defer mu.Unlock()
		data := string(d.Data)
		seen[data] = append(seen[data], time.Now())
		switch {
		case data == "refused":
			return contracts.Settlement{Outcome: contracts.Refused, Reason: "because"}
		case data == "again" && len(seen[data]) < 3:
			return contracts.Settlement{Outcome: contracts.Again, Delay: 300 * time.Millisecond}
		case data == "at once" && len(seen[data]) < 3:
			return contracts.Settlement{Outcome: contracts.Again}
		}
		return contracts.Settlement{Outcome: contracts.Done}
	})
	for _, data := range []string{"done", "refused", "again", "at once"} {
		publish(t, nc, "tools.exec.local", data)
	}
	eventually(t, "the queue is empty", func() bool { return queued(t, b) == 0 })
	mu.Lock()
	defer mu.Unlock()
	for data, times := range map[string]int{"done": 1, "refused": 1, "again": 3, "at once": 3} {
		if len(seen[data]) != times {
			t.Errorf("%s was taken %d times, want %d", data, len(seen[data]), times)
		}
	}
	if again := seen["again"]; again[1].Sub(again[0]) < 300*time.Millisecond {
		t.Errorf("came again after %s, asked for 300 ms", again[1].Sub(again[0]))
	}
	if m, err := advisory.NextMsg(5 * time.Second); err != nil || !strings.Contains(string(m.Data), "because") {
		t.Errorf("the server tells nobody why: %v", err)
	}
}

// Draining: no more is taken, what was taken is handled, and Consume returns then.
func TestConsumeEndsWhenItsWorkHas(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	nc := agent(t, s.URL())
	started, release := make(chan struct{}, 10), make(chan struct{})
	take, cancel := context.WithCancel(context.Background())
	returned := make(chan error, 1)
	go func() {
		returned <- b.Consume(take, context.Background(), Intake{Engines: []EngineIntake{{Engine: "local"}}, Slots: NewSlots(2), Handle: func(context.Context, contracts.Delivery) contracts.Settlement {
			started <- struct{}{}
			<-release
			return contracts.Settlement{}
		}})
	}()
	publish(t, nc, "tools.exec.local", "a")
	<-started
	cancel()
	select {
	case <-returned:
		t.Fatal("returned while a request was handled")
	case <-time.After(100 * time.Millisecond):
	}
	publish(t, nc, "tools.exec.local", "b")
	close(release)
	if err := <-returned; err != nil {
		t.Fatal(err)
	}
	if len(started) > 0 || queued(t, b) != 1 {
		t.Errorf("a request was taken while draining; %d are left", queued(t, b))
	}
}

func TestConsumeSurvivesARestartOfTheServer(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	var mu sync.Mutex
	var got []string
	consume(t, b, 2, func(_ context.Context, d contracts.Delivery) contracts.Settlement {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(d.Data))
		return contracts.Settlement{}
	})
	publish(t, agent(t, s.URL()), "tools.exec.local", "before")
	eventually(t, "the first is taken", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 1 })
	s.Stop()
	s.start()
	publish(t, agent(t, s.URL()), "tools.exec.local", "after")
	eventually(t, "the second is taken", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(got, "after") })
	eventually(t, "the queue is empty", func() bool { return b.Connected() && queued(t, b) == 0 })
}

// Somebody removes a consumer: it is made again.
func TestConsumerThatWasRemovedIsMadeAgain(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	got := make(chan struct{}, 10)
	consume(t, b, 1, func(context.Context, contracts.Delivery) contracts.Settlement {
		got <- struct{}{}
		return contracts.Settlement{}
	})
	js, _ := jetstream.New(agent(t, s.URL()))
	if err := js.DeleteConsumer(t.Context(), "TOOLS_EXEC", "local"); err != nil {
		t.Fatal(err)
	}
	publish(t, agent(t, s.URL()), "tools.exec.local", "x")
	select {
	case <-got:
	case <-time.After(15 * time.Second):
		t.Fatal("not taken")
	}
}

// A settlement that cannot be told now is told after the reconnect.
func TestSettlementWaitsForTheConnection(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL(), func(c *Config) { c.AckWait = contracts.Seconds(20) })
	var times atomic.Int64
	inside, outside := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(outside) })
	defer goOn()
	consume(t, b, 1, func(context.Context, contracts.Delivery) contracts.Settlement {
		if times.Add(1) == 1 {
			close(inside)
			<-outside
		}
		return contracts.Settlement{}
	})
	publish(t, agent(t, s.URL()), "tools.exec.local", "x")
	<-inside
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	goOn()
	s.start()
	eventually(t, "the queue is empty", func() bool { return b.Connected() && queued(t, b) == 0 })
	if times.Load() != 1 {
		t.Errorf("taken %d times", times.Load())
	}
}
