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
	held map[jetstream.Msg]struct{}
	stop chan struct{}
	done sync.WaitGroup
}

func newLeases(b *Bus) *leases {
	l := &leases{bus: b, held: map[jetstream.Msg]struct{}{}, stop: make(chan struct{})}
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
	l.held[m] = struct{}{}
}

func (l *leases) drop(m jetstream.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, m)
}

// beat renews all leases. An error means that there is no connection: the next reconnect renews them.
func (l *leases) beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range l.held {
		m.InProgress()
	}
}

func (l *leases) close() {
	close(l.stop)
	l.done.Wait()
}
