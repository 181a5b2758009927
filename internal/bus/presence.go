package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Times of presence. Beyond crowd instances all of them are stretched, because refreshing a key costs the server more
// the more there are.
const (
	presenceEvery = 3 * time.Second
	presenceTTL   = 10 * time.Second
	presenceCache = time.Second
	// presenceSettles is how long after a reconnect it is not believed that somebody is not there.
	presenceSettles = 5 * time.Second
	crowd           = 50
	crowdFactor     = 10
)

// Presence tells the fleet about this instance, and asks it about the others.
type Presence struct {
	bus   *Bus
	state func() contracts.Presence

	now   chan struct{}
	reads sync.WaitGroup

	mu      sync.Mutex
	last    *census
	ended   bool          // Announce has ended: nobody would wait for a read that begins now
	told    bool          // the fleet knows of us
	many    bool          // it is a crowd
	back    time.Time     // when the connection was made anew
	settles time.Duration // how long the others may take then to tell that they are there
}

// Presence makes the presence of this instance; state is asked for what to tell.
func (b *Bus) Presence(state func() contracts.Presence) *Presence {
	return &Presence{bus: b, state: state, now: make(chan struct{}, 1), settles: presenceSettles}
}

// Announce tells the fleet about this instance until ctx ends, then that it is gone. Trouble is logged once, not each
// time: the executor works without presence.
func (p *Presence) Announce(ctx context.Context) {
	failing := false
	back := make(chan struct{}, 1)
	defer func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.reads.Wait()
	}()
	p.bus.OnReconnect(func() { // a server that was restarted has forgotten us
		p.mu.Lock()
		p.back = time.Now()
		p.mu.Unlock()
		select {
		case back <- struct{}{}:
		default:
		}
	})
	for {
		err := p.put(ctx)
		if err != nil && ctx.Err() == nil && p.bus.Connected() && !failing {
			p.bus.log.Warn().Err(p.bus.explain(err)).Msg("cannot tell the fleet that this executor is there")
		}
		wait := p.stretch(presenceEvery)
		if failing = err != nil; failing {
			wait = presenceCache
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-back:
			timer.Stop()
		case <-p.now:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			p.remove()
			return
		}
	}
}

// Changed has Announce tell the fleet again at once: something about this instance is new.
func (p *Presence) Changed() {
	select {
	case p.now <- struct{}{}:
	default:
	}
}

// stretch makes times of presence longer in a large fleet.
func (p *Presence) stretch(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.many {
		return crowdFactor * d
	}
	return d
}

// Tell tells the fleet about this instance now. Announce does so from time to time; after Tell the first question already
// finds it.
func (p *Presence) Tell(ctx context.Context) error { return p.bus.explain(p.put(ctx)) }

func (p *Presence) put(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, _ = p.Fleet(ctx) // how crowded it is
	value, err := encode(p.state())
	if err != nil {
		return err
	}
	// As bucket.Put, with a TTL for this key: that of the bucket has to fit the largest fleet.
	subject := "$KV." + p.bus.streams.executors.Bucket() + "." + p.bus.name
	tell := func() error {
		_, err := p.bus.js.Publish(ctx, subject, value, jetstream.WithMsgTTL(p.stretch(presenceTTL)))
		return err
	}
	if err := tell(); err != nil {
		// The bucket is in memory: a restart of the server forgets it.
		if _, err := p.bus.ensureBucket(ctx, p.bus.executorsBucket(), mend, &Declared{}); err != nil {
			return err
		}
		if err := tell(); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told { // what was read before does not have us: whoever asks first would hear that nobody is there
		p.told, p.last = true, nil
	}
	return nil
}

func (p *Presence) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.bus.streams.executors.Delete(ctx, p.bus.name)
}

// Fleet lists the instances that are there, by name. What it knows is at most a second old; those who ask meanwhile wait for
// one answer. It waits no longer than ctx.
func (p *Presence) Fleet(ctx context.Context) ([]contracts.Presence, error) {
	l, err := p.look(ctx)
	return l.fleet, err
}

// Serving is who is ready to serve which engine, by engine the names of instances; not to be changed. It is false where that
// cannot be told: presence is in memory, a server that was restarted has forgotten it, and until all have told it again an
// engine would seem to be gone.
func (p *Presence) Serving(ctx context.Context) (map[string][]string, bool) {
	l, err := p.look(ctx)
	return l.serving, err == nil && l.whole
}

// census is what was read at one time.
type census struct {
	done    chan struct{} // closed when the rest is there
	read    time.Time
	fleet   []contracts.Presence
	serving map[string][]string
	whole   bool // we see ourselves, and all had time to tell that they are there
	err     error
}

func (p *Presence) look(ctx context.Context) (*census, error) {
	p.mu.Lock()
	l := p.last
	if l == nil || isClosed(l.done) && time.Since(l.read) >= presenceCache {
		if p.ended {
			p.mu.Unlock()
			return &census{}, errors.New("read who is there: this executor is stopping")
		}
		l = &census{done: make(chan struct{})}
		p.last = l
		p.reads.Go(func() { p.read(l) })
	}
	p.mu.Unlock()
	select {
	case <-l.done:
		return l, l.err
	case <-ctx.Done():
		return &census{}, context.Cause(ctx)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// read reads the bucket. A failure counts as long as an answer does.
func (p *Presence) read(l *census) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	defer close(l.done)
	l.fleet, l.err = p.bus.fleet(ctx)
	l.read = time.Now()
	if l.err != nil {
		return
	}
	l.serving = contracts.Serving(l.fleet)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.many = len(l.fleet) > crowd
	l.whole = time.Since(p.back) > p.settles && slices.ContainsFunc(l.fleet, func(one contracts.Presence) bool { return one.Name == p.bus.name })
}

// fleet reads who is there.
func (b *Bus) fleet(ctx context.Context) ([]contracts.Presence, error) {
	bucket := b.streams.executors
	watcher, err := bucket.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read bucket %s: %w", bucket.Bucket(), err)
	}
	defer watcher.Stop()
	var fleet []contracts.Presence
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil { // all of it was read
				slices.SortFunc(fleet, func(a, b contracts.Presence) int { return strings.Compare(a.Name, b.Name) })
				return fleet, nil
			}
			var one contracts.Presence
			if err := json.Unmarshal(entry.Value(), &one); err == nil {
				fleet = append(fleet, one)
			}
		case <-ctx.Done():
			return nil, errors.New("read who is there: no answer in time")
		}
	}
}
