package executor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// Executor handles deliveries. Its methods may be called by many goroutines.
type Executor struct {
	config   Config
	bus      Bus
	engines  map[string]engines.Engine
	registry *Registry
	ownInbox string
	log      zerolog.Logger
	health   *health

	mu   sync.Mutex
	runs map[string]*run // under way here, by id
}

// New makes an executor of engines by name. ownInbox is the subject below which executors get their own answers.
func New(config Config, bus Bus, engines map[string]engines.Engine, registry *Registry, ownInbox string, log zerolog.Logger) *Executor {
	return &Executor{config: config, bus: bus, engines: engines, registry: registry, ownInbox: ownInbox, log: log, health: newHealth(engines), runs: map[string]*run{}}
}

// run is one delivery on its way.
type run struct {
	executor *Executor
	delivery contracts.Delivery
	log      zerolog.Logger
	fetched  time.Time

	// decode
	request *contracts.Request
	id      string
	digest  string
	copies  contracts.Copies

	// admit
	contract *contracts.Contract
	spec     contracts.Spec
	args     map[string]any
	timeout  time.Duration
	record   contracts.Record
	attempt  int // the one to be started: claims before it, and one

	// route
	hop    int               // how often it was passed on to another engine
	tried  []contracts.Tried // engines that could not take it
	tries  int               // how often none could
	stored time.Time         // when the request was stored in its first queue; zero: this is it
	free   func()            // gives its place of a limit back; nil: it has none

	inherited bool // another message had the run, and left the queue without a result
	unknown   bool // nobody knows whether the tool ran, and it must not run twice

	// run
	ctx     context.Context // ends when the tool has to stop; its cause is a *stop
	cancel  context.CancelCauseFunc
	store   context.Context // ends when nothing can be stored any more
	journal Journal         // of the attempt; nil: not claimed
	output  *output
	started time.Time // of the tool; zero: not yet
	ended   time.Time
	stages  engines.Stages // of its preparation
}

// stop is why a run has to stop.
type stop struct {
	status contracts.Status // "": it did not fail; somebody else shall run it
	err    *contracts.Error
}

func (s *stop) Error() string { return s.err.Error() }

// errElsewhere means that the run belongs to somebody else now.
var errElsewhere = errors.New("the run belongs to another executor")

// Draining is the cause with which the context of Handle ends when an executor stops before its runs have: they are not
// failed, but left to others.
var Draining error = draining

var draining = &stop{err: contracts.Errorf(contracts.ExecutorLost, "the executor was stopped")}

// Handle takes one delivery to its result and says what becomes of it. When ctx ends, the tool is stopped; the cause
// Draining leaves the run to others.
func (e *Executor) Handle(ctx context.Context, d contracts.Delivery) (settlement contracts.Settlement) {
	r := &run{executor: e, delivery: d, fetched: time.Now(), log: e.log, request: &contracts.Request{}}
	defer func() {
		if p := recover(); p != nil {
			r.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("handling a request panicked")
			settlement = contracts.Settlement{Outcome: contracts.Again, Delay: againDelay(d), Reason: "panic"}
		}
	}()
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	var release func()
	r.store, release = lingering(ctx)
	defer release()

	if err := r.decode(); err != nil {
		return r.refuse(contracts.AsError(err))
	}
	if err := r.identify(r.ctx); err != nil {
		return r.interrupted(err)
	}
	switch other := e.enter(r); {
	case other == nil:
	case other.digest != r.digest:
		return r.beside()
	case other.delivery.Seq == d.Seq: // the server took us for dead; what it hears from that run holds for this delivery as well
		return contracts.Settlement{Outcome: contracts.Left}
	default:
		return r.again("the same run is under way here")
	}
	defer e.leave(r)
	defer r.giveBack()
	verdict, err := r.admit()
	if err != nil {
		return r.interrupted(err)
	}
	if verdict != nil {
		return *verdict
	}
	exit, err := r.run()
	return r.report(exit, err)
}

// enter notes a run as under way, unless one with its id is already: that one is returned.
func (e *Executor) enter(r *run) *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other := e.runs[r.id]; other != nil {
		return other
	}
	e.runs[r.id] = r
	return nil
}

// leave forgets a run. It may be called again.
func (e *Executor) leave(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs[r.id] == r {
		delete(e.runs, r.id)
	}
}

func (e *Executor) underWay() []*run {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*run, 0, len(e.runs))
	for _, r := range e.runs {
		list = append(list, r)
	}
	return list
}

// Cancel stops the run with that id, if it is under way here.
func (e *Executor) Cancel(id string) {
	e.mu.Lock()
	r := e.runs[id]
	e.mu.Unlock()
	if r != nil {
		r.cancel(&stop{contracts.Cancelled, contracts.Errorf(contracts.CancelledCode, "somebody asked for the run to stop")})
	}
}

// EndWaiting ends the run with that id if it waits for another start: nobody has it then who could hear that it was
// cancelled. A request that has not been taken yet is ended by whoever takes it.
func (e *Executor) EndWaiting(ctx context.Context, id string) {
	record, err := e.bus.Record(ctx, id, true)
	if status := record.Status; err != nil || record.Result != nil || status == nil || status.Type != contracts.TypeRetry || pause(status, time.Now()) == 0 {
		return
	}
	d, err := e.bus.Request(ctx, record.Status.ExecSeq)
	if err != nil || d == nil {
		return
	}
	r := &run{executor: e, delivery: *d, fetched: time.Now(), log: e.log, request: &contracts.Request{}, record: record, ctx: ctx, store: ctx}
	if r.decode() != nil || r.digest != record.Status.Digest {
		return
	}
	r.id = id // of a request that came without one, and was passed on
	if contract, _, _, err := e.examine(r.request, d.Engine); err == nil {
		r.contract = contract
	}
	r.attempt, r.hop = record.Status.Attempt+1, record.Status.Hop
	r.refuse(contracts.Errorf(contracts.CancelledCode, "somebody asked for the run to stop while it waited for another start"))
}

// LookForCancels asks for every run under way whether it is to be stopped: an ask can be missed while the bus is away.
func (e *Executor) LookForCancels(ctx context.Context) {
	for _, r := range e.underWay() {
		if asked, err := e.bus.Cancelled(ctx, r.id); err == nil && asked {
			e.Cancel(r.id)
		}
	}
}

// Keep does what runs under way need from time to time, until ctx ends: tells followers that they go on, and looks for
// cancels that were missed.
func (e *Executor) Keep(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for beat := 1; ; beat++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, r := range e.underWay() {
			r.sayRunning()
		}
		if beat%int(silence/time.Second) == 0 {
			e.LookForCancels(ctx)
		}
	}
}

// lingering is a context that outlives ctx by reportGrace, for what has to be stored about a run that was stopped.
func lingering(ctx context.Context) (context.Context, func()) {
	store, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var timer *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(reportGrace, func() { cancel(fmt.Errorf("not stored within %s after the executor was stopped", reportGrace)) })
	})
	return store, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel(nil)
	}
}
