package executor

import (
	"context"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Bus is what the core needs of a message bus. Its methods try again by themselves while the bus is away, until their
// context ends.
type Bus interface {
	// Record reads what is stored about a run; its status only if asked for.
	Record(ctx context.Context, id string, status bool) (contracts.Record, error)
	// Queued reports whether the request with that place in the queue is still there, or being handled.
	Queued(ctx context.Context, seq uint64) (bool, error)
	// Cancelled reports whether somebody asked for the end of a run.
	Cancelled(ctx context.Context, id string) (bool, error)
	// Claim stores the started event if the run's last status is still the one at after. It returns false where it is not.
	Claim(ctx context.Context, started contracts.Event, after uint64, trace string) (bool, error)
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
