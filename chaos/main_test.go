//go:build linux

// Package chaos_test breaks what an executor stands on, processes, servers and connections, while thousands of requests
// are under way, and then reads the streams by itself to see whether the promises about failure were kept. Nothing of it
// is in the program. docs/chaos.md says what is broken, what is checked, and how to read the table.
//
//	main_test.go       what is built once, how much is asked for, the table at the end
//	process_test.go    processes that end with the test, and their logs
//	server_test.go     a NATS server, or three
//	link_test.go       the connection of an executor: cut, stalled, refused
//	fleet_test.go      the executors, and what can be done to them
//	tools_test.go      the tools, and what each must have printed
//	load_test.go       requests, and which of them are known to be stored
//	evidence_test.go   what the streams and files say
//	verdict_test.go    whether that is what was promised
//	table_test.go      one line for each scenario
//	scenarios_test.go  one fault each
//	mixture_test.go    all of them at once
package chaos_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// asked is how much the environment asks for.
//
//	EXECUTOR_TEST_CHAOS           1: the short run, as in CI. A duration: so long lasts the mixture; the scenarios are longer too
//	EXECUTOR_TEST_CHAOS_REQUESTS  requests of each scenario
//	EXECUTOR_TEST_CHAOS_SEED      of all that is random, to have the same faults again
var asked struct {
	run      bool
	mixture  time.Duration
	requests int
	seed     uint64
}

// Programs that scenarios start. They are built without the race detector: it would change what is fast and what is slow.
var executorProgram, serverProgram string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := readEnvironment(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if !asked.run {
		return m.Run() // the tests of the verdict
	}
	dir, err := os.MkdirTemp("", "chaos-programs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	executorProgram, serverProgram = filepath.Join(dir, "executor"), filepath.Join(dir, "nats-server")
	for program, source := range map[string]string{
		executorProgram: "github.com/praxis-sdk/executor/cmd/executor",
		serverProgram:   "github.com/nats-io/nats-server/v2", // of the version in go.mod
	} {
		if output, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", source, err, output)
			return 1
		}
	}
	fmt.Printf("chaos: EXECUTOR_TEST_CHAOS_SEED=%d, %d requests a scenario, mixture of %s\n", asked.seed, asked.requests, asked.mixture)
	code := m.Run()
	printTable(os.Stdout)
	return code
}

func readEnvironment() error {
	asked.mixture, asked.requests, asked.seed = 15*time.Second, 120, uint64(time.Now().UnixNano())
	switch text := os.Getenv("EXECUTOR_TEST_CHAOS"); text {
	case "", "0":
		return nil
	case "1":
	default:
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("EXECUTOR_TEST_CHAOS=%s: 1 is the short run, a duration as 5m is how long the mixture lasts", text)
		}
		asked.mixture, asked.requests = d, 300
	}
	asked.run = true
	if text := os.Getenv("EXECUTOR_TEST_CHAOS_REQUESTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("EXECUTOR_TEST_CHAOS_REQUESTS=%s: not a number of requests", text)
		}
		asked.requests = n
	}
	if text := os.Getenv("EXECUTOR_TEST_CHAOS_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("EXECUTOR_TEST_CHAOS_SEED=%s: not a number", text)
		}
		asked.seed = n
	}
	return nil
}
