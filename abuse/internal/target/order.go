// Package target is the executor that the attempts of the abuse suite attack: a process of its own, with the local engine
// as the program has it, so that whatever an attempt gets done to an executor is done to this one.
//
//	order.go   what the suite and the process say to each other
//	tiers.go   the engines that there are
//	bare.go    the one without any protection
//	serve.go   the process
package target

import (
	"time"

	"github.com/praxis-sdk/executor/internal/engines"
)

// Order is what the process reads from its stdin first: one attempt. When its stdin ends it closes its engine and exits.
type Order struct {
	Tier    string
	DataDir string

	Command []string
	Stdin   string // a file: what the tool reads
	Args    map[string]any
	ArgsRaw bool // args_env: raw, with all args declared
	Runs    int  // one after the other; each has its number as the argument "run"
	Timeout time.Duration
	Memory  int64
	Pids    int64
	Cache   bool   // a named cache at ~/cache
	Inside  string // where another one is in that, but for the first run; "": there is none
	Network string

	Victim string // the secret of another run, which goes on meanwhile
}

// Event is one line that the process writes to its stdout.
type Event struct {
	Printed string  `json:",omitempty"` // by the attempt, as it appears, the first of it
	Report  *Report `json:",omitempty"`
	Failed  string  `json:",omitempty"` // why there is no engine
}

// Report says how an attempt ended.
type Report struct {
	Refused    string // why the engine did not start it
	Error      string // why it was not run to its end
	Exit       engines.Exit
	Output     string // both streams, the first of them
	VictimDied bool
}
