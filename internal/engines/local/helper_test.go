//go:build linux

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// newEngine makes an engine with a data directory of its own, which ends with the test.
func newEngine(tb testing.TB, change ...func(*Config)) *Engine {
	tb.Helper()
	config := Config{DataDir: filepath.Join(openDir(tb), "data"), Path: DefaultPath, KillGrace: 300 * time.Millisecond}
	for _, c := range change {
		c(&config)
	}
	e, err := New(config, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	return e
}

// openDir is a directory of the test that all users get to.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// job makes a run of a command.
func job(argv ...string) *engines.Job {
	return jobOf(contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: argv}}})
}

func jobOf(spec contracts.LocalSpec) *engines.Job {
	c := &contracts.Contract{Name: "tool", Engine: contracts.EngineLocal, Spec: &spec}
	return &engines.Job{ID: "id", Attempt: 1, Contract: c, Spec: &spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

// tool makes a run of the testtool.
func tool(tb testing.TB, script ...string) *engines.Job {
	return job(append([]string{enginetest.Build(tb)}, script...)...)
}

// run runs a job to its end, which must be an exit with 0, and returns what it printed.
func run(tb testing.TB, e *Engine, j *engines.Job) string {
	tb.Helper()
	var stdout, stderr strings.Builder
	exit, err := e.Run(tb.Context(), j, &stdout, &stderr)
	if err != nil || exit.Code != 0 || exit.Signal != "" {
		tb.Fatalf("the tool ended with code %d, signal %q, error %v; stderr: %s", exit.Code, exit.Signal, err, stderr.String())
	}
	return stdout.String()
}

// files lists what runs left in the engine's directory: all but the lock, and workspaces that are as they were made.
func files(e *Engine) []string {
	var found []string
	filepath.WalkDir(e.space.dir, func(path string, entry os.DirEntry, err error) error {
		name, _ := filepath.Rel(e.space.dir, path)
		parts := strings.Split(name, "/")
		_, odd := strconv.Atoi(parts[0])
		switch {
		case name == "." || name == lockName || name == rootName,
			odd == nil && len(parts) == 1,
			odd == nil && len(parts) == 2 && (parts[1] == "work" || parts[1] == "tmp" || parts[1] == "args.json"):
		default:
			found = append(found, name)
		}
		return nil
	})
	return found
}

// errorCode is the code of an error, "" where it has none.
func errorCode(err error) contracts.Code {
	var e *contracts.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// A helper is this test binary as a program of its own that runs one tool. Its arguments are the command; its standard
// streams are those of the tool.
type helper struct {
	DataDir string
	Capture bool // else capture_output is false
	Sandbox bool // with the directory of the testtool visible
	MinTier string
	Tier    string // the one to use; "": auto
	Times   int    // how often; 0: once

	PidsLimit int64 // of every run; 0: that of DefaultSandbox
}

func helperMain() {
	var h helper
	if err := json.Unmarshal([]byte(os.Getenv(asHelper)), &h); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(70)
	}
	config := Config{DataDir: h.DataDir, Path: DefaultPath, KillGrace: time.Second, Sandboxing: h.Sandbox, Sandbox: DefaultSandbox()}
	config.Sandbox.Paths = []string{filepath.Dir(os.Args[1])}
	if h.PidsLimit != 0 {
		config.Sandbox.PidsLimit = h.PidsLimit
	}
	if h.Tier != "" {
		config.Sandbox.Mode = h.Tier
	}
	if h.MinTier != "" {
		config.Sandbox.MinTier = h.MinTier
	}
	e, err := New(config, zerolog.New(os.Stderr).Level(zerolog.WarnLevel))
	if err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(70)
	}
	code := 0
	for range max(1, h.Times) {
		j := job(os.Args[1:]...)
		var stdout, stderr io.Writer = os.Stdout, os.Stderr
		if !h.Capture {
			j.Spec.Common().CaptureOutput = new(bool)
			stdout, stderr = nil, nil
		}
		exit, err := e.Run(context.Background(), j, stdout, stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			code = 71
		} else if exit.Code != 0 {
			code = exit.Code
		}
	}
	e.Close()
	os.Exit(code)
}

// command makes the helper's process.
func (h helper) command(tb testing.TB, argv ...string) *exec.Cmd {
	tb.Helper()
	text, err := json.Marshal(h)
	if err != nil {
		tb.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c := exec.Command(self, argv...)
	c.Env = append(os.Environ(), noWait, asHelper+"="+string(text))
	c.WaitDelay = time.Minute
	return c
}

// asNobody has a helper run as another user than root: it gets a copy of the binary that this user may read.
func asNobody(tb testing.TB, c *exec.Cmd, dirs ...string) {
	tb.Helper()
	if os.Getuid() != 0 {
		return // it is not root anyway
	}
	dir, err := os.MkdirTemp("", "local-test")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(c.Path)
	if err != nil {
		tb.Fatal(err)
	}
	c.Path = filepath.Join(dir, "helper")
	if err := os.WriteFile(c.Path, text, 0o755); err != nil {
		tb.Fatal(err)
	}
	const nobody = 65534
	for _, d := range append(dirs, dir) {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.Chown(d, nobody, nobody); err != nil {
			tb.Fatal(err)
		}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// toolDir is the directory of the testtool.
func toolDir(tb testing.TB) string {
	tb.Helper()
	return filepath.Dir(enginetest.Build(tb))
}
