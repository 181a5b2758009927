package main

import (
	"context"
	"io"
	"sync"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// lateEngine stands for an engine that is enabled and could not be made, on an instance that serves others. The fleet hears
// why from its presence, requests for it are passed on with that reason, and each look at its health tries again to make
// it: an operator who has mended what was wrong need not start the instance anew.
type lateEngine struct {
	build func() (engines.Engine, error)

	making sync.Mutex // held by who tries to make it, which may take its time
	mu     sync.Mutex
	engine engines.Engine // nil: not yet
	why    error          // the last failure
	closed bool
}

var _ engines.Engine = (*lateEngine)(nil)

// there is the engine, or an error that says why there is none.
func (l *lateEngine) there() (engines.Engine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.engine == nil {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "%s", contracts.AsError(l.why).Message)
	}
	return l.engine, nil
}

// Ready implements engines.Engine, and makes the engine if it can be made now.
func (l *lateEngine) Ready(ctx context.Context) error {
	l.try()
	engine, err := l.there()
	if err != nil {
		return err
	}
	return engine.Ready(ctx)
}

// try makes the engine if it is not there.
func (l *lateEngine) try() {
	l.making.Lock()
	defer l.making.Unlock()
	l.mu.Lock()
	done := l.engine != nil || l.closed
	l.mu.Unlock()
	if done {
		return
	}
	engine, err := l.build()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.why = err
	case l.closed:
		if c, ok := engine.(io.Closer); ok {
			c.Close()
		}
	default:
		l.engine = engine
	}
}

// Check implements engines.Engine. Of a contract for an engine that is not there nothing is known to be wrong.
func (l *lateEngine) Check(c *contracts.Contract) error {
	if engine, err := l.there(); err == nil {
		return engine.Check(c)
	}
	return nil
}

// Run implements engines.Engine.
func (l *lateEngine) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	engine, err := l.there()
	if err == nil {
		err = engine.Check(job.Contract) // it was not there to be asked when the run was admitted
	}
	if err != nil {
		return engines.Exit{}, err
	}
	return engine.Run(ctx, job, stdout, stderr)
}

// Tier is that of the engine, "" as long as there is none.
func (l *lateEngine) Tier() string {
	if engine, err := l.there(); err == nil {
		if tiered, ok := engine.(interface{ Tier() string }); ok {
			return tiered.Tier()
		}
	}
	return ""
}

// Close closes the engine; none is made after it.
func (l *lateEngine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if c, ok := l.engine.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
