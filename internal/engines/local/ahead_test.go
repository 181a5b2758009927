//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// waitingBoxes lists the first processes of the sandboxes that wait in the shims of this process.
func waitingBoxes() (found []int) {
	for _, shim := range shimsOf(os.Getpid()) {
		found = append(found, shimsOf(shim)...)
	}
	return found
}

// oneWaits returns the sandbox that waits, when all that were made are there.
func oneWaits(t *testing.T, e *Engine) int {
	t.Helper()
	var boxes []int
	enginetest.Eventually(t, "a sandbox waits in each helper", func() bool {
		e.shims.mu.Lock()
		growing := e.shims.growing
		e.shims.mu.Unlock()
		boxes = waitingBoxes()
		return !growing && len(boxes) > 0 && len(boxes) == len(shimsOf(os.Getpid()))
	})
	return boxes[0]
}

func TestSandboxesAreMadeAheadAndUsedOnce(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	used := map[int]bool{}
	for range 5 {
		oneWaits(t, e)
		ready := waitingBoxes()
		u := begin(t, e, "write:"+"left:1", "out:up", "block")
		mine := 0
		for _, pid := range ready {
			if len(descendants(pid)) > 0 {
				mine = pid
			}
		}
		if mine == 0 {
			t.Fatalf("none of the sandboxes %v that waited has the tool", ready)
		}
		if used[mine] {
			t.Fatalf("sandbox %d serves a second run", mine)
		}
		used[mine] = true
		u.cancel(errSeenEnough)
		<-u.done
		if got := run(t, e, shell("ls -A /work /tmp /dev/shm; cat /run/args.json")); strings.Contains(got, "left") {
			t.Errorf("the next run sees %q", got)
		}
	}
}

func TestSandboxMadeForAnotherContractIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("mounted"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.MountRoots = []string{dir} })
	run(t, e, shell("true"))
	oneWaits(t, e)
	mounted := func() string {
		j := shell("cat /data/file; ls / | tr '\\n' ' '")
		j.Contract.Spec.(*contracts.LocalSpec).Mounts = contracts.Mounts{{Source: dir, Target: "/data"}}
		return run(t, e, j)
	}
	for range 3 { // the first in one made for it, the others in one made ahead
		if got := mounted(); !strings.Contains(got, "mounted") {
			t.Errorf("a run with a mount sees %q", got)
		}
		oneWaits(t, e)
	}
	for range 4 {
		if got := run(t, e, shell("ls /")); strings.Contains(got, "data") {
			t.Errorf("a run without the mount sees %q", got)
		}
	}
}

func TestSandboxMadeBeforeAFileWasReplaced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	replace := func(text string) {
		fresh := filepath.Join(dir, "fresh")
		if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, file); err != nil {
			t.Fatal(err)
		}
	}
	replace("old")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.Paths = append(c.Sandbox.Paths, file) })
	if got := run(t, e, job("/bin/cat", file)); got != "old" {
		t.Fatalf("the file has %q", got)
	}
	oneWaits(t, e)
	replace("new")
	if got := run(t, e, job("/bin/cat", file)); got != "new" {
		t.Errorf("after it was replaced, the file has %q", got)
	}
}

func TestKilledSandboxThatWaits(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	for range 10 {
		run(t, e, shell("true"))
		oneWaits(t, e)
		for _, box := range waitingBoxes() {
			if err := unix.Kill(box, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if got := run(t, e, shell("echo up")); got != "up\n" {
			t.Errorf("after the sandboxes that waited were killed, a run prints %q", got)
		}
	}
}

func TestArgumentsTooLargeForASandboxThatWaits(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	run(t, e, shell("true"))
	oneWaits(t, e)
	j := job("/bin/sh", "-c", "wc -c <$ARGS_FILE; echo >>$ARGS_FILE || true")
	j.Args = map[string]any{"x": strings.Repeat("x", 20<<20)}
	if got, want := run(t, e, j), "20971550\n"; got != want {
		t.Errorf("the file of arguments has %q bytes, %q are right", got, want)
	}
}

func TestSandboxesThatWaitedForLongAreMadeAgain(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	run(t, e, shell("true"))
	oneWaits(t, e)
	e.shims.mu.Lock()
	for _, one := range e.shims.idle {
		one.used = one.used.Add(-idleShims)
	}
	e.shims.mu.Unlock()
	e.shims.retire()
	enginetest.Eventually(t, "one helper is kept", func() bool { return len(shimsOf(os.Getpid())) == 1 })
	before := oneWaits(t, e)
	e.shims.mu.Lock()
	e.shims.idle[0].made = time.Now().Add(-boxAge)
	e.shims.mu.Unlock()
	e.shims.retire()
	enginetest.Eventually(t, "another one waits", func() bool {
		now := waitingBoxes()
		return len(now) == 1 && now[0] != before
	})
	run(t, e, shell("true"))
}

func TestWorkDirectoryIsBounded(t *testing.T) {
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.WorkSize = 1 << 20 })
	got := run(t, e, shell("head -c 2M /dev/zero >big 2>/dev/null || stat -c %s big; i=0; while true >f$i; do i=$((i+1)); done 2>/dev/null; rm big; echo $((i < 300))"))
	if want := "1048576\n1\n"; got != want {
		t.Errorf("the tool prints %q, %q is right", got, want)
	}
}

func TestWorkDirectoryOnTheDisk(t *testing.T) {
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.WorkSize = 0 })
	for range 2 {
		if got := run(t, e, shell("ls -A; echo x >left; stat -f -c %T . /tmp")); strings.Contains(got, "left") || strings.HasPrefix(got, "tmpfs") {
			t.Errorf("the tool prints %q", got)
		}
	}
	if left := files(e); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
