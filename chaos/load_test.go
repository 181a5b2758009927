//go:build linux

package chaos_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// everyday is what most scenarios ask for: mostly short tools, and some of all that can happen.
var everyday = []string{
	"touch", "touch", "touch", "touch", "touch", "touch", "touch", "touch", "touch", "touch",
	"print", "print", "print", "long print", "nap", "long nap", "flood", "litter", "fail", "too long", "cancelled",
}

// long is for faults that only those feel who run something at the time.
var long = []string{"long nap", "long print", "touch", "touch", "print", "nap"}

// load is a stream of requests.
type load struct {
	fleet *fleet
	ids   string // begin of all ids
	sent  sync.WaitGroup

	mu       sync.Mutex
	requests []*request // known to be stored
	untold   int        // of which that is not known: the servers were away for too long
}

// ask asks for n requests of those kinds in turn, evenly over that time, and returns at once.
func (f *fleet) ask(n int, over time.Duration, kinds ...string) *load {
	l := &load{fleet: f, ids: "c" + rand.Text()[:16]}
	random := f.random
	list := make([]*request, n)
	for i := range list {
		list[i] = newRequest(kinds[i%len(kinds)], fmt.Sprintf("%s-%d", l.ids, i), random)
	}
	random.Shuffle(n, func(i, k int) { list[i], list[k] = list[k], list[i] })
	l.sent.Go(func() {
		pace := time.NewTicker(max(over/time.Duration(n), 100*time.Microsecond))
		defer pace.Stop()
		for _, r := range list {
			l.sent.Go(func() { l.hand(r) })
			<-pace.C
		}
	})
	f.t.Cleanup(l.sent.Wait)
	return l
}

// handWait is how long a request is published again and again until the server says that it is stored.
const handWait = 60 * time.Second

// hand publishes a request to its queue until that is acknowledged. From then on it is a promise.
func (l *load) hand(r *request) {
	body := map[string]any{"id": r.id, "tool": r.tool, "args": r.args}
	if r.timeout > 0 {
		body["timeout"] = r.timeout
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // texts and numbers
	}
	msg := nats.NewMsg("tools.exec.local")
	if r.priority != "" {
		msg.Subject += "." + r.priority
	}
	msg.Data = text
	msg.Header.Set(nats.MsgIdHdr, r.id+".0.local")
	stored := l.until(func(ctx context.Context) error {
		_, err := l.fleet.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
		return err
	})
	l.mu.Lock()
	if stored {
		r.stored = time.Now()
		l.requests = append(l.requests, r)
	} else {
		l.untold++
	}
	l.mu.Unlock()
	if stored && r.cancel {
		// While it runs, if it comes to that soon; else it is stopped while it waits.
		poll(5*time.Second, func() bool { return l.fleet.wasStarted(r.id) })
		if !l.until(func(ctx context.Context) error {
			_, err := l.fleet.js.Publish(ctx, "tools.cancel."+r.id, nil)
			return err
		}) {
			l.fleet.t.Errorf("the cancel of %s could not be stored", r.id)
		}
	}
}

// until tries until it succeeds, or no server has answered for too long.
func (l *load) until(try func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), handWait)
	defer cancel()
	for ctx.Err() == nil {
		once, done := context.WithTimeout(ctx, 2*time.Second)
		err := try(once)
		done()
		if err == nil {
			return true
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return false
		}
		time.Sleep(50 * time.Millisecond) // the servers are away: not a wait for anything else
	}
	return false
}

// stored waits until all were handed in, and returns those that are known to be stored.
func (l *load) stored() []*request {
	l.sent.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.untold > 0 {
		l.fleet.t.Errorf("%d requests could not be handed in within %s", l.untold, handWait)
	}
	return l.requests
}
