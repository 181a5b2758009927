//go:build linux

package local

import (
	"io"
	"testing"
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
