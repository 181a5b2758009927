package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Times of limits.
const (
	// placeIdle is how long an instance keeps a place that none of its runs uses: the next run of the same tool, which
	// often comes at once, then needs no word with the server.
	placeIdle = 25 * time.Millisecond
	// placeTenure is how long an instance may hand a place from run to run before others get a chance.
	placeTenure = time.Second
	// placePoll is how often an instance looks for a free place while runs of its wait for one.
	// It is longer each time none was.
	placePoll     = 20 * time.Millisecond
	placePollMost = 400 * time.Millisecond
)

// limits bound how many runs there are at a time in the fleet. A limit of n has n places, each a subject of the limits stream
// with at most one message: who stored it has the place. It is renewed as leases are, and ends by its TTL, one ack-wait after
// the death of its holder. Instances hold places, and lend them to their runs.
type limits struct {
	bus *Bus
	ttl time.Duration

	mu   sync.Mutex
	open map[string]*limit // with places held, or waited for, by hash
	back chan struct{}     // the server is there again
	stop chan struct{}
	done sync.WaitGroup
}

// limit is one limit as this instance knows it.
type limit struct {
	limits *limits
	hash   string
	about  placeMessage
	idle   []*place
	places map[int]*place // held here, by number
	queue  []chan *place  // runs that wait, the longest first
	polled bool           // a goroutine looks for free places
	users  int            // calls under way that know it
}

// placeMessage is what is stored about a place.
type placeMessage struct {
	Tool     string `json:"tool"`
	Key      string `json:"key"`
	Executor string `json:"executor"`
	Lease    string `json:"lease"`
}

// place is one that this instance holds.
type place struct {
	limit *limit
	n     int
	seq   uint64 // of its message
	lease string // in its message, so that we know it again
	since time.Time
	timer *time.Timer // until it is given back, while idle
	lost  bool        // somebody else has it by now
}

func newLimits(b *Bus) *limits {
	l := &limits{bus: b, open: map[string]*limit{}, back: make(chan struct{}, 1), stop: make(chan struct{}), ttl: max(time.Second, time.Duration(b.config.AckWait).Truncate(time.Second))}
	b.OnReconnect(func() {
		select {
		case l.back <- struct{}{}:
		default:
		}
	})
	l.done.Go(func() {
		ticker := time.NewTicker(l.ttl / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				l.renew()
			case <-l.back:
				l.renew()
			case <-l.stop:
				return
			}
		}
	})
	return l
}

// Limit is a bound on runs with the same tool and key.
type Limit struct {
	limits    *limits
	tool, key string
	n         int
}

// Limit returns the limit of n runs for a tool and a key.
func (b *Bus) Limit(tool, key string, n int) Limit { return Limit{b.limits, tool, key, n} }

// Try takes a place if there is one now; free gives it back. It is nil where there is none.
func (t Limit) Try(ctx context.Context) (free func(), err error) {
	l := t.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of(t)
	one.users++
	defer func() { one.users--; l.forget(one) }()
	if len(one.queue) > 0 {
		return nil, nil // others were here before
	}
	if p := one.take(); p != nil {
		return p.free, nil
	}
	p, err := one.acquire(ctx, t.n)
	if p == nil {
		return nil, err
	}
	return p.free, nil
}

// Wait waits for a place until ctx ends.
func (t Limit) Wait(ctx context.Context) (free func(), err error) {
	l := t.limits
	mine := make(chan *place, 1)
	l.mu.Lock()
	one := l.of(t)
	one.queue = append(one.queue, mine)
	if !one.polled {
		one.polled = true
		l.done.Go(func() { one.poll(t.n) })
	}
	l.mu.Unlock()
	select {
	case p := <-mine:
		return p.free, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range one.queue {
		if c == mine {
			one.queue = append(one.queue[:i], one.queue[i+1:]...)
			l.forget(one)
			return nil, context.Cause(ctx)
		}
	}
	p := <-mine // it was given meanwhile
	p.release()
	return nil, context.Cause(ctx)
}

// of returns the limit, known or new. The same tool with another number, as versions of it may have, is another limit. All methods below are called with the lock.
func (l *limits) of(t Limit) *limit {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", t.tool, t.key, t.n))
	hash := hex.EncodeToString(sum[:8])
	one := l.open[hash]
	if one == nil {
		one = &limit{limits: l, hash: hash, about: placeMessage{Tool: t.tool, Key: t.key, Executor: l.bus.name}, places: map[int]*place{}}
		l.open[hash] = one
	}
	return one
}

func (l *limits) forget(one *limit) {
	if len(one.places) == 0 && len(one.queue) == 0 && !one.polled && one.users == 0 {
		delete(l.open, one.hash)
	}
}

// take takes a place that is held here and idle.
func (one *limit) take() *place {
	if len(one.idle) == 0 {
		return nil
	}
	p := one.idle[len(one.idle)-1]
	one.idle = one.idle[:len(one.idle)-1]
	p.timer.Stop()
	return p
}

// acquire takes a place from the server: one at random first, then one that is free. nil where all are taken. The lock is
// open while the server is asked.
func (one *limit) acquire(ctx context.Context, n int) (*place, error) {
	if len(one.places) >= n {
		return nil, nil
	}
	number := rand.IntN(n)
	for one.places[number] != nil {
		number = (number + 1) % n
	}
	p, err := one.claim(ctx, number)
	if p != nil || err != nil || n == 1 {
		return p, err
	}
	one.limits.mu.Unlock()
	taken, err := one.limits.taken(ctx, one.hash)
	one.limits.mu.Lock()
	if err != nil {
		return nil, err
	}
	for tries, i := 0, 0; i < n && tries < 3; i++ {
		number = (number + 1) % n
		if taken[number] || one.places[number] != nil {
			continue
		}
		tries++
		if p, err := one.claim(ctx, number); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// claim stores the message of a place that is free; nil where it is not.
func (one *limit) claim(ctx context.Context, number int) (*place, error) {
	l := one.limits
	p := &place{limit: one, n: number, lease: nuid.Next(), since: time.Now()}
	one.places[number] = p // so that nobody else here tries it
	l.mu.Unlock()
	seq, err := l.store(ctx, p, 0)
	l.mu.Lock()
	if seq == 0 {
		delete(one.places, number)
		return nil, err
	}
	p.seq = seq
	return p, nil
}

// store stores the message of a place, if the last one there is still the one at after; 0 where it is not.
func (l *limits) store(ctx context.Context, p *place, after uint64) (uint64, error) {
	msg := nats.NewMsg(l.bus.subjects.Limit(p.limit.hash, strconv.Itoa(p.n)))
	about := p.limit.about
	about.Lease = p.lease
	data, err := encode(about)
	if err != nil {
		return 0, err
	}
	msg.Data = data
	ack, err := l.bus.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(after), jetstream.WithMsgTTL(l.ttl))
	if isWrongSequence(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// taken are the places of a limit that somebody has.
func (l *limits) taken(ctx context.Context, hash string) (map[int]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := l.bus.streams.limits.Info(ctx, jetstream.WithSubjectFilter(l.bus.subjects.Limit(hash, "*")))
	if err != nil {
		return nil, err
	}
	prefix := len(l.bus.subjects.Limit(hash, ""))
	taken := map[int]bool{}
	for subject := range info.State.Subjects {
		if number, err := strconv.Atoi(subject[prefix:]); err == nil {
			taken[number] = true
		}
	}
	return taken, nil
}

// free gives a place back: to a run that waits here, else, a little later, to the fleet.
func (p *place) free() {
	p.limit.limits.mu.Lock()
	defer p.limit.limits.mu.Unlock()
	p.release()
}

func (p *place) release() {
	one := p.limit
	tenured := time.Since(p.since) > placeTenure
	switch {
	case p.lost:
		one.limits.forget(one)
	case tenured:
		p.giveBack()
	case len(one.queue) > 0:
		one.serve(p)
	default:
		one.idle = append(one.idle, p)
		p.timer = time.AfterFunc(placeIdle, func() {
			one.limits.mu.Lock()
			defer one.limits.mu.Unlock()
			for i, other := range one.idle {
				if other == p {
					one.idle = append(one.idle[:i], one.idle[i+1:]...)
					p.giveBack()
					return
				}
			}
		})
	}
}

// serve gives a place to the run that has waited longest.
func (one *limit) serve(p *place) {
	one.queue[0] <- p
	one.queue = one.queue[1:]
}

// giveBack removes the message of a place. If the server does not hear it, the place is free when its TTL ends.
func (p *place) giveBack() {
	one := p.limit
	delete(one.places, p.n)
	one.limits.forget(one)
	one.limits.remove(p.seq)
}

func (l *limits) remove(seq uint64) {
	l.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if err := l.bus.streams.limits.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			l.bus.log.Debug().Err(err).Msg("a place of a limit was not given back; it is free when its time ends")
		}
	})
}

// poll looks for free places while runs wait here.
func (one *limit) poll(n int) {
	l := one.limits
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { one.polled = false; l.forget(one) }()
	wait := placePoll
	for len(one.queue) > 0 {
		p, err := one.acquire(ctx, n)
		if p != nil {
			wait = placePoll
		}
		if p != nil && len(one.queue) > 0 {
			one.serve(p)
			continue
		} else if p != nil {
			p.release()
			continue
		}
		l.mu.Unlock()
		if err != nil {
			wait = placePollMost
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, placePollMost)
			l.mu.Lock()
		case <-l.stop:
			l.mu.Lock()
			return
		}
	}
}

// renew renews all places that are held here, many at a time.
func (l *limits) renew() {
	l.mu.Lock()
	var held []*place
	for _, one := range l.open {
		for _, p := range one.places {
			if p.seq != 0 {
				held = append(held, p)
			}
		}
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), l.ttl/3)
	defer cancel()
	var all sync.WaitGroup
	at := make(chan struct{}, 64)
	for _, p := range held {
		at <- struct{}{}
		all.Go(func() {
			defer func() { <-at }()
			l.renewOne(ctx, p)
		})
	}
	all.Wait()
}

func (l *limits) renewOne(ctx context.Context, p *place) {
	seq, err := l.store(ctx, p, p.seq)
	if err == nil && seq == 0 {
		seq, err = l.again(ctx, p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := p.limit
	switch {
	case err != nil:
	case one.places[p.n] != p && seq != 0: // given back meanwhile
		l.remove(seq)
	case one.places[p.n] != p:
	case seq != 0:
		p.seq = seq
	default:
		l.bus.log.Warn().Str("limit", one.hash).Str("tool", one.about.Tool).Msg("a place of a limit was lost, because this executor was stopped or NATS away for too long; its run goes on, beside that of whoever has the place now")
		p.lost = true
		delete(one.places, p.n)
		for i, other := range one.idle {
			if other == p {
				p.timer.Stop()
				one.idle = append(one.idle[:i], one.idle[i+1:]...)
				break
			}
		}
	}
}

// again deals with a place whose message is not the one that we know: the answer to a renewal was lost, and it is ours; or it
// ended, and is free for whoever is faster. 0: it is somebody else's.
func (l *limits) again(ctx context.Context, p *place) (uint64, error) {
	is, err := last(ctx, l.bus.streams.limits, l.bus.subjects.Limit(p.limit.hash, strconv.Itoa(p.n)))
	if err != nil {
		return 0, err
	}
	if is == nil {
		return l.store(ctx, p, 0)
	}
	var message placeMessage
	if json.Unmarshal(is.Data, &message) == nil && message.Lease == p.lease {
		return is.Sequence, nil
	}
	return 0, nil
}

// close gives all places back that are idle. Runs have ended.
func (l *limits) close() {
	close(l.stop)
	l.mu.Lock()
	for _, one := range l.open {
		for _, p := range one.idle {
			p.timer.Stop()
			p.giveBack()
		}
		one.idle = nil
	}
	l.mu.Unlock()
	l.done.Wait()
}
