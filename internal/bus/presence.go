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
	crowd         = 50
	crowdFactor   = 10
)

// Presence tells the fleet about this instance, and asks it about the others.
type Presence struct {
	bus   *Bus
	state func() contracts.Presence

	mu    sync.Mutex
	known []contracts.Presence
	read  time.Time
	told  bool // the fleet knows of us
	now   chan struct{}
}

// Presence makes the presence of this instance; state is asked for what to tell.
func (b *Bus) Presence(state func() contracts.Presence) *Presence {
	return &Presence{bus: b, state: state, now: make(chan struct{}, 1)}
}

// Announce tells the fleet about this instance until ctx ends, then that it is gone. Trouble is logged once, not each
// time: the executor works without presence.
func (p *Presence) Announce(ctx context.Context) {
	failing := false
	back := make(chan struct{}, 1)
	p.bus.OnReconnect(func() { // a server that was restarted has forgotten us
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
		failing = err != nil
		timer := time.NewTimer(p.stretch(presenceEvery))
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
	if len(p.known) > crowd {
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
	if _, err := p.Fleet(ctx); err != nil { // also how crowded it is
		// The bucket is in memory: a restart of the server forgets it.
		if _, err := p.bus.ensureBucket(ctx, p.bus.executorsBucket(), mend, &Declared{}); err != nil {
			return err
		}
	}
	value, err := encode(p.state())
	if err != nil {
		return err
	}
	// As bucket.Put, with a TTL for this key: that of the bucket has to fit the largest fleet.
	subject := "$KV." + p.bus.streams.executors.Bucket() + "." + p.bus.name
	if _, err = p.bus.js.Publish(ctx, subject, value, jetstream.WithMsgTTL(p.stretch(presenceTTL))); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told { // what was read before does not have us: whoever asks first would hear that nobody is there
		p.told, p.read = true, time.Time{}
	}
	return nil
}

func (p *Presence) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.bus.streams.executors.Delete(ctx, p.bus.name)
}

// Fleet lists the instances that are there, by name. What it knows is at most a second old.
func (p *Presence) Fleet(ctx context.Context) ([]contracts.Presence, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.read) < presenceCache {
		return p.known, nil
	}
	bucket := p.bus.streams.executors
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
				p.known, p.read = fleet, time.Now()
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
