package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// UnservedGrace is how long an engine is not served until others look after its requests: longer than a restart of its only
// instance takes, and than presence needs to be there again after a restart of NATS.
const UnservedGrace = 6 * time.Second

const (
	unservedSlots   = 8                // requests of unserved engines handled at a time
	unservedEngines = 16               // engines cared for in one round: anybody can make up names
	unservedIdle    = 30 * time.Second // after which the server removes the consumers of a made-up engine
)

// Unserved takes requests of engines that nobody serves, so that they are answered, or passed on to an engine that is.
type Unserved struct {
	Grace time.Duration // UnservedGrace, unless it is set before Care

	bus      *Bus
	presence *Presence
	handle   Handler
	kicked   chan string
	since    map[string]time.Time // engines with requests that nobody serves
	loops    map[string]*loop     // of engines that we know
	slots    *Slots
	running  sync.WaitGroup
	crowd    int // how much longer the rounds take in a large fleet
}

// Unserved makes the care for unserved engines.
func (b *Bus) Unserved(presence *Presence, handle Handler) *Unserved {
	return &Unserved{Grace: UnservedGrace, bus: b, presence: presence, handle: handle, kicked: make(chan string, 64),
		since: map[string]time.Time{}, loops: map[string]*loop{}, slots: NewSlots(unservedSlots), crowd: 1}
}

// Kick has the requests of an engine looked after now: somebody knows already that it is not served.
func (u *Unserved) Kick(engine string) {
	select {
	case u.kicked <- engine:
	default: // the next round finds it
	}
}

// Care looks after unserved engines until take ends, and returns when what it took is handled. Handlers run in work.
func (u *Unserved) Care(take, work context.Context) {
	defer u.running.Wait()
	timer := time.NewTimer(u.pause())
	defer timer.Stop()
	for {
		var engines []string
		waits := []time.Duration{0}
		select {
		case engine := <-u.kicked:
			if serving, ok := u.presence.Serving(take); ok && len(serving[engine]) == 0 {
				engines = []string{engine}
				waits = []time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond} // until the consumer has what was stored
			}
		case <-timer.C:
			engines = u.round(take)
			timer.Reset(u.pause())
		case <-take.Done():
			return
		}
		for _, engine := range engines {
			if err := u.drain(take, work, engine, waits); err != nil && take.Err() == nil && u.bus.Connected() {
				u.bus.log.Warn().Err(u.bus.explain(err)).Str("engine", engine).Msg("cannot look after the requests of an engine that nobody serves")
			}
		}
	}
}

// pause is the time to the next round, in which one of a large fleet is enough.
func (u *Unserved) pause() time.Duration {
	return time.Duration(u.crowd) * (u.Grace/6 + rand.N(u.Grace/3))
}

// round returns the engines that have had requests and no instance for the grace.
func (u *Unserved) round(ctx context.Context) []string {
	queued, err := u.queued(ctx)
	if err != nil {
		return nil // the server is away, and says so elsewhere
	}
	if len(queued) == 0 {
		clear(u.since)
		return nil
	}
	fleet, err := u.presence.Fleet(ctx)
	if _, ok := u.presence.Serving(ctx); err != nil || !ok {
		clear(u.since)
		return nil
	}
	u.crowd = 1 + len(fleet)/crowd
	there := contracts.Serving(fleet)
	for _, one := range fleet {
		if one.Drains { // it may be about to start again: the grace begins when it has gone
			for engine := range one.Engines {
				there[engine] = append(there[engine], one.Name)
			}
		}
	}
	maps.DeleteFunc(u.since, func(engine string, _ time.Time) bool { return !queued[engine] || len(there[engine]) > 0 })
	var due []string
	for engine := range queued {
		if len(there[engine]) > 0 {
			continue
		}
		if since, known := u.since[engine]; !known {
			u.since[engine] = time.Now()
		} else if time.Since(since) >= u.Grace && len(due) < unservedEngines {
			due = append(due, engine)
		}
	}
	return due
}

// queued are the engines with requests in their queues.
func (u *Unserved) queued(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := u.bus.streams.exec.Info(ctx, jetstream.WithSubjectFilter(u.bus.subjects.Prefix()+".exec.>"))
	if err != nil {
		return nil, err
	}
	engines := map[string]bool{}
	for subject := range info.State.Subjects {
		if engine, _, ok := u.bus.subjects.ParseExec(subject); ok {
			engines[engine] = true
		}
	}
	return engines, nil
}

// drain takes what is there now, after each of the waits until something was. All instances that care share the consumers, so
// that each request is taken once.
func (u *Unserved) drain(take, work context.Context, engine string, waits []time.Duration) error {
	l := u.loops[engine]
	if l == nil {
		l = &loop{bus: u.bus, engine: engine, shared: u.slots, work: work, handle: u.handle, running: &u.running}
		ctx, cancel := context.WithTimeout(take, requestTimeout)
		defer cancel()
		if err := l.open(ctx); err != nil {
			return err
		}
		if slices.Contains(contracts.Engines, engine) {
			u.loops[engine] = l
		}
	}
	for _, wait := range waits {
		select {
		case <-time.After(wait):
		case <-take.Done():
			return nil
		}
		l.lookInAll()
		found := false
		for u.slots.wait(take) {
			m := l.look(take, 0)
			if m == nil {
				u.slots.give()
				break
			}
			found = true
			l.start(take, m)
		}
		if found {
			return nil
		}
	}
	return nil
}

// plainName is what the server takes for the name of a consumer, and is no longer than it should be.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// consumerOf is the name of the consumer of a queue. Engines that we know have one for ever; those that somebody made up
// have one while their requests are looked after.
func (b *Bus) consumerOf(engine, priority string) (name string, idle time.Duration) {
	if slices.Contains(contracts.Engines, engine) {
		return b.subjects.Consumer(engine, priority), 0
	}
	if !plainName.MatchString(engine) {
		sum := sha256.Sum256([]byte(engine))
		engine = hex.EncodeToString(sum[:8])
	}
	return b.subjects.Consumer("unserved-"+engine, priority), unservedIdle
}
