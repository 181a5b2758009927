package bus

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// tick is how long a loop at most waits until it looks into all queues although no bell rang: for bells that were lost, and
// for requests that come back, for which none rings.
var tick = time.Second // a variable for tests

// bell wakes the loop of an engine when something was queued. It is heard by one instance of the fleet: a bell that all
// hear makes a hundred idle instances look for one request.
type bell struct {
	bus    *Bus
	engine string
	rung   atomic.Uint32 // a rung
	wake   chan struct{}
	subs   []*nats.Subscription
}

// rung has a bit for each priority whose bell rang, by its place in contracts.Priorities.
type rung uint32

func (r rung) has(priority int) bool { return r&(1<<priority) != 0 }

func newBell(b *Bus, engine string) *bell {
	return &bell{bus: b, engine: engine, wake: make(chan struct{}, 1)}
}

// listen begins to hear; false where it did already, or there is no connection.
func (b *bell) listen() bool {
	if b.subs != nil {
		return false
	}
	subject := b.bus.subjects.Bell(b.engine)
	for _, s := range []string{subject, subject + ".*"} {
		sub, err := b.bus.nc.QueueSubscribe(s, b.engine, b.hear)
		if err != nil {
			b.ignore()
			return false
		}
		b.subs = append(b.subs, sub)
	}
	return true
}

func (b *bell) hear(m *nats.Msg) {
	for i, priority := range contracts.Priorities {
		if priority == contracts.PriorityNormal && m.Subject == b.bus.subjects.Bell(b.engine) || strings.HasSuffix(m.Subject, "."+priority) {
			b.rung.Or(1 << i)
		}
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// ignore ends hearing, so that another instance hears.
func (b *bell) ignore() {
	for _, sub := range b.subs {
		sub.Unsubscribe()
	}
	b.subs = nil
}

// take returns what rang since the last call.
func (b *bell) take() rung { return rung(b.rung.Swap(0)) }

// ring passes the bell of a priority on to another instance.
func (b *bell) ring(priority string) {
	subject := b.bus.subjects.Bell(b.engine)
	if priority != contracts.PriorityNormal {
		subject += "." + priority
	}
	b.bus.nc.Publish(subject, nil)
}

// wait returns at a ring, a tick (then true), or the end of ctx.
func (b *bell) wait(ctx context.Context) (ticked bool) {
	timer := time.NewTimer(tick/2 + rand.N(tick/2))
	defer timer.Stop()
	select {
	case <-b.wake:
		return false
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
