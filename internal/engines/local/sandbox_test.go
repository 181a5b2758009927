//go:build linux

package local

import (
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sandboxed makes an engine run tools in namespaces, where the testtool is visible.
func sandboxed(tb testing.TB) func(*Config) {
	tb.Helper()
	tool := toolDir(tb)
	return func(c *Config) {
		c.Sandboxing, c.Sandbox = true, DefaultSandbox()
		c.Sandbox.Paths = append(c.Sandbox.Paths, tool)
	}
}

func TestSandboxRuns(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	if got := run(t, e, tool(t, "out:hello")); got != "hello" {
		t.Errorf("it printed %q", got)
	}
	t.Log(run(t, e, job("/bin/sh", "-c", "id; pwd; ls -la / /dev /etc /proc/1 .; cat /proc/self/status /proc/mounts /proc/net/dev; env; echo hi >x; touch /x; ps; cat $ARGS_FILE; true")))
}

func BenchmarkSandbox(b *testing.B) {
	e := newEngine(b, sandboxed(b))
	for b.Loop() {
		if exit, err := e.Run(b.Context(), job("/bin/true"), io.Discard, io.Discard); err != nil || exit.Code != 0 {
			b.Fatal(exit, err)
		}
	}
}

func TestLimits(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	for controller, spec := range map[string]contracts.CommonSpec{
		memoryController: {MemoryLimit: 64 << 20}, cpuController: {CPULimit: 200}, pidsController: {PidsLimit: 10},
	} {
		t.Run(controller, func(t *testing.T) {
			with := func(script ...string) *engines.Job {
				spec.Command.Argv = append([]string{enginetest.Build(t)}, script...)
				return jobOf(contracts.LocalSpec{CommonSpec: spec})
			}
			if !e.cgroups.has(controller) {
				if err := e.Check(with().Contract); errorCode(err) != contracts.Unsupported {
					t.Errorf("Check says %v of what cannot be enforced", err)
				}
				t.Skipf("SKIPPED: no cgroup with the controller %s can be made here", controller)
			}
			if err := e.Check(with().Contract); err != nil {
				t.Fatal(err)
			}
			exit, err := e.Run(t.Context(), with(), nil, nil)
			if err != nil || exit.Code != 0 || exit.OOMKilled || exit.Isolation.Limits != limitsCgroup {
				t.Errorf("within the limit: %+v, %v", exit, err)
			}
			switch controller {
			case memoryController:
				if exit, err = e.Run(t.Context(), with("eat:256M"), nil, nil); err != nil || !exit.OOMKilled || exit.Signal != "SIGKILL" {
					t.Errorf("beyond the limit: %+v, %v", exit, err)
				}
				// Not where the tool goes on.
				if exit, err = e.Run(t.Context(), with("background:1", "eat:256M", "sleep:300ms", "exit:0"), nil, nil); err != nil || exit.OOMKilled && exit.Code == 0 && exit.Signal == "" {
					t.Errorf("a child beyond the limit: %+v, %v", exit, err)
				}
				// What is in /tmp is memory.
				if exit, err = e.Run(t.Context(), jobOf(contracts.LocalSpec{CommonSpec: contracts.CommonSpec{MemoryLimit: 64 << 20, Command: contracts.Command{Argv: []string{"/bin/dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=200"}}}}), nil, nil); err != nil || !exit.OOMKilled {
					t.Errorf("files in memory: %+v, %v", exit, err)
				}
			case cpuController:
				begun := time.Now()
				exit, err = e.Run(t.Context(), with("burn:300ms"), nil, nil)
				if took := time.Since(begun); err != nil || exit.Code != 0 || took < time.Second {
					t.Errorf("300 ms of a fifth of a processor took %s: %+v, %v", took, exit, err)
				}
			case pidsController:
				var stderr strings.Builder
				if exit, err = e.Run(t.Context(), with("orphans:1", "forkbomb:3", "sleep:100ms", "forkbomb:64", "sleep:100ms", "child:1", "exit:0"), nil, &stderr); err != nil || exit.Code == 0 {
					t.Errorf("beyond the limit: %+v, %v, %s", exit, err, stderr.String())
				}
			}
		})
	}
	e.Close()
	if e.cgroups == nil {
		return
	}
	for _, h := range e.cgroups.hierarchies {
		if left, _ := filepath.Glob(filepath.Join(h.dir, e.cgroups.prefix+"*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}
