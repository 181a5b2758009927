//go:build linux

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestSuite(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := func(c contracts.CommonSpec) contracts.Spec {
		c.Command.Argv = []string{"true"}
		return &contracts.LocalSpec{CommonSpec: c}
	}
	at := func(argv ...string) contracts.Command { return contracts.Command{Argv: argv} }
	never := map[string]contracts.Spec{
		"network: bridge":                   refused(contracts.CommonSpec{Network: "bridge"}),
		"cache_mounts at the same place":    refused(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "~/.cache"}, {Name: "b", Path: "~/.cache"}}}),
		"cache_mounts that are all of HOME": refused(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "~/."}}}),
	}
	ordinary := map[string]contracts.Spec{
		"memory_limit":                      refused(contracts.CommonSpec{MemoryLimit: 1 << 20}),
		"cpu_limit":                         refused(contracts.CommonSpec{CPULimit: 1000}),
		"pids_limit":                        refused(contracts.CommonSpec{PidsLimit: 10}),
		"mounts":                            refused(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: "/", Target: "/data"}}}),
		"network: none":                     refused(contracts.CommonSpec{Network: "none"}),
		"cache_mounts to an absolute path":  refused(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "/cache"}}}),
		"cache_mounts inside of each other": refused(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "~/.cache"}, {Name: "b", Path: "~/.cache/pip"}}}),
		"cache_mounts, the inner one first": refused(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "b", Path: "~/.cache/pip"}, {Name: "a", Path: "~/.cache"}}}),
	}
	maps.Copy(ordinary, never)
	inPlace := map[string]contracts.Spec{"mounts elsewhere": ordinary["mounts"]}
	for name, spec := range ordinary {
		if strings.HasPrefix(name, "cache_mounts") {
			inPlace[name] = spec
		}
	}
	maps.Copy(inPlace, never)
	for _, tier := range []struct {
		name    string
		refused map[string]contracts.Spec
	}{{TierNone, ordinary}, {TierNamespaces, never}, {TierBubblewrap, never}, {TierLandlock, inPlace}} {
		t.Run(tier.name, func(t *testing.T) {
			change := in(t, tier.name)
			enginetest.Run(t, enginetest.Suite{
				Engine: contracts.EngineLocal,
				New: func(tb testing.TB, grace time.Duration) engines.Engine {
					return newEngine(tb, change, func(c *Config) { c.KillGrace = grace })
				},
				Tool:    []string{enginetest.Build(t)},
				Spec:    func(c contracts.CommonSpec) contracts.Spec { return &contracts.LocalSpec{CommonSpec: c} },
				Left:    func(e engines.Engine) []string { return files(e.(*Engine)) },
				Refused: tier.refused,
				Unstartable: map[string]contracts.CommonSpec{
					"not executable":                    {Command: at(text)},
					"not executable, a device":          {Command: at("/dev/null")},
					"a file as its working directory":   {Command: at("/bin/true"), Cwd: text},
					"a relative cwd without base_dir":   {Command: at("/bin/true"), Cwd: "sub"},
					"a name in PATH that is no program": {Command: at("text"), Env: contracts.Variables{"PATH": filepath.Dir(text)}},
					"a name with PATH of the contract":  {Command: at("true"), Env: contracts.Variables{"PATH": "/nowhere"}},
				},
			})
		})
	}
}

func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("EXECUTOR_TEST_SECRET", "secret")
	e := newEngine(t, func(c *Config) { c.Env = map[string]string{"HTTPS_PROXY": "http://proxy:3128"} })
	j := tool(t, "env")
	j.Args = map[string]any{"x": "1"}
	var list []string
	if err := json.Unmarshal([]byte(run(t, e, j)), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	env := map[string]string{}
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		names = append(names, name)
		env[name] = value
	}
	if want := []string{"ARGS_FILE", "ARG_X", "HOME", "HTTPS_PROXY", "LANG", "PATH", "TMPDIR"}; !slices.Equal(names, want) {
		t.Errorf("the tool has %q, %q is right", names, want)
	}
	if env["PATH"] != DefaultPath || env["LANG"] != "C.UTF-8" {
		t.Errorf("PATH is %q, LANG is %q", env["PATH"], env["LANG"])
	}
	if cwd, home, _ := strings.Cut(run(t, e, tool(t, "cwd", "out:=", "var:HOME")), "="); cwd != home {
		t.Errorf("HOME is %s, and the working directory %s", home, cwd)
	}
}

func TestShell(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		shell := func(text string) *engines.Job {
			j := jobOf(contracts.LocalSpec{Shell: true, CommonSpec: contracts.CommonSpec{Command: contracts.Command{Shell: text}}})
			j.Args = map[string]any{"text": "a; exit 9 $HOME 'b'"}
			return j
		}
		t.Run("arguments are variables, never text", func(t *testing.T) {
			if got := run(t, e, shell(`printf '%s|' "$ARG_TEXT" {{args.text}} | tr a-z A-Z`)); got != "A; EXIT 9 $HOME 'B'|{{ARGS.TEXT}}|" {
				t.Errorf("it printed %q", got)
			}
		})
		t.Run("exit code, and what is in the background", func(t *testing.T) {
			var stdout strings.Builder
			begun := time.Now()
			exit, err := e.Run(t.Context(), shell("sleep 100 & echo up; exit 3"), &stdout, io.Discard)
			if err != nil || exit.Code != 3 || stdout.String() != "up\n" || time.Since(begun) > 30*time.Second {
				t.Errorf("%+v, %v, %q after %s", exit, err, stdout.String(), time.Since(begun))
			}
		})
		t.Run("a list is joined by spaces", func(t *testing.T) {
			j := jobOf(contracts.LocalSpec{Shell: true, CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: []string{"echo", "a", "&&", "echo", "b"}}}})
			if got := run(t, e, j); got != "a\nb\n" {
				t.Errorf("it printed %q", got)
			}
		})
	})
}

func TestCommandsAreFoundAsTheToolWould(t *testing.T) {
	base := t.TempDir()
	script := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(base, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, file), []byte("#!/bin/sh\necho "+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script("tools/one", "of the contract")
	script("bin/only-of-the-executor", "wrong")
	script("one", "of the base directory")
	t.Setenv("PATH", filepath.Join(base, "bin")+":"+os.Getenv("PATH"))
	e := newEngine(t)
	t.Run("not in the PATH of the executor", func(t *testing.T) {
		if _, err := e.Run(t.Context(), job("only-of-the-executor"), nil, nil); errorCode(err) != contracts.SpawnFailed {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("in the PATH of the contract", func(t *testing.T) {
		j := job("one")
		j.Spec.Common().Env = contracts.Variables{"PATH": filepath.Join(base, "tools")}
		if got := run(t, e, j); got != "of the contract\n" {
			t.Errorf("it printed %q", got)
		}
	})
	t.Run("never where it happens to be", func(t *testing.T) {
		j := job("one")
		j.Spec.Common().Env = contracts.Variables{"PATH": ":.:"}
		j.Contract.BaseDir = base
		if _, err := e.Run(t.Context(), j, nil, nil); errorCode(err) != contracts.SpawnFailed {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("relative to the base directory, and to cwd", func(t *testing.T) {
		j := job("./one")
		j.Contract.BaseDir = base
		if got := run(t, e, j); got != "of the base directory\n" {
			t.Errorf("it printed %q", got)
		}
		j.Spec.Common().Cwd = "tools"
		if got := run(t, e, j); got != "of the contract\n" {
			t.Errorf("it printed %q", got)
		}
	})
	t.Run("cwd below the base directory", func(t *testing.T) {
		j := tool(t, "cwd")
		j.Contract.BaseDir, j.Spec.Common().Cwd = base, "tools"
		if got := run(t, e, j); got != filepath.Join(base, "tools") {
			t.Errorf("it is in %q", got)
		}
	})
}

func TestSpawnErrors(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		dir := t.TempDir()
		file := func(name, text string) string {
			t.Helper()
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			return file
		}
		many := []string{"/bin/true"}
		for range 30 {
			many = append(many, strings.Repeat("x", 100<<10))
		}
		e := newEngine(t, tier, func(c *Config) { c.Sandbox.Paths = append(c.Sandbox.Paths, dir) })
		for _, c := range []struct {
			name  string
			argv  []string
			says  string
			early bool // before Starting
		}{
			{"a text without #!", []string{file("text", "echo hello\n")}, "#!/bin/sh", false},
			{"an empty file", []string{file("empty", "")}, "#!/bin/sh", false},
			{"an interpreter that is not there", []string{file("script", "#!/there/is/no/interpreter\n")}, "interpreter", false},
			{"3 MiB of arguments", many, "too large together", true},
			{"one argument of 200 KiB", []string{"/bin/true", strings.Repeat("x", 200<<10)}, "128 KiB", true},
		} {
			t.Run(c.name, func(t *testing.T) {
				j := job(c.argv...)
				starts := 0
				j.Starting = func() error { starts++; return nil }
				_, err := e.Run(t.Context(), j, nil, nil)
				if errorCode(err) != contracts.SpawnFailed || !strings.Contains(err.Error(), c.says) {
					t.Errorf("Run returned %v", err)
				}
				if c.early && starts != 0 || starts > 1 {
					t.Errorf("Starting was called %d times", starts)
				}
				if got := run(t, e, tool(t, "out:next")); got != "next" { // with the same shim
					t.Errorf("the next tool printed %q", got)
				}
			})
		}
		if left := files(e); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// Paths and variables of an operator are bytes; JSON would make other ones of them.
func TestNamesThatAreNotUTF8(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "caf\xe9")
	e := newEngine(t, func(c *Config) { c.DataDir = dir })
	j := tool(t, "var:LATIN", "out:=", "cwd")
	j.Passthrough = map[string]string{"LATIN": "na\xefve"}
	if got := run(t, e, j); !strings.HasPrefix(got, "na\xefve="+dir+"/") {
		t.Errorf("it printed %q", got)
	}
}

func TestUsage(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier)
		usage := func(ctx context.Context, script ...string) (contracts.Usage, error) {
			t.Helper()
			exit, err := e.Run(ctx, tool(t, script...), nil, nil)
			return exit.Usage, err
		}
		u, err := usage(t.Context(), "burn:200ms", "eat:64M")
		if err != nil || u.CPUMS < 190 || u.CPUMS > 2000 {
			t.Errorf("200 ms of processor time are %.0f ms, %v", u.CPUMS, err)
		}
		if u.MaxRSSBytes < 64<<20 || u.MaxRSSBytes > 128<<20 {
			t.Errorf("64 MiB of memory are %d MiB", u.MaxRSSBytes>>20)
		}
		// What children used counts as well, whoever collected them.
		u, err = usage(t.Context(), "child:1", "burn:100ms", "daemon:2", "burn:100ms", "out:", "sleep:300ms")
		if err != nil || u.CPUMS < 120 || u.CPUMS > 2000 {
			t.Errorf("children used %.0f ms, %v", u.CPUMS, err)
		}
		// The executor's own memory is nothing to it.
		large := make([]byte, 200<<20)
		for i := 0; i < len(large); i += 4096 {
			large[i] = 1
		}
		e2 := newEngine(t, tier)
		exit, err := e2.Run(t.Context(), tool(t, "eat:64M"), nil, nil)
		if got := exit.Usage.MaxRSSBytes; err != nil || got < 64<<20 || got > 128<<20 {
			t.Errorf("64 MiB of memory are %d MiB where the executor has 200, %v", got>>20, err)
		}
		runtime.KeepAlive(large)
		// The small is not said to be large because the helper is.
		if u, err = usage(t.Context()); err != nil || u.MaxRSSBytes > 32<<20 {
			t.Errorf("a small tool used %d MiB, %v", u.MaxRSSBytes>>20, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stop := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
		exit, err = e.Run(ctx, tool(t, "burn:100ms", "out:up", "block"), stop, nil)
		if u = exit.Usage; !errors.Is(err, context.Canceled) || u.CPUMS < 90 {
			t.Errorf("a tool that was stopped used %.0f ms, %v", u.CPUMS, err)
		}
	})
}

func TestCaptureOutputFalse(t *testing.T) {
	c := helper{DataDir: t.TempDir()}.command(t, enginetest.Build(t), "out:to stdout", "err:to stderr", "flood:1M", "exit:3")
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if c.ProcessState.ExitCode() != 3 {
		t.Fatalf("it ended with %v: %s", err, stderr.String())
	}
	if rest, ok := bytes.CutPrefix(stdout.Bytes(), []byte("to stdout")); !ok || len(rest) != 1<<20 {
		t.Errorf("stdout has %d bytes", stdout.Len())
	}
	if stderr.String() != "to stderr" {
		t.Errorf("stderr is %q", stderr.String())
	}
}

func TestCaptureOutputFalseWritesNothingElsewhere(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = before }()
	e := newEngine(t)
	j := tool(t, "out:straight")
	j.Spec.Common().CaptureOutput = new(bool)
	var stdout strings.Builder
	_, err = e.Run(t.Context(), j, &stdout, nil)
	w.Close()
	text, _ := io.ReadAll(r)
	if err != nil || stdout.Len() > 0 || string(text) != "straight" {
		t.Errorf("%v; the writer got %q, the executor's stdout %q", err, stdout.String(), text)
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]Config{"there is no such tier": {DataDir: t.TempDir(), Sandboxing: true, Sandbox: Sandbox{Mode: "chroot"}}, "data_dir": {DataDir: filepath.Join(file, "data")}} {
		if e, err := New(config, zerolog.Nop()); errorCode(err) != contracts.EngineUnavailable || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: New returned %v, %v", name, e, err)
		}
	}
}

func TestReadySaysThatItsDirectoryIsGone(t *testing.T) {
	e := newEngine(t)
	if err := os.RemoveAll(e.space.dir); err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(t.Context()); errorCode(err) != contracts.EngineUnavailable {
		t.Errorf("Ready says %v", err)
	}
}

// Somebody outside of the tool's tree who got its stdout must not keep the run.
func TestStreamHeldByAStranger(t *testing.T) {
	e := newEngine(t)
	var stranger *os.File
	var once sync.Once
	held := filepath.Join(t.TempDir(), "held")
	j := tool(t, "pid", "out: ", "await:"+held, "out:end")
	var stdout strings.Builder
	begun := time.Now()
	_, err := e.Run(t.Context(), j, writerFunc(func(p []byte) (int, error) {
		stdout.Write(p)
		if pid, _, whole := strings.Cut(stdout.String(), " "); whole {
			once.Do(func() {
				var err error
				if stranger, err = os.OpenFile("/proc/"+pid+"/fd/1", os.O_WRONLY, 0); err != nil {
					t.Error(err)
				}
				if err := os.WriteFile(held, nil, 0o600); err != nil { // the tool ends after that
					t.Error(err)
				}
			})
		}
		return len(p), nil
	}), nil)
	if stranger == nil {
		t.Fatal("the stream could not be opened")
	}
	defer stranger.Close()
	if took := time.Since(begun); err != nil || !strings.HasSuffix(stdout.String(), "end") || took > 20*time.Second {
		t.Errorf("%v, %q after %s", err, stdout.String(), took)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
