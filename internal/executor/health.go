package executor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// Times of health checks. Variables for tests.
var (
	healthEvery   = 5 * time.Second        // while an engine is healthy
	healthFirst   = 500 * time.Millisecond // after it was found not to be; doubled each time
	healthMost    = 30 * time.Second
	healthTimeout = 5 * time.Second // of one check
)

// health knows which engines can take work now. It asks each from time to time, soon after one has failed, and at once when a
// run could not be started.
type health struct {
	mu      sync.Mutex
	wrong   map[string]error // by engine; nil: healthy
	suspect map[string]chan struct{}
	asked   map[string]chan error // questions that have no answer yet
	changed func(engine string, err error)
}

var errUnchecked = contracts.Errorf(contracts.EngineUnavailable, "it has not been checked yet")

func newHealth(engines map[string]engines.Engine) *health {
	h := &health{wrong: map[string]error{}, suspect: map[string]chan struct{}{}, asked: map[string]chan error{}, changed: func(string, error) {}}
	for name := range engines {
		h.wrong[name] = errUnchecked
		h.suspect[name] = make(chan struct{}, 1)
	}
	return h
}

// Healthy is nil where an engine takes work now, else why it does not; the error has the code engine_unavailable.
func (e *Executor) Healthy(engine string) error {
	e.health.mu.Lock()
	defer e.health.mu.Unlock()
	if err, served := e.health.wrong[engine]; served {
		return err
	}
	return contracts.Errorf(contracts.EngineUnavailable, "this executor does not serve the engine %s", engine)
}

// Check asks every engine once whether it can take work. It returns when all have answered or the time for that is over.
func (e *Executor) Check(ctx context.Context) {
	var checks sync.WaitGroup
	for name := range e.engines {
		checks.Go(func() { _ = e.check(ctx, name) })
	}
	checks.Wait()
}

// WatchHealth goes on checking until ctx ends, and calls changed whenever an engine begins or ends to take work. changed must
// not block.
func (e *Executor) WatchHealth(ctx context.Context, changed func(engine string, err error)) {
	e.health.mu.Lock()
	e.health.changed = changed
	e.health.mu.Unlock()
	var watchers sync.WaitGroup
	for name := range e.engines {
		watchers.Go(func() {
			wait := healthEvery
			for {
				timer := time.NewTimer(wait*3/4 + rand.N(wait/2))
				select {
				case <-timer.C:
				case <-e.health.suspect[name]:
				case <-ctx.Done():
					timer.Stop()
					return
				}
				timer.Stop()
				if e.check(ctx, name) == nil {
					wait = healthEvery
				} else if wait == healthEvery {
					wait = healthFirst
				} else {
					wait = min(2*wait, healthMost)
				}
			}
		})
	}
	watchers.Wait()
}

// Suspect has an engine checked now: a run could not be started on it.
func (e *Executor) Suspect(engine string) {
	select {
	case e.health.suspect[engine] <- struct{}{}:
	default: // it is about to be, or is not ours
	}
}

// ask asks an engine, unless a question to it has no answer yet: then that will do.
func (e *Executor) ask(ctx context.Context, name string) chan error {
	e.health.mu.Lock()
	defer e.health.mu.Unlock()
	answer := e.health.asked[name]
	if answer == nil || len(answer) > 0 { // an answer that came after its time says nothing about now
		answer = make(chan error, 1)
		e.health.asked[name] = answer
		go func() { answer <- e.engines[name].Ready(ctx) }()
	}
	return answer
}

func (e *Executor) check(ctx context.Context, name string) error {
	asked, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var err error
	select {
	case err = <-e.ask(asked, name):
		e.health.mu.Lock()
		delete(e.health.asked, name)
		e.health.mu.Unlock()
	case <-asked.Done(): // whatever the engine does with its context: nobody waits for one that is stuck
		err = fmt.Errorf("no answer within %s", healthTimeout)
	}
	if ctx.Err() != nil {
		return nil // asked to stop, which says nothing about the engine
	}
	if err != nil {
		err = contracts.Errorf(contracts.EngineUnavailable, "%s", contracts.AsError(err).Message)
	}
	e.health.mu.Lock()
	before := e.health.wrong[name]
	e.health.wrong[name] = err
	changed := e.health.changed
	e.health.mu.Unlock()
	first := errors.Is(before, errUnchecked)
	switch {
	case err != nil && (before == nil || first):
		e.log.Warn().Str("engine", name).Str("reason", contracts.AsError(err).Message).Msg("engine takes no work now; trying it again")
	case err == nil && before != nil && !first:
		e.log.Info().Str("engine", name).Msg("engine takes work again")
	}
	if (err == nil) != (before == nil) {
		changed(name, err)
	}
	return err
}
