// Package engines defines what an engine is: a way to run a tool. Each engine is one folder below this one and one
// line in the table of cmd/executor; enginetest has the suite that all of them pass.
package engines

import (
	"context"
	"io"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Engine runs tools. Its methods may be called by many goroutines at once.
type Engine interface {
	// Check says whether the engine could ever run the contract: nil, or a *contracts.Error that has the code
	// unsupported and names what it cannot do. It does no I/O.
	Check(*contracts.Contract) error

	// Ready says whether the engine can take work now: nil, or a *contracts.Error with the code engine_unavailable
	// that says what is missing and how to mend it.
	Ready(context.Context) error

	// Run runs one attempt of a tool and blocks until nothing of it is left: no process, no directory. A container in which
	// nothing runs any more may still be about to be removed, which the engine sees to.
	// Output goes to the writers as it appears, each called by one goroutine at a time, and never after Run has
	// returned; a writer that blocks makes the tool wait, and one that fails has its stream read and dropped.
	//
	// A tool that failed is an Exit, not an error. An error means that the tool was not run to its end: before
	// job.Starting was called, that it could not be started (a *contracts.Error says why); after it, that ctx was done
	// (the error is its cause, and the Exit still has the usage) or that the engine lost the tool.
	// When ctx is done the tool is asked to stop, and after a grace period it is stopped, with all that it started.
	Run(ctx context.Context, job *Job, stdout, stderr io.Writer) (Exit, error)
}

// Examiner is an engine that can say more about itself than that it can take work.
type Examiner interface {
	// Examine runs a tool that does nothing and says what the engine is and cannot do here. An error means that it cannot run one,
	// and says how to mend that.
	Examine(context.Context) (Examination, error)
}

// Examination is what an engine found out about itself.
type Examination struct {
	Exit  Exit   // of the tool that does nothing
	About string // what it runs tools with, in a few words
	Lacks []Lack
}

// Lack is something that an engine cannot do or enforce here.
type Lack struct{ What, Mend string }

// Job is what an engine is to run.
type Job struct {
	ID       string
	Attempt  int
	Contract *contracts.Contract
	Spec     contracts.Spec // that of this engine

	Args        map[string]any // checked and completed
	Context     map[string]any
	Stdin       []byte
	Passthrough map[string]string // env_passthrough as far as policy allows

	// Starting is called once, just before the tool starts. An error means that the run belongs to somebody else: the
	// engine must not start the tool, and returns that error.
	Starting func() error

	// Progress tells what is being done while the start takes long, as (pull, "3 of 7 layers", 42). It never blocks
	// for long. A percent below 0 is unknown.
	Progress func(stage, message string, percent float64)
}

// Exit is how a tool ended.
type Exit struct {
	Code      int    // 0 to 255; meaningless where Signal is set
	Signal    string // that ended it, as SIGKILL; "" where it exited by itself
	OOMKilled bool   // ended because it went over its memory limit
	Usage     contracts.Usage
	Isolation contracts.Isolation
	Stages    Stages

	// Notes say what was not as the contract asked or as a reader would expect, as limits that were left out. They are for
	// people, and go into the result.
	Notes []string
}

// Stages say how long the parts of a run's preparation took; 0 where there was no such part.
type Stages struct {
	Pull   time.Duration // until the image was there
	Create time.Duration // of the container
	Start  time.Duration // of the container, until its first process runs
}
