package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Times of the care for engines that nobody serves. Variables for tests.
var (
	// unservedGrace is how long an engine is not served until its requests are answered by others: longer than a restart of
	// the only instance takes, and than presence needs to be there again after a restart of NATS.
	unservedGrace = 6 * time.Second
	unservedEvery = 2 * time.Second
)

const (
	unservedSlots   = 8                // requests of unserved engines handled at a time
	unservedEngines = 16               // engines cared for in one round: anybody can make up names
	unservedIdle    = 30 * time.Second // after which the server removes the consumers of a made-up engine
)

// Unserved takes requests of engines that nobody serves, so that they are answered, or passed on to an engine that is.
type Unserved struct {
	bus    *Bus
	fleet  func(context.Context) ([]contracts.Presence, error)
	handle Handler
	kicked chan string
	since  map[string]time.Time // engines with requests that nobody serves
	loops  map[string]*loop     // of engines that we know
	slots  *Slots
}

// Unserved makes the care for unserved engines. fleet says who is there.
func (b *Bus) Unserved(fleet func(context.Context) ([]contracts.Presence, error), handle Handler) *Unserved {
	return &Unserved{bus: b, fleet: fleet, handle: handle, kicked: make(chan string, 64), since: map[string]time.Time{}, loops: map[string]*loop{}, slots: NewSlots(unservedSlots)}
}

// Kick has the requests of an engine looked after now: somebody knows already that it is not served.
func (u *Unserved) Kick(engine string) {
	select {
	case u.kicked <- engine:
	default: // the next round finds it
	}
}

// Care looks after unserved engines until take ends. Handlers run in work.
func (u *Unserved) Care(take, work context.Context) {
	for {
		timer := time.NewTimer(unservedEvery/2 + rand.N(unservedEvery))
		var engines []string
		waits := []time.Duration{0}
		select {
		case engine := <-u.kicked:
			timer.Stop()
			if serving, ok := u.serving(take); ok && len(serving[engine]) == 0 {
				engines = []string{engine}
				waits = []time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond} // until the consumer has what was stored
			}
		case <-timer.C:
			engines = u.round(take)
		case <-take.Done():
			timer.Stop()
			return
		}
		for _, engine := range engines {
			if err := u.drain(take, work, engine, waits); err != nil && take.Err() == nil && u.bus.Connected() {
				u.bus.log.Warn().Err(u.bus.explain(err)).Str("engine", engine).Msg("cannot look after the requests of an engine that nobody serves")
			}
		}
	}
}

// serving is who serves which engine; false where that cannot be told. An instance that does not see itself sees too
// little: presence is in memory, and a server that was restarted has forgotten it.
func (u *Unserved) serving(ctx context.Context) (map[string][]string, bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	fleet, err := u.fleet(ctx)
	if err != nil || !slices.ContainsFunc(fleet, func(p contracts.Presence) bool { return p.Name == u.bus.name }) {
		return nil, false
	}
	return contracts.Serving(fleet), true
}

// round returns the engines that have had requests and no instance for the grace.
func (u *Unserved) round(ctx context.Context) []string {
	serving, ok := u.serving(ctx)
	if !ok {
		clear(u.since)
		return nil
	}
	queued, err := u.queued(ctx)
	if err != nil {
		return nil // the server is away, and says so elsewhere
	}
	maps.DeleteFunc(u.since, func(engine string, _ time.Time) bool { return !queued[engine] || len(serving[engine]) > 0 })
	var due []string
	for engine := range queued {
		if len(serving[engine]) > 0 {
			continue
		}
		if since, known := u.since[engine]; !known {
			u.since[engine] = time.Now()
		} else if time.Since(since) >= unservedGrace && len(due) < unservedEngines {
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
		l = &loop{bus: u.bus, engine: engine, shared: u.slots, work: work, handle: u.handle}
		ctx, cancel := context.WithTimeout(take, requestTimeout)
		defer cancel()
		if err := l.open(ctx); err != nil {
			return err
		}
		if slices.Contains(contracts.Engines, engine) {
			u.loops[engine] = l
		}
	}
	defer l.running.Wait()
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
