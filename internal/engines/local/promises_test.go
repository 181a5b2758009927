//go:build linux

package local

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// Mapped to root of the host, a process without any capability may write what belongs to that: core_pattern, and with it a
// program that the kernel runs. So no process of a sandbox is, not even its first.
func TestSandboxMapsNobodyToRoot(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	u := begin(t, e, "background:1", "block", "out:up", "block")
	var pids []int
	enginetest.Eventually(t, "both are there", func() bool { pids = enginetest.Marked(u.marker); return len(pids) == 2 })
	for _, p := range append(descendants(os.Getpid()), process{pid: pids[0]}) {
		if !slices.Contains(pids, p.pid) && !isBox(p.pid) {
			continue
		}
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/gid_map", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(maps), string(groups)} {
			want := fmt.Sprint(wantUser())
			if fields := strings.Fields(text); len(fields) != 3 || fields[0] == "0" || fields[1] != want || fields[1] == "0" || fields[2] != "1" {
				t.Errorf("process %d of the sandbox is mapped by %q: not to %s alone, or to root", p.pid, text, want)
			}
		}
	}
	// As the kernel judges it.
	if got := run(t, e, shell("cd /proc/sys/kernel; test -w core_pattern && echo writable; (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo written; stat -c %u /proc/1; id -u")); got != "1000\n1000\n" {
		t.Errorf("it printed %q", got)
	}
}

// isBox reports whether a process is the first of a sandbox: a child of a shim of this process that is called like it.
func isBox(pid int) bool {
	parent, _, ok := stat(pid)
	return ok && slices.Contains(shimsOf(os.Getpid()), parent)
}

// What the executor was started with, passwords for NATS among it, is in the environment of no process that a tool sees, and
// in none that it becomes.
func TestSandboxInheritsNoEnvironment(t *testing.T) {
	t.Setenv("EXECUTOR_TEST_SECRET", "only-for-the-executor")
	t.Setenv("LD_PRELOAD_TEST", "x")
	e := newEngine(t, sandboxed(t))
	want := `["ARGS_FILE=/run/args.json","HOME=/work","LANG=C.UTF-8","PATH=` + DefaultPath + `","TMPDIR=/tmp"]`
	if got := strings.TrimSpace(run(t, e, tool(t, "env"))); got != want {
		t.Errorf("its environment is\n%s\nand this is right:\n%s", got, want)
	}
	if got := run(t, e, shell("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -e EXECUTOR_TEST_SECRET -e ^HOME=/work$ | sort -u")); got != "HOME=/work\n" {
		t.Errorf("of the environments that it can read it printed %q", got)
	}
	// Nor that of the first process of the sandbox, which is none of the tool's: it was forked from the helper.
	u := begin(t, e, "out:up", "block")
	for _, pid := range append(shimsOf(os.Getpid()), enginetest.Marked(u.marker)...) {
		for _, p := range append(descendants(pid), process{pid: pid}) {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
				continue // the sandbox of a run before, or one that tells nobody of its user
			}
			if err != nil || strings.Contains(string(text), "EXECUTOR_TEST_SECRET") || strings.Contains(string(text), "LD_PRELOAD_TEST") {
				t.Errorf("process %d: %v, %q", p.pid, err, text)
			}
		}
	}
}

// A descriptor is a right: to a file, a directory outside of the sandbox, a connection. A tool has its three streams.
func TestSandboxInheritsNoDescriptor(t *testing.T) {
	// Open in the executor, and not closed by an exec, as a library or whoever started it may leave them.
	var ours []int
	for _, path := range []string{"/", "/etc/passwd", os.DevNull} {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, fd)
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 700+fd)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, high)
	}
	t.Cleanup(func() {
		for _, fd := range ours {
			unix.Close(fd)
		}
	})
	e := newEngine(t, sandboxed(t))                                                                  // its helper is started while they are open
	if got := run(t, e, shell("ls /proc/self/fd; ls /proc/$$/fd")); got != "0\n1\n2\n3\n0\n1\n2\n" { // 3 is the directory that ls reads
		t.Errorf("a tool has the descriptors\n%s", got)
	}
	u := begin(t, e, "out:up", "block")
	pids := enginetest.Marked(u.marker)
	if len(pids) != 1 {
		t.Fatalf("there are %d processes", len(pids))
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pids[0], entry.Name()))
		// Go's own are for its poller.
		if err == nil && !strings.HasPrefix(to, "pipe:") && to != os.DevNull && !strings.HasPrefix(to, "anon_inode:") {
			t.Errorf("as the host sees it, descriptor %s is %s", entry.Name(), to)
		}
	}
}
