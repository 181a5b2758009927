package daggertest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// CLI is a dagger program for tests: the program of the test itself, whose TestMain calls CLIMain first.
type CLI struct {
	Path string
	dir  string
}

// The ways of the program.
const (
	CLIGood = "good" // holds a session with the double
	CLIHang = "hang" // never starts one, and does not end when asked to
	CLIFail = "fail" // ends at once and says why
)

const cliEnv = "EXECUTOR_TEST_DAGGER_CLI"

type cliPlan struct {
	Mode, Program, Dir string
	Images             map[string]Image
}

// NewCLI makes the program behave in one of the ways, from now until the end of the test.
func NewCLI(tb testing.TB, mode string, images map[string]Image) *CLI {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c := &CLI{Path: self, dir: tb.TempDir()}
	c.Become(tb, mode, images)
	return c
}

// Become has programs that are started from now on go another way.
func (c *CLI) Become(tb testing.TB, mode string, images map[string]Image) {
	tb.Helper()
	text, err := json.Marshal(cliPlan{mode, Program(tb), c.dir, images})
	if err != nil {
		tb.Fatal(err)
	}
	if t, is := tb.(interface{ Setenv(string, string) }); is {
		t.Setenv(cliEnv, string(text))
		t.Setenv("GORACE", "atexit_sleep_ms=0") // a program with the race detector ends a second late without
	}
}

// Alive lists the programs that live, and Started how many were started.
func (c *CLI) Alive() (pids []int) {
	for _, pid := range c.all() {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(text), ") Z ") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Started is how many programs were started.
func (c *CLI) Started() int { return len(c.all()) }

// Environment is that of a program, while it lives.
func (c *CLI) Environment(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return strings.Split(string(text), "\x00")
}

func (c *CLI) all() (pids []int) {
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// CLIMain is the program, if this process is to be it; else it returns at once.
func CLIMain() {
	text := os.Getenv(cliEnv)
	if text == "" || len(os.Args) < 2 || os.Args[1] != "session" {
		return
	}
	var plan cliPlan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := os.WriteFile(filepath.Join(plan.Dir, strconv.Itoa(os.Getpid())), nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	switch plan.Mode {
	case CLIFail:
		fmt.Fprintln(os.Stderr, "Error: start engine: driver for scheme \"image\": docker is not there")
		os.Exit(1)
	case CLIHang:
		for {
			time.Sleep(time.Hour)
		}
	}
	e, err := open(Options{Images: plan.Images}, plan.Program, plan.Dir) // removed with the test, also where this is killed
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Printf("{\"port\":%d,\"session_token\":%q}\n", e.Port, e.Token)
	_, _ = io.Copy(io.Discard, os.Stdin) // until who has started it wants no more, or is dead
	e.Close()
	os.Exit(0)
}

// Kill ends a program as the system does that has no memory.
func Kill(tb testing.TB, pid int) {
	tb.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tb.Fatal(err)
	}
}
