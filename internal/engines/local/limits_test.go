//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

const python3 = "/usr/bin/python3"

// forks starts processes until that fails, and says how many there were, itself included. Then it goes on until it is ended.
const forks = `
import os, signal, sys
n = 1
try:
    while n < 5000:
        if os.fork() == 0: signal.pause()
        n += 1
except BlockingIOError: pass
print(n, flush=True)
if len(sys.argv) > 1: signal.pause()
`

func needsPython(tb testing.TB) {
	tb.Helper()
	if _, err := os.Stat(python3); err != nil {
		tb.Skip("SKIPPED: there is no " + python3 + ", whose processes have one thread and can be counted")
	}
}

// withoutGroups makes an engine that sees no cgroups.
func withoutGroups(c *Config) { c.Sandbox.noGroups = true }

// limited is a run of a command with limits.
func limited(limits contracts.CommonSpec, argv ...string) *engines.Job {
	limits.Command.Argv = argv
	return jobOf(contracts.LocalSpec{CommonSpec: limits})
}

// A fork bomb ends at the number, and no other run, of the same user at the same time, has one process less for it.
func TestPidsLimitIsThatOfOneRun(t *testing.T) {
	needsPython(t)
	if !DefaultSandbox().countsProcesses() {
		t.Skip("SKIPPED: RLIMIT_NPROC counts all processes of a user before Linux 5.14")
	}
	e := newEngine(t, sandboxed(t), withoutGroups)
	for _, limit := range []int64{25, 40, 1, 300} { // all of them go on while the next counts
		ctx, cancel := context.WithCancelCause(t.Context())
		j := limited(contracts.CommonSpec{PidsLimit: limit}, python3, "-c", forks, "stay")
		if err := e.Check(j.Contract); err != nil {
			t.Fatal(err)
		}
		printed, done := make(chan string, 1), make(chan struct{})
		go func() {
			defer close(done)
			exit, err := e.Run(ctx, j, writerFunc(func(p []byte) (int, error) { printed <- string(p); return len(p), nil }), nil)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("with pids_limit: %d it ended by itself: %+v, %v", limit, exit, err)
			}
		}()
		t.Cleanup(func() { cancel(context.Canceled); <-done })
		select {
		case got := <-printed:
			if got != fmt.Sprintf("%d\n", limit) {
				t.Errorf("with pids_limit: %d there were %s processes", limit, got)
			}
		case <-done:
			t.Fatal("it has not counted")
		}
	}
	if got := run(t, e, limited(contracts.CommonSpec{PidsLimit: 10}, python3, "-c", forks)); got != "10\n" {
		t.Errorf("beside them there were %s of 10 processes", got)
	}
}

func TestDefaultLimits(t *testing.T) {
	needsPython(t)
	e := newEngine(t, sandboxed(t), withoutGroups, func(c *Config) { c.Sandbox.PidsLimit, c.Sandbox.MemoryLimit = 12, 256<<20 })
	data := "import resource; print(resource.getrlimit(resource.RLIMIT_DATA))"
	for _, c := range []struct {
		name   string
		limits contracts.CommonSpec
		script string
		want   string
	}{
		{"the operator's number of processes", contracts.CommonSpec{}, forks, "12\n"},
		{"the contract's is less", contracts.CommonSpec{PidsLimit: 5}, forks, "5\n"},
		{"the contract's is more", contracts.CommonSpec{PidsLimit: 20}, forks, "20\n"},
		{"the operator's memory", contracts.CommonSpec{}, data, "(268435456, 268435456)\n"},
		{"the contract's", contracts.CommonSpec{MemoryLimit: 512 << 20}, data, "(536870912, 536870912)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := limited(c.limits, python3, "-c", c.script)
			var stdout strings.Builder
			exit, err := e.Run(t.Context(), j, &stdout, nil)
			if err != nil || exit.Code != 0 || stdout.String() != c.want || exit.Isolation.Limits != limitsRlimit {
				t.Errorf("%+v, %v; it printed %q, and %q is right", exit, err, stdout.String(), c.want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		e := newEngine(t, sandboxed(t), withoutGroups, func(c *Config) { c.Sandbox.PidsLimit, c.Sandbox.MemoryLimit = 0, 0 })
		text := "import resource; print(resource.getrlimit(resource.RLIMIT_DATA) == (-1, -1))"
		if got := run(t, e, job(python3, "-c", text)); got != "True\n" {
			t.Errorf("there is a limit all the same: %q", got)
		}
	})
	t.Run("by cgroup", func(t *testing.T) {
		e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.MemoryLimit = 64 << 20 })
		if !e.cgroups.has(memoryController) {
			t.Skip("SKIPPED: no cgroup with the controller memory can be made here")
		}
		exit, err := e.Run(t.Context(), tool(t, "eat:256M"), nil, nil)
		if err != nil || !exit.OOMKilled || exit.Isolation.Limits != limitsCgroup {
			t.Errorf("beyond the operator's memory_limit: %+v, %v", exit, err)
		}
	})
}

// Without cgroups memory is bounded for each process by what it may write to. What runtimes only reserve does not count.
func TestMemoryLimitWithoutGroups(t *testing.T) {
	e := newEngine(t, sandboxed(t), withoutGroups)
	eat := func(bytes int) []string {
		return []string{python3, "-c", fmt.Sprintf("b = bytearray(%d)\nfor i in range(0, len(b), 4096): b[i] = 1\nprint(len(b))", bytes)}
	}
	node := "/usr/bin/node"
	for _, c := range []struct {
		name   string
		needs  string
		limit  int64
		argv   []string
		within bool
	}{
		{"python within", python3, 96 << 20, eat(48 << 20), true},
		{"python beyond", python3, 96 << 20, eat(160 << 20), false},
		{"go within", "", 192 << 20, []string{enginetest.Build(t), "eat:64M", "out:x"}, true},
		{"go beyond", "", 192 << 20, []string{enginetest.Build(t), "eat:512M", "out:x"}, false},
		{"node within", node, 512 << 20, []string{node, "-e", "const b = Buffer.alloc(100 << 20, 1); console.log(b.length)"}, true},
		{"node beyond", node, 512 << 20, []string{node, "-e", "const b = Buffer.alloc(600 << 20, 1); console.log(b.length)"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != "" {
				if _, err := os.Stat(c.needs); err != nil {
					t.Skip("SKIPPED: there is no " + c.needs)
				}
			}
			j := limited(contracts.CommonSpec{MemoryLimit: contracts.Size(c.limit)}, c.argv...)
			if err := e.Check(j.Contract); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr strings.Builder
			exit, err := e.Run(t.Context(), j, &stdout, &stderr)
			if err != nil || exit.Isolation.Limits != limitsRlimit || exit.OOMKilled {
				t.Errorf("%+v, %v", exit, err)
			}
			if ran := exit.Code == 0 && exit.Signal == "" && stdout.Len() > 0; ran != c.within {
				t.Errorf("%+v; it printed %q, and on stderr\n%.2000s", exit, stdout.String(), stderr.String())
			}
		})
	}
}

// What cannot be enforced is refused, with what to do about it.
func TestLimitsThatNothingEnforces(t *testing.T) {
	e := newEngine(t, sandboxed(t), withoutGroups)
	err := e.Check(limited(contracts.CommonSpec{CPULimit: 1000}, "x").Contract)
	if errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), "cpu_limit") || !strings.Contains(err.Error(), groupsRemedy()) {
		t.Errorf("cpu_limit: %v", err)
	}
	memory, cpu, pids, remedy := e.Limits()
	if memory != limitsRlimit || cpu != "" || pids != limitsRlimit || remedy != groupsRemedy() {
		t.Errorf("Limits: %q %q %q %q", memory, cpu, pids, remedy)
	}
	bare := newEngine(t)
	for what, limits := range map[string]contracts.CommonSpec{"cpu_limit": {CPULimit: 1000}, "memory_limit": {MemoryLimit: 1 << 30}, "pids_limit": {PidsLimit: 10}} {
		if err := bare.Check(limited(limits, "x").Contract); errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), what) {
			t.Errorf("without a sandbox, %s: %v", what, err)
		}
	}
	if memory, cpu, pids, remedy := bare.Limits(); memory+cpu+pids+remedy != "" {
		t.Errorf("without a sandbox, Limits: %q %q %q %q", memory, cpu, pids, remedy)
	}
}

// The same numbers hold where the executor is an ordinary user, whose own limit counts all of its processes.
func TestPidsLimitOfAnOrdinaryUser(t *testing.T) {
	needsPython(t)
	dir, err := os.MkdirTemp("/var/tmp", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := helper{DataDir: filepath.Join(dir), Capture: true, Sandbox: true, PidsLimit: 30, Times: 2}.command(t, python3, "-c", forks)
	asNobody(t, c, dir)
	if out, err := c.CombinedOutput(); err != nil || string(out) != "30\n30\n" {
		t.Errorf("%v; it printed %s", err, out)
	}
}

// Before Linux 5.14 RLIMIT_NPROC counts processes of strangers, and the limit is a cgroup's.
func TestPidsLimitByGroup(t *testing.T) {
	needsPython(t)
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.oldKernel, c.Sandbox.PidsLimit = true, 7 })
	if !e.cgroups.has(pidsController) {
		t.Skip("SKIPPED: no cgroup with the controller pids can be made here")
	}
	for limit, want := range map[int64]string{0: "7\n", 25: "25\n"} {
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), limited(contracts.CommonSpec{PidsLimit: limit}, python3, "-c", forks), &stdout, nil)
		if err != nil || exit.Code != 0 || exit.Isolation.Limits != limitsCgroup || stdout.String() != want {
			t.Errorf("pids_limit %d: %+v, %v, it printed %q", limit, exit, err, stdout.String())
		}
	}
	t.Run("nor by that", func(t *testing.T) {
		var log strings.Builder
		config := Config{DataDir: filepath.Join(t.TempDir(), "data"), Path: DefaultPath, Sandboxing: true, Sandbox: DefaultSandbox()}
		config.Sandbox.oldKernel, config.Sandbox.noGroups = true, true
		e, err := New(config, zerolog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := e.Check(limited(contracts.CommonSpec{PidsLimit: 5}, "x").Contract); errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), "pids_limit") {
			t.Errorf("a contract with pids_limit: %v", err)
		}
		// The operator's is applied where it can be, and told where not.
		if got := run(t, e, job(python3, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[0] == 1025)")); got != "False\n" || !strings.Contains(log.String(), "execution.local.sandbox.pids_limit") {
			t.Errorf("it printed %q, the log is %s", got, log.String())
		}
	})
}
