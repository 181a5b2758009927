package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// leases keeps the requests that are being handled from being given to somebody else: it tells the server "in progress"
// at a third of the ack-wait, and at once after a reconnect.
type leases struct {
	bus  *Bus
	mu   sync.Mutex
	held map[jetstream.Msg]*lease
	stop chan struct{}
	done sync.WaitGroup
}

// lease is what we know of one.
type lease struct {
	renewed time.Time
	lost    bool // it was not renewed in time: the request may be somebody else's by now
}

func newLeases(b *Bus) *leases {
	l := &leases{bus: b, held: map[jetstream.Msg]*lease{}, stop: make(chan struct{})}
	b.OnReconnect(l.beat)
	l.done.Go(func() {
		ticker := time.NewTicker(time.Duration(b.config.AckWait) / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				l.beat()
			case <-l.stop:
				return
			}
		}
	})
	return l
}

func (l *leases) hold(m jetstream.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[m] = &lease{renewed: time.Now()}
}

func (l *leases) drop(m jetstream.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, m)
}

// beat renews all leases. Where there is no connection the next reconnect renews them.
func (l *leases) beat() {
	connected := l.bus.Connected()
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, one := range l.held {
		l.age(one)
		if connected && m.InProgress() == nil {
			one.renewed = time.Now()
		}
	}
}

// lost reports whether a lease was over at some time: this process was stopped, or the server away. The request may be somebody
// else's since, even if it was renewed then.
func (l *leases) lost(m jetstream.Msg) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.held[m]
	if one == nil {
		return false
	}
	l.age(one)
	return one.lost
}

func (l *leases) age(one *lease) {
	if time.Since(one.renewed) > time.Duration(l.bus.config.AckWait) {
		one.lost = true
	}
}

func (l *leases) close() {
	close(l.stop)
	l.done.Wait()
}
