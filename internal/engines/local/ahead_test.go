//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
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
		return !growing && len(boxes) > 0 && len(boxes) == len(shimsOf(os.Getpid())) && !slices.ContainsFunc(boxes, ends)
	})
	return boxes[0]
}

// ends reports whether a process does not sleep: a sandbox that waits does.
func ends(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return !strings.Contains(string(text), ") S ")
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
		remake(t, e) // that of the other helper was killed as well
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
		enginetest.Eventually(t, "no sandbox waits with the directory of a run", func() bool { return len(waitingBoxes()) == 0 })
		if got := run(t, e, shell("ls -A; echo x >left; stat -f -c %T . /tmp")); strings.Contains(got, "left") || strings.HasPrefix(got, "tmpfs") {
			t.Errorf("the tool prints %q", got)
		}
	}
	if left := files(e); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What another tool puts in the place of a contract's directory, between two runs of it, is not what the second one sees.
func TestSandboxMadeAheadFollowsNoLink(t *testing.T) {
	root := openDir(t)
	x, host := filepath.Join(root, "data", "x"), filepath.Join(root, "host")
	for _, dir := range []string{x, host} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "private"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.MountRoots = []string{filepath.Join(root, "data") + ":rw"} })
	in := func(text string) *engines.Job {
		j := shell(text)
		j.Contract.BaseDir = x
		return j
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	j := in("true")
	j.Starting = func() error {
		must(os.Rename(x, x+"-away"))
		return os.Symlink(host, x)
	}
	if _, err := e.Run(t.Context(), j, nil, nil); err == nil {
		t.Error("a directory that was replaced by a link before its sandbox was made is shown")
	}
	must(os.Remove(x))
	must(os.Rename(x+"-away", x))
	run(t, e, in("true")) // whose sandbox is like that of the next
	must(os.Rename(x, x+"-away"))
	must(os.Symlink(host, x))
	remake(t, e)
	must(os.Remove(x))
	must(os.Rename(x+"-away", x))
	for range 3 {
		if got := run(t, e, in("cat "+x+"/private 2>/dev/null; echo end")); got != "end\n" {
			t.Errorf("the next run sees %q", got)
		}
	}
}

// remake has all sandboxes that wait made again, and returns when that was tried: each helper has read that it is to, and
// sleeps, and so do the sandboxes, as far as they did not fail.
func remake(t *testing.T, e *Engine) {
	t.Helper()
	e.shims.mu.Lock()
	defer e.shims.mu.Unlock()
	for _, one := range e.shims.idle {
		if one.plan != nil {
			one.ahead(one.plan, one.look)
		}
	}
	enginetest.Eventually(t, "sandboxes were made again", func() bool {
		return !slices.ContainsFunc(e.shims.idle, func(one *shimProcess) bool {
			unread := 0
			if raw, err := one.socket.SyscallConn(); err == nil {
				raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
			}
			return unread > 0 || ends(one.process.Pid) || slices.ContainsFunc(shimsOf(one.process.Pid), ends)
		})
	})
}

func TestSecretThatIsReplacedStaysCovered(t *testing.T) {
	dir := openDir(t)
	secret := filepath.Join(dir, "creds")
	write := func(text string) {
		if err := os.WriteFile(secret+"-new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(secret+"-new", secret); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	e := newEngine(t, sandboxed(t), func(c *Config) {
		c.Sandbox.Paths, c.Sandbox.Secrets = append(c.Sandbox.Paths, dir), []string{secret}
	})
	for _, text := range []string{"", "new", "newer"} {
		if text != "" {
			oneWaits(t, e)
			write(text)
		}
		if got := run(t, e, shell("cat "+secret+" 2>/dev/null; true")); got != "" {
			t.Errorf("a tool reads %q", got)
		}
	}
}

// How many descriptors a tool may have does not bound those by which its sandbox is made.
func TestManyMountsWithFewDescriptors(t *testing.T) {
	dir := openDir(t)
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.OpenFiles, c.Sandbox.MountRoots = 64, []string{dir} })
	for _, n := range []int{20, 40} {
		j := shell("ulimit -n; echo err >&2; ls -d /data* | wc -l")
		for i := range n {
			common := j.Contract.Spec.Common()
			common.Mounts = append(common.Mounts, contracts.Mount{Source: dir, Target: fmt.Sprintf("/data%d", i)})
		}
		var stdout, stderr strings.Builder
		_, err := e.Run(t.Context(), j, &stdout, &stderr)
		if want := fmt.Sprintf("64\n%d\n", n); err != nil || stdout.String() != want || stderr.String() != "err\n" {
			t.Errorf("with %d mounts: %v, %q, %q", n, err, stdout.String(), stderr.String())
		}
	}
}

// A stop that comes while the sandbox is still being made, or just takes its tool, is not lost.
func TestStopAtOnce(t *testing.T) {
	eachOf(t, fences, func(t *testing.T, tier string) {
		e := newEngine(t, in(t, tier), func(c *Config) { c.KillGrace = time.Minute })
		for i := range 20 {
			ctx, cancel := context.WithCancelCause(t.Context())
			j := job("/bin/sleep", "120")
			j.Starting = func() error {
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() { cancel(errSeenEnough) })
				return nil
			}
			done := make(chan error, 1)
			go func() {
				_, err := e.Run(ctx, j, nil, nil)
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, errSeenEnough) {
					t.Errorf("Run returned %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the stop was not heard")
			}
		}
	})
}

func TestCloseEndsSandboxesThatWait(t *testing.T) {
	for range 10 {
		e := newEngine(t, sandboxed(t))
		run(t, e, shell("true"))
		oneWaits(t, e)
		boxes := waitingBoxes()
		e.Close()
		for _, pid := range boxes {
			if _, _, ok := stat(pid); ok && !isZombie(pid) {
				t.Errorf("sandbox %d is there after Close", pid)
			}
		}
	}
}

// Contracts in turn find sandboxes of their own.
func TestContractsInTurn(t *testing.T) {
	dir := openDir(t)
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.MountRoots = []string{dir} })
	one := func(i int) {
		j := shell("ls -d /data*")
		j.Contract.Spec.Common().Mounts = contracts.Mounts{{Source: dir, Target: fmt.Sprintf("/data%d", i)}}
		if got, want := run(t, e, j), fmt.Sprintf("/data%d\n", i); got != want {
			t.Errorf("it printed %q, %q is right", got, want)
		}
	}
	for i := range 9 {
		one(i % 3)
		oneWaits(t, e)
	}
	e.shims.mu.Lock()
	defer e.shims.mu.Unlock()
	plans := map[string]bool{}
	for _, idle := range e.shims.idle {
		plans[strings.Join(idle.plan, "\x00")] = true
	}
	if len(plans) < 3 || len(e.shims.idle) > mostAheadOfRuns {
		t.Errorf("%d helpers have sandboxes for %d contracts", len(e.shims.idle), len(plans))
	}
}
