//go:build linux

package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// inspect has a run print all that one run could leave for the next, in a form that is the same for all that are fresh.
func inspect(t *testing.T, e *Engine) (home, seen string) {
	t.Helper()
	script := []string{"var:HOME", "out:\n"}
	for _, dir := range []string{"$HOME/..", "$HOME", "$TMPDIR"} {
		script = append(script, "ls:"+dir, "xattrs:"+dir, "stat:"+dir)
	}
	script = append(script, "xattrs:$ARGS_FILE", "stat:$ARGS_FILE", "read:$ARGS_FILE")
	home, seen, _ = strings.Cut(run(t, e, tool(t, script...)), "\n")
	return home, seen
}

// settle returns when a run got the directories of the one before it, and the next one will.
func settle(t *testing.T, e *Engine) (home string) {
	t.Helper()
	e.space.filler.Wait()
	first, _ := inspect(t, e)
	second, _ := inspect(t, e)
	if first != second {
		t.Fatalf("an untouched workspace did not serve the next run: %s, then %s", first, second)
	}
	return second
}

func TestWorkspacesAreReusedOnlyUntouched(t *testing.T) {
	touches := map[string][]string{
		"a file in HOME":              {"write:$HOME/x:1"},
		"a file in TMPDIR":            {"write:$TMPDIR/x:1"},
		"a file beside them":          {"write:$HOME/../x:1"},
		"a file that is gone again":   {"write:$HOME/x:1", "rm:$HOME/x"},
		"mkdir and rmdir in HOME":     {"mkdir:$HOME/x", "rm:$HOME/x"},
		"mkdir and rmdir in TMPDIR":   {"mkdir:$TMPDIR/x", "rm:$TMPDIR/x"},
		"mkdir and rmdir beside them": {"mkdir:$HOME/../x", "rm:$HOME/../x"},
		"a fifo":                      {"fifo:$TMPDIR/x"},
		"a link":                      {"symlink:/etc:$HOME/x"},
		"mode of HOME":                {"chmod:755:$HOME"},
		"mode of HOME and back":       {"chmod:755:$HOME", "chmod:700:$HOME"},
		"mode of TMPDIR and back":     {"chmod:000:$TMPDIR", "chmod:700:$TMPDIR"},
		"mode of their parent":        {"chmod:777:$HOME/.."},
		"HOME renamed and back":       {"rename:$HOME:$HOME-2", "rename:$HOME-2:$HOME"},
		"HOME and TMPDIR exchanged":   {"rename:$HOME:$HOME-2", "rename:$TMPDIR:$HOME", "rename:$HOME-2:$TMPDIR"},
		"HOME made anew":              {"rm:$HOME", "mkdir:$HOME"},
		"attribute of HOME":           {"xattr:$HOME:user.x:1"},
		"attribute of TMPDIR":         {"xattr:$TMPDIR:user.x:1"},
		"attribute of their parent":   {"xattr:$HOME/..:user.x:1"},
		"arguments: attribute":        {"chmod:600:$ARGS_FILE", "xattr:$ARGS_FILE:user.x:1", "chmod:400:$ARGS_FILE"},
		"arguments: mode":             {"chmod:600:$ARGS_FILE"},
		"arguments: written":          {"chmod:600:$ARGS_FILE", "write:$ARGS_FILE:something else that is longer", "chmod:400:$ARGS_FILE"},
		"arguments: removed":          {"rm:$ARGS_FILE"},
		"arguments: made anew":        {"rm:$ARGS_FILE", "write:$ARGS_FILE:x", "chmod:400:$ARGS_FILE"},
		"arguments: linked":           {"link:$ARGS_FILE:$HOME/../../stolen"},
		"arguments: linked in HOME":   {"link:$ARGS_FILE:$HOME/x"},
		"arguments: renamed and back": {"rename:$ARGS_FILE:$TMPDIR/x", "rename:$TMPDIR/x:$ARGS_FILE"},
		"arguments: a directory":      {"rm:$ARGS_FILE", "mkdir:$ARGS_FILE"},
	}
	restored := []string{"a file that is gone again", "mkdir and rmdir in HOME", "mkdir and rmdir in TMPDIR", "mkdir and rmdir beside them", "mode of HOME and back",
		"mode of TMPDIR and back", "HOME renamed and back", "HOME made anew", "arguments: written", "arguments: renamed and back"}
	for _, exact := range []bool{true, false} {
		t.Run(fmt.Sprintf("exact=%t", exact), func(t *testing.T) {
			e := newEngine(t)
			if exact && !e.space.exact {
				t.Skip("SKIPPED: the kernel gives coarse times to files here")
			}
			e.space.exact = exact
			_, fresh := inspect(t, e)
			for name, script := range touches {
				t.Run(name, func(t *testing.T) {
					home := settle(t, e)
					if got := run(t, e, tool(t, append([]string{"var:HOME", "out:\n"}, script...)...)); got != home+"\n" {
						t.Fatalf("it ran in %s, not in %s", got, home)
					}
					for range 4 { // more than were made ahead
						next, seen := inspect(t, e)
						if seen != fresh {
							t.Errorf("the next run sees\n%s\na fresh one\n%s", seen, fresh)
						}
						// Where times are coarse, what has become as it was again may serve again.
						if next == home && (exact || !slices.Contains(restored, name)) {
							t.Error("the workspace was given to another run")
						}
					}
					stolen := filepath.Join(e.space.dir, "stolen")
					if text, err := os.ReadFile(stolen); err == nil {
						if string(text) != `{"args":{},"context":{}}` {
							t.Errorf("what another run was given can be read: %s", text)
						}
						os.Remove(stolen)
					}
				})
			}
			if left := files(e); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// A workspace in which something may still run is not for another run.
func TestWorkspaceOfALostToolIsNotReused(t *testing.T) {
	e := newEngine(t)
	home := settle(t, e)
	if _, err := e.Run(t.Context(), tool(t, "kill:parent:KILL", "block"), nil, nil); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(home); err == nil {
		t.Error("it is still there")
	}
	for range 4 {
		if next, _ := inspect(t, e); next == home {
			t.Error("it was given to another run")
		}
	}
}

// Where times are coarse, a change is found by what it changed.
func TestLookTellsWithoutTimes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "args.json")
	check := func(t *testing.T, what string, err error, path string, before look) {
		t.Helper()
		if err != nil {
			t.Logf("SKIPPED: %s: %s", what, err)
			return
		}
		after, err := lookAt(path, false)
		before.changed, after.changed = unix.Timespec{}, unix.Timespec{}
		if err == nil && after == before {
			t.Errorf("%s is not seen", what)
		}
	}
	for _, path := range []string{dir, file} {
		for what, change := range map[string]func() error{
			"a mode":                func() error { return os.Chmod(path, 0o750) },
			"a user":                func() error { return os.Chown(path, 1234, -1) },
			"a group":               func() error { return os.Chown(path, -1, 1234) },
			"an extended attribute": func() error { return unix.Setxattr(path, "user.x", []byte("1"), 0) },
			"a flag": func() error {
				text, err := exec.Command("chattr", "+d", path).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, text)
				}
				return nil
			},
			"a file or second name": func() error { return os.Link(file, filepath.Join(dir, "x")) },
			"another in its place": func() error {
				if path == dir {
					return errors.New("not for a directory")
				}
				return errors.Join(os.WriteFile(file+"-2", nil, 0o400), os.Rename(file+"-2", file))
			},
		} {
			for _, made := range []error{os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(file, nil, 0o600)} {
				if made != nil {
					t.Fatal(made)
				}
			}
			before, err := lookAt(path, false)
			if err != nil {
				t.Fatal(err)
			}
			check(t, what+" of "+filepath.Base(path), change(), path, before)
		}
	}
}

func TestWorkspacesWaitingAreBounded(t *testing.T) {
	e := newEngine(t)
	flag := filepath.Join(t.TempDir(), "flag")
	var group sync.WaitGroup
	var starts atomic.Int32
	for range mostAhead + 20 {
		group.Go(func() {
			j := tool(t, "await:"+flag) // it leaves nothing
			j.Starting = func() error { starts.Add(1); return nil }
			run(t, e, j)
		})
	}
	enginetest.Eventually(t, "all run", func() bool { return starts.Load() == mostAhead+20 })
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	e.space.filler.Wait()
	if n := len(e.space.ahead); n == 0 || n > mostAhead {
		t.Errorf("%d workspaces wait", n)
	}
}

func TestWhatToolsLeaveIsRemoved(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t)
	for name, script := range map[string][]string{
		"a fifo":                       {"fifo:x", "fifo:$TMPDIR/y"},
		"a sparse file":                {"sparse:x"},
		"names that are odd":           {"write:new\nline:1", "write:-rf:1", "write: :1", "write:\xff\xfe:1", "write:" + strings.Repeat("n", 255) + ":1", "mkdir:\n", "write:\n/*:1"},
		"links to what is not its own": {"symlink:" + outside + ":x", "symlink:" + outside + "/precious:y", "symlink:x:x2", "symlink:loop:loop", "symlink:/there/is/nothing:z"},
		"many files":                   {"many:3000"},
		"directories without rights":   {"deep:5:000"},
		"2000 directories deep":        {"deep:2000:700"},
		"2000 deep, without rights":    {"deep:2000:000"},
		"deeper than files can be open": {
			"deep:25000:700"},
		"names that the removal uses": {"write:.to-be-removed-1:x", "mkdir:.to-be-removed-2", "write:.to-be-removed-2/x:1", "mkdir:.to-be-removed-3", "deep:350:700"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, e, tool(t, script...))
			if left := files(e); len(left) > 0 {
				t.Errorf("left behind: %q", left[:min(len(left), 10)])
			}
		})
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error("a file outside was removed: ", err)
	}
}

// As root nothing is unreadable, so the engine runs as somebody else.
func TestWhatToolsLeaveIsRemovedWithoutPrivileges(t *testing.T) {
	data, err := os.MkdirTemp("", "local-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	c := helper{DataDir: data, Capture: true}.command(t, enginetest.Build(t),
		"deep:300:000", "mkdir:a", "write:a/b:1", "chmod:500:a", "mkdir:$TMPDIR/c", "mkdir:$TMPDIR/c/d", "chmod:200:$TMPDIR/c", "chmod:000:$TMPDIR", "chmod:100:.", "out:done")
	asNobody(t, c, data)
	text, err := c.CombinedOutput()
	if err != nil || string(text) != "done" {
		t.Fatalf("%v: %s", err, text)
	}
	entries, err := os.ReadDir(filepath.Join(data, "runs"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestRemoveTreeSaysWhatItCannot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can make a file that cannot be removed")
	}
	dir := t.TempDir()
	for _, file := range []string{"a", "keep", "z", "sub/x"} {
		if err := os.MkdirAll(filepath.Join(dir, "tree", filepath.Dir(file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tree", file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := filepath.Join(dir, "tree", "keep")
	if text, err := exec.Command("chattr", "+i", keep).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: files cannot be made immutable here: %s", text)
	}
	defer exec.Command("chattr", "-i", keep).Run()
	if err := removeTree(filepath.Join(dir, "tree")); !errors.Is(err, unix.EPERM) {
		t.Errorf("it returned %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "tree"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "keep" {
		t.Errorf("left are %v, %v", entries, err)
	}
	if err := removeTree(filepath.Join(dir, "nothing")); err != nil {
		t.Errorf("nothing to remove is an error: %v", err)
	}
	if err := removeTree(filepath.Join(dir, "no", "parent")); err != nil {
		t.Errorf("nothing to remove is an error: %v", err)
	}
}

func TestKeepFiles(t *testing.T) {
	data := t.TempDir()
	e := newEngine(t, func(c *Config) { c.DataDir, c.KeepFiles = data, true })
	homes := strings.Fields(run(t, e, tool(t, "write:result:of the first", "var:HOME", "out: ")) + run(t, e, tool(t, "var:HOME")))
	if len(homes) != 2 || homes[0] == homes[1] {
		t.Fatalf("the runs were in %q", homes)
	}
	e.Close()
	kept := func(want bool) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(homes[0], "result"))
		if _, err2 := os.Stat(homes[1]); (err == nil) != want || (err2 == nil) != want || want && string(text) != "of the first" {
			t.Errorf("kept are %q (%v), and the directory of a run that left nothing (%v)", text, err, err2)
		}
	}
	kept(true)
	newEngine(t, func(c *Config) { c.DataDir, c.KeepFiles = data, true })
	kept(true) // whoever starts to look at them wants them still
	newEngine(t, func(c *Config) { c.DataDir = data })
	kept(false)
}

func TestDeadExecutorsAreReaped(t *testing.T) {
	data := t.TempDir()
	runs := filepath.Join(data, "runs")
	directory := func(name string, lock bool) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(runs, name, "1", "work"), 0o700); err != nil {
			t.Fatal(err)
		}
		if lock {
			if err := os.WriteFile(filepath.Join(runs, name, lockName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	directory("1-dead", true)
	directory("2-without-a-lock", false)
	directory(".3-being-made", false)
	directory(".4-never-finished", false)
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(runs, ".4-never-finished"), old, old); err != nil {
		t.Fatal(err)
	}
	directory("5-alive", true)
	lock, err := os.Open(filepath.Join(runs, "5-alive", lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, func(c *Config) { c.DataDir = data })
	entries, err := os.ReadDir(runs)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{".3-being-made", "5-alive", filepath.Base(e.space.dir)}; !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(want))) {
		t.Errorf("there are %q, %q is right", names, want)
	}
}

func TestTwoEnginesInOneDirectory(t *testing.T) {
	data := t.TempDir()
	var all []*Engine
	for range 2 {
		all = append(all, newEngine(t, func(c *Config) { c.DataDir = data }))
	}
	flag := filepath.Join(t.TempDir(), "flag")
	first := make(chan string, 1)
	up := make(chan struct{})
	go func() {
		var stdout strings.Builder
		var once sync.Once
		_, err := all[0].Run(t.Context(), tool(t, "write:mine:text", "out:up ", "await:"+flag, "read:mine"), writerFunc(func(p []byte) (int, error) {
			once.Do(func() { close(up) })
			return stdout.Write(p)
		}), nil)
		first <- fmt.Sprint(stdout.String(), err)
	}()
	<-up
	for range 20 {
		run(t, all[1], tool(t, "write:mine:other"))
	}
	third := newEngine(t, func(c *Config) { c.DataDir = data })
	run(t, third, tool(t, "write:mine:third"))
	third.Close()
	all[1].Close()
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := <-first; got != "up text<nil>" {
		t.Errorf("the run of the first engine printed %q", got)
	}
}

func cached(tb testing.TB, caches contracts.CacheMounts, script ...string) *engines.Job {
	j := tool(tb, script...)
	j.Spec.Common().CacheMounts = caches
	return j
}

func TestCaches(t *testing.T) {
	data := t.TempDir()
	start := func() *Engine { return newEngine(t, func(c *Config) { c.DataDir = data }) } // ends with this test, not a part of it
	e := start()
	pip := contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}, {Name: "go", Path: "~/go"}}
	store := filepath.Join(data, bareCaches, "pip")

	t.Run("persist between runs and executors, and only they", func(t *testing.T) {
		run(t, e, cached(t, pip, "write:$HOME/.cache/pip/wheel:of the first", "write:$HOME/.cache/other:x", "write:$HOME/go/mod:m"))
		if got := run(t, e, cached(t, pip, "read:$HOME/.cache/pip/wheel", "ls:$HOME/.cache", "read:$HOME/go/mod")); got != "of the firstpip\nm" {
			t.Errorf("the second run sees %q", got)
		}
		e.Close()
		e = start()
		if got := run(t, e, cached(t, pip, "read:$HOME/.cache/pip/wheel")); got != "of the first" {
			t.Errorf("the next executor's run sees %q", got)
		}
		if got := run(t, e, tool(t, "ls:$HOME")); got != "" {
			t.Errorf("a run without caches sees %q", got)
		}
	})
	t.Run("a tool that removes the way there", func(t *testing.T) {
		run(t, e, cached(t, pip, "rm:$HOME/.cache/pip", "mkdir:$HOME/.cache/pip", "write:$HOME/.cache/pip/lost:x"))
		if got := run(t, e, cached(t, pip, "ls:$HOME/.cache/pip")); got != "wheel\n" {
			t.Errorf("the cache holds %q", got)
		}
	})
	t.Run("a tool that removes the cache itself", func(t *testing.T) {
		run(t, e, cached(t, contracts.CacheMounts{{Name: "other", Path: "~/c"}}, "rm:"+filepath.Join(data, bareCaches, "other")))
		if got := run(t, e, cached(t, contracts.CacheMounts{{Name: "other", Path: "~/c"}}, "ls:$HOME/c")); got != "" {
			t.Errorf("the cache holds %q", got)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var group sync.WaitGroup
		for i := range 30 {
			group.Go(func() {
				name := fmt.Sprintf("$HOME/.cache/pip/of-%d", i)
				if got := run(t, e, cached(t, pip, "write:"+name+":text", "read:"+name)); got != "text" {
					t.Errorf("run %d read %q", i, got)
				}
			})
		}
		group.Wait()
		entries, err := os.ReadDir(store)
		if err != nil || len(entries) != 31 {
			t.Errorf("the cache holds %d files, %v", len(entries), err)
		}
	})
	if left := files(e); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestArgumentsAreNotReadableByOthers(t *testing.T) {
	e := newEngine(t)
	settle(t, e)
	j := tool(t, "var:ARGS_FILE", "out:\n", "stat:$ARGS_FILE", "stat:$HOME/..", "read:$ARGS_FILE")
	j.Args = map[string]any{"token": "secret", "number": json.Number("1.50")}
	lines := strings.Split(run(t, e, j), "\n")
	if !strings.HasPrefix(lines[1], "-r-------- ") || !strings.HasPrefix(lines[2], "drwx------ ") {
		t.Errorf("modes: %q", lines[1:3])
	}
	if lines[3] != `{"args":{"number":1.50,"token":"secret"},"context":{}}` {
		t.Errorf("content: %s", lines[3])
	}
	// Its directories serve the next run, but do not keep what this one was given.
	if text, err := os.ReadFile(lines[0]); err != nil || len(text) > 1 {
		t.Errorf("after the run its file holds %q, %v", text, err)
	}
}

func TestNewCleansUpAfterItself(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, bareCaches), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{DataDir: data}, zerolog.Nop()); errorCode(err) != contracts.EngineUnavailable {
		t.Errorf("New returned %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(data, "runs"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
