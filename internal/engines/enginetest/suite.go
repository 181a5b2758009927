package enginetest

import (
	"slices"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// Suite says how the conformance suite gets at an engine, and what that engine cannot do.
type Suite struct {
	// Engine is the name that contracts give it.
	Engine string

	// New makes the engine, for tools that have grace from the ask to stop until they are stopped. What it makes ends
	// with the test. It is called after the test has put a variable into the environment that no tool may see.
	New func(tb testing.TB, grace time.Duration) engines.Engine

	// Tool is the command that runs the testtool on the engine; the suite appends the script.
	Tool []string

	// Spec makes the engine's spec from what all engines share.
	Spec func(contracts.CommonSpec) contracts.Spec

	// Left lists what runs of that engine left behind, processes aside: files, containers. nil: there is nothing to list.
	Left func(engines.Engine) []string

	// Processes finds the processes of a run, which all have "mark:" and the marker as an argument. nil: Marked, which
	// looks at this machine.
	Processes func(marker string) []int

	// Refused are specs that Check must refuse, each under what it asks for.
	Refused map[string]contracts.Spec

	// Unstartable are specs whose tool cannot be started, which Run must find before it calls Starting, in addition to
	// those that the suite knows.
	Unstartable map[string]contracts.CommonSpec

	// Concurrent is how many runs there are at once in the part Concurrency; 0: 200.
	Concurrent int

	// ExitCodes are those that are tried; nil: all from 0 to 255.
	ExitCodes []int

	// Cannot names the parts of the suite that the engine cannot pass, each with the reason. They are skipped.
	Cannot map[Part]string
}

// Part is a part of the suite, by which an engine says what it cannot do. Each is a subtest of that name.
type Part string

// The parts.
const (
	ReadyAndCheck Part = "ready and check"
	ExitCodes     Part = "exit codes"
	Signals       Part = "signals"
	Output        Part = "output"
	Binary        Part = "binary output"   // bytes that are not text
	Live          Part = "live output"     // before the tool ends
	Partial       Part = "partial output"  // what a tool printed that was stopped
	Volume        Part = "volume"          // of output
	Endless       Part = "10 GiB"          // of output: more than an engine may keep
	BackPressure  Part = "back pressure"   // a writer that blocks
	WriterFails   Part = "a writer fails"  //
	StreamsClosed Part = "closed streams"  // by the tool
	Stdin         Part = "stdin"           //
	Environment   Part = "environment"     //
	ArgsFile      Part = "file of args"    //
	Arguments     Part = "arguments"       // argv, placeholders
	Directories   Part = "directories"     // private, empty, removed
	Starting      Part = "starting"        // the call before the start
	Spawn         Part = "failed start"    // found before the call
	Cancel        Part = "cancel"          //
	Grace         Part = "grace"           // between the ask to stop and the end
	Tree          Part = "tree"            // all that the tool started ends with it
	Concurrency   Part = "concurrency"     //
	Leftovers     Part = "nothing is left" // of all parts before
)

// usualGrace is what the engine of most parts gives.
const usualGrace = 300 * time.Millisecond

// session is an engine under test.
type session struct {
	suite  *Suite
	engine engines.Engine
}

func (s *session) processes(marker string) []int {
	if s.suite.Processes != nil {
		return s.suite.Processes(marker)
	}
	return Marked(marker)
}

// Run runs the conformance suite: whoever implements engines.Engine passes it, but for the parts that it cannot.
func Run(t *testing.T, suite Suite) {
	t.Setenv(secretName, secretValue)
	s := &session{suite: &suite, engine: suite.New(t, usualGrace)}
	var known []Part
	part := func(name Part, test func(*testing.T, *session)) {
		known = append(known, name)
		t.Run(string(name), func(t *testing.T) {
			if why, cannot := suite.Cannot[name]; cannot {
				if why == "" {
					t.Fatal("a part that an engine cannot pass needs a reason")
				}
				t.Skipf("SKIPPED, the %s engine cannot: %s", suite.Engine, why)
			}
			test(t, s)
		})
	}
	part(ReadyAndCheck, testReadyAndCheck)
	part(ExitCodes, testExitCodes)
	part(Signals, testSignals)
	part(Output, testOutput)
	part(Binary, testBinary)
	part(Live, testLive)
	part(Partial, testPartial)
	part(Volume, testVolume)
	part(Endless, testEndless)
	part(BackPressure, testBackPressure)
	part(WriterFails, testWriterFails)
	part(StreamsClosed, testStreamsClosed)
	part(Stdin, testStdin)
	part(Environment, testEnvironment)
	part(ArgsFile, testArgsFile)
	part(Arguments, testArguments)
	part(Directories, testDirectories)
	part(Starting, testStarting)
	part(Spawn, testSpawn)
	part(Cancel, testCancel)
	part(Grace, testGrace)
	part(Tree, testTree)
	part(Concurrency, testConcurrency)
	part(Leftovers, testLeftovers)
	for name := range suite.Cannot {
		if !slices.Contains(known, name) {
			t.Errorf("the suite has no part %q", name)
		}
	}
}
