package executor

import (
	"context"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Bus is what the core needs of a message bus. What stores tries again by itself while the bus is away, until its context
// ends; what reads fails.
type Bus interface {
	// Record reads what is stored about a run; its status only if asked for.
	Record(ctx context.Context, id string, status bool) (contracts.Record, error)
	// Queued reports whether the request with that place in the queue is still there, or being handled.
	Queued(ctx context.Context, seq uint64) (bool, error)
	// Cancelled reports whether somebody asked for the end of a run.
	Cancelled(ctx context.Context, id string) (bool, error)
	// Advance stores a status event if the run's last one is still that at after, and returns its place. It returns 0 where
	// it is not. A started event is the claim of an attempt.
	Advance(ctx context.Context, event contracts.Event, after uint64, trace string) (uint64, error)
	// Republish stores a request in the queue of the engine that its fallback event names. An error that is a
	// *contracts.Error means that this queue takes no more.
	Republish(ctx context.Context, d contracts.Delivery, id string, event contracts.Event) error
	// Request reads a request from its place in the queue; nil where it has left.
	Request(ctx context.Context, seq uint64) (*contracts.Delivery, error)
	// Serving is who is ready to serve which engine, by engine the names of instances; not to be changed. It is false where
	// that cannot be told now.
	Serving(ctx context.Context) (map[string][]string, bool)
	// Limit is the bound of n on runs with a tool and key.
	Limit(tool, key string, n int) Limit
	// Journal opens the journal of an attempt. Until ctx ends it publishes what it is given, again if need be; freed is
	// called whenever it has room again.
	Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) Journal
	// StoreResult stores a result if the run has none, and returns the one that is stored then.
	StoreResult(ctx context.Context, result *contracts.Result, trace string) (*contracts.Result, error)
	// CopyEvent sends an event where copies go, if they hold events.
	CopyEvent(to contracts.Copies, event contracts.Event)
	// CopyResult sends a result where copies go.
	CopyResult(to contracts.Copies, result *contracts.Result)
	// Bury stores a dead letter.
	Bury(ctx context.Context, letter contracts.DeadLetter, d contracts.Delivery) error
}

// Limit bounds how many runs there are at a time in the fleet.
type Limit interface {
	// Try takes a place if one is free now, and returns what gives it back; nil where none is.
	Try(ctx context.Context) (free func(), err error)
	// Wait waits for one until ctx ends.
	Wait(ctx context.Context) (free func(), err error)
}

// Journal publishes the events and output of one attempt, in order.
type Journal interface {
	Event(contracts.Event) error
	// Output publishes a chunk; it blocks while too much is not stored yet. done is called when the bytes are free again.
	Output(c contracts.Chunk, done func()) error
	// Ahead reports whether a chunk that is not full should go now.
	Ahead() bool
	// Running tells those who follow that the run goes on, if nothing was said for as long as silence.
	Running(event contracts.Event, silence time.Duration)
	// Flush returns when all is stored.
	Flush() error
}
