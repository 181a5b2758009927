package docker

import (
	"context"
	"sync"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// warm keeps containers that were made ahead. Each has started and waits in its first process for a request, which holds all that
// differs between the runs of a contract; what it is itself, image, user, mounts, limits, network, is its plan. So a run finds in
// it exactly what it would find in one that was made for it, and as it serves one run and is removed, nothing of another.
//
// How many there are of a kind is learnt from use: as many as there were runs of it at a time lately, which is between once and twice
// MaxAge. What is not used for a while goes, and for what was used once there is none: contracts that come with their requests may never be seen again.
type warm struct {
	engine *Engine
	most   Warm

	mu     sync.Mutex
	kinds  map[string]*kind
	total  int // that wait, or are being made
	closed bool
	makers chan struct{} // how many are made at a time
	work   sync.WaitGroup
}

// kind is what there is of one plan.
type kind struct {
	plan    *plan
	waiting []*box // the oldest first
	making  int
	again   bool // it was used more than once
	busy    int  // runs
	peak    int  // the most runs at a time since the time after it
	since   time.Time
	before  int // the peak of the time before that
	used    time.Time
	failed  time.Time // when one could not be made
}

// mostMakers is how many containers are made ahead at a time: those that a run waits for come first.
const mostMakers = 2

func newWarm(e *Engine, most Warm) *warm {
	if most.Memory > 0 {
		most.Total = min(most.Total, int(most.Memory/WarmCost))
	}
	return &warm{engine: e, most: most, kinds: map[string]*kind{}, makers: make(chan struct{}, mostMakers)}
}

// serves reports whether containers of a plan are made ahead. None that has rights over the host waits for something to do, and
// none holds a device that others could use. Where the first process cannot tell what was mounted, that has to have happened just now.
func (w *warm) serves(p *plan) bool {
	return w.most.Each > 0 && w.most.Total > 0 && !p.host.Privileged && len(p.host.DeviceRequests) == 0 && (!p.apart || len(p.mounts) == 0)
}

// take begins a run of a plan. It returns a container that waits for it, nil where there is none, and what ends the run's use.
func (w *warm) take(p *plan) (*box, func()) {
	key := p.key()
	if !w.serves(p) || key == "" {
		return nil, func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds[key]
	if k == nil {
		k = &kind{plan: p, since: time.Now()}
		w.kinds[key] = k
	} else {
		k.again = true
	}
	k.busy++
	k.used = time.Now()
	k.peak = max(k.peak, k.busy)
	var b *box
	for b == nil && len(k.waiting) > 0 {
		b, k.waiting = k.waiting[0], k.waiting[1:]
		w.total--
		if b.dead() || time.Since(b.created) > w.most.MaxAge {
			w.work.Go(b.discard)
			b = nil
		}
	}
	w.fill(k)
	return b, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		k.busy--
		w.fill(k)
	}
}

// wanted is how many of a kind are to wait. The lock is held.
func (w *warm) wanted(k *kind) int {
	if !k.again {
		return 0
	}
	return min(max(k.peak, k.before), w.most.Each)
}

// fill makes what is missing of a kind, in the background. The lock is held.
func (w *warm) fill(k *kind) {
	for !w.closed && len(k.waiting)+k.making < w.wanted(k) && time.Since(k.failed) > w.most.MaxAge/10 {
		if w.total >= w.most.Total && !w.evict(k) {
			return
		}
		k.making++
		w.total++
		w.work.Go(func() { w.make(k) })
	}
}

// evict removes one that waits of the kind that was not used for longest. The lock is held.
func (w *warm) evict(besides *kind) bool {
	var last *kind
	for _, k := range w.kinds {
		if k != besides && len(k.waiting) > 0 && k.used.Before(besides.used) && (last == nil || k.used.Before(last.used)) {
			last = k
		}
	}
	if last == nil {
		return false
	}
	w.drop(last, 0)
	return true
}

// drop removes one that waits. The lock is held.
func (w *warm) drop(k *kind, i int) {
	b := k.waiting[i]
	k.waiting = append(k.waiting[:i:i], k.waiting[i+1:]...)
	w.total--
	w.work.Go(b.discard)
}

func (w *warm) make(k *kind) {
	ctx := w.engine.background
	var b *box
	var err error
	select {
	case w.makers <- struct{}{}:
		labels := w.engine.labels(roleWarm, w.engine.deadline(k.plan))
		b, err = w.engine.open(ctx, k.plan, labels)
		<-w.makers
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	k.making--
	switch {
	case err != nil:
		w.total--
		k.failed = time.Now() // the run that needs one will say why
		if ctx.Err() == nil {
			w.engine.log.Debug().Str("reason", contracts.AsError(err).Message).Msg("a container cannot be made ahead")
		}
	case w.closed:
		w.total--
		w.work.Go(b.discard)
	default:
		k.waiting = append(k.waiting, b)
	}
}

// keep removes what is too old, or of no use any more, until ctx ends.
func (w *warm) keep(ctx context.Context) {
	if w.most.Total == 0 || w.most.Each == 0 {
		return
	}
	ticks := time.NewTicker(max(w.most.MaxAge/20, 10*time.Millisecond))
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			w.age()
		case <-ctx.Done():
			return
		}
	}
}

func (w *warm) age() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, k := range w.kinds {
		unused := time.Since(k.used) > w.most.MaxAge && k.busy == 0
		for i := len(k.waiting) - 1; i >= 0; i-- {
			if b := k.waiting[i]; unused || b.dead() || time.Since(b.created) > w.most.MaxAge {
				w.drop(k, i)
			}
		}
		if time.Since(k.since) > w.most.MaxAge {
			k.before, k.peak, k.since = k.peak, k.busy, time.Now()
		}
		for len(k.waiting) > w.wanted(k) {
			w.drop(k, 0)
		}
		switch {
		case unused && k.making == 0:
			delete(w.kinds, key)
		case !unused:
			w.fill(k)
		}
	}
}

// close removes all that wait.
func (w *warm) close() {
	w.mu.Lock()
	w.closed = true
	for _, k := range w.kinds {
		for len(k.waiting) > 0 {
			w.drop(k, 0)
		}
	}
	w.mu.Unlock()
	w.work.Wait()
}

// waits is how many containers wait for a run.
func (w *warm) waits() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.kinds {
		n += len(k.waiting)
	}
	return n
}
