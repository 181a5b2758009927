//go:build linux

package local

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// sandboxed makes an engine run tools in namespaces, where the testtool is visible.
func sandboxed(tb testing.TB) func(*Config) { return in(tb, TierNamespaces) }

// in makes an engine run tools in a tier, where the testtool is visible. The test is skipped where the machine has not got what
// that needs; that it is to have it, and every test that was skipped is a failure, says who runs them (.ci/run).
func in(tb testing.TB, tier string) func(*Config) {
	tb.Helper()
	if tier == TierNone {
		return func(*Config) {}
	}
	tool := toolDir(tb)
	if why := offered(tier); why != "" {
		tb.Skipf("SKIPPED: this machine does not offer the tier %s: %s", tier, why)
	}
	return func(c *Config) {
		c.Sandboxing, c.Sandbox = true, DefaultSandbox()
		c.Sandbox.Mode = tier
		c.Sandbox.Paths = append(c.Sandbox.Paths, tool)
	}
}

// offered says why the machine does not offer a tier; "" where it does, or where it should.
func offered(tier string) string {
	switch tier {
	case TierBubblewrap:
		if _, err := findBubblewrap(bubblewrapPlaces); err != nil {
			return err.Error()
		}
	case TierLandlock:
		if abi, err := sandbox.LandlockABI(); err != nil || abi < sandbox.MinLandlockABI {
			return fmt.Sprintf("Landlock ABI %d, %v", abi, err)
		}
	}
	return ""
}

// eachTier runs a test in all tiers.
func eachTier(t *testing.T, test func(*testing.T, func(*Config))) {
	for _, tier := range Tiers {
		t.Run(tier, func(t *testing.T) { test(t, in(t, tier)) })
	}
}

var (
	boxes  = []string{TierNamespaces, TierBubblewrap}               // tools have a view of their own
	fences = []string{TierNamespaces, TierBubblewrap, TierLandlock} // all that is a sandbox
)

func eachOf(t *testing.T, tiers []string, test func(t *testing.T, tier string)) {
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) { test(t, tier) })
	}
}

func shell(text string) *engines.Job { return job("/bin/sh", "-c", text) }

// wantUser is whom tools are outside.
func wantUser() int {
	if os.Geteuid() == 0 {
		return DefaultSandbox().User
	}
	return os.Geteuid()
}

func TestSandboxHasNoRights(t *testing.T) { eachOf(t, fences, testSandboxHasNoRights) }

func testSandboxHasNoRights(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	u := begin(t, e, "out:up", "block")
	pids := enginetest.Marked(u.marker)
	if len(pids) != 1 {
		t.Fatalf("there are %d processes", len(pids))
	}
	capabilities := "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n"
	if tier == TierLandlock && os.Geteuid() != 0 { // who has no rights cannot give up those of programs, which have no effect
		capabilities, _, _ = strings.Cut(capabilities, "CapBnd")
	}
	// As the host sees it: mapped to its root, a process may write what belongs to that, with no capability at all.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint(wantUser())
	for _, want := range []string{
		"Uid:\t" + strings.Repeat(id+"\t", 3) + id + "\n",
		capabilities,
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("its status lacks %q:\n%s", want, text)
		}
	}
	for _, kind := range []string{"user", "mnt", "pid", "ipc", "net", "uts", "cgroup"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pids[0], kind))
		if tier != TierLandlock && os.Geteuid() == 0 && (err != nil || err2 != nil || ours == theirs) {
			t.Errorf("the namespace %s: ours is %s, that of the tool %s, %v %v", kind, ours, theirs, err, err2)
		}
	}
}

func TestSandboxShowsNothingElse(t *testing.T) { eachOf(t, boxes, testSandboxShowsNothingElse) }

func testSandboxShowsNothingElse(t *testing.T, tier string) {
	t.Setenv("EXECUTOR_TEST_SECRET", "only-for-the-executor")
	e := newEngine(t, in(t, tier))
	for _, c := range []struct{ name, text, want string }{
		{"the root", `ls / | grep -vxE 'bin|sbin|lib(32|64|x32)?'`, "dev\netc\nproc\nrun\ntmp\nusr\nvar\nwork\n"},
		{"devices", "ls /dev", "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n"},
		{"processes", "for p in /proc/[0-9]*; do [ $p = /proc/1 -o $p = /proc/2 -o $p = /proc/$$ ] || echo $p; done", ""},
		{"no file of the host's users", "grep -c . /etc/passwd; ls /etc/shadow /root /home /sys /var/lib 2>/dev/null", "3\n"},
		{"nothing of the first process", map[string]string{
			TierNamespaces: "cat /proc/1/environ /proc/1/mem /proc/1/maps 2>/dev/null; ls /proc/1/fd /proc/1/root 2>/dev/null",
			// It is bwrap, and the second is ours and waits: they have nothing to hide, and cannot be changed.
			TierBubblewrap: "cat /proc/[12]/environ | tr '\\0' '\\n' | grep -v ^PWD=/; (echo x >/proc/1/mem) 2>/dev/null && echo memory; (echo x >/proc/2/mem) 2>/dev/null && echo memory; readlink /proc/[12]/fd/* | grep -v ^pipe: | grep -v ^anon_inode:",
		}[tier], ""},
		{"nobody without a filter", "grep -h Seccomp: /proc/[0-9]*/status | sort -u", "Seccomp:\t2\n"},
		{"its environment", "grep -l only-for-the-executor /proc/*/environ 2>/dev/null", ""},
		{"descriptors", "ls /proc/self/fd", "0\n1\n2\n3\n"}, // 3 is the directory that it reads
		{"read-only", `for f in / /usr /etc /dev /run /proc/sys/kernel; do touch $f/x 2>/dev/null && echo $f; done; (echo x >$ARGS_FILE) 2>/dev/null && echo args; (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo core`, ""},
		{"what is its own", `for f in $HOME $TMPDIR /dev/shm; do echo x >$f/y && cat $f/y; done; pwd; hostname; id -u; id -un`, "x\nx\nx\n/work\nsandbox\n1000\ntool\n"},
		{"devices work", "head -c 3 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c; echo x >/dev/null; echo x >/dev/stderr && echo y >/dev/stdout; cat /dev/stdin </dev/null", " 00 00 00\n8\ny\n"},
		{"limits", "ulimit -n; ulimit -c", "4096\n0\n"},
		{"sizes", "head -c 300000000 /dev/zero >$TMPDIR/x 2>/dev/null || echo full; head -c 70000000 /dev/zero >/dev/shm/x 2>/dev/null || echo full", "full\nfull\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout strings.Builder
			if _, err := e.Run(t.Context(), shell(c.text), &stdout, nil); err != nil || stdout.String() != c.want {
				t.Errorf("%v; it printed\n%s\nand this is right:\n%s", err, stdout.String(), c.want)
			}
		})
	}
}

func TestSandboxNetwork(t *testing.T) { eachOf(t, boxes, testSandboxNetwork) }

func testSandboxNetwork(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	devices := func(network string) string {
		j := shell("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
		j.Spec.Common().Network = network
		exit, err := e.Run(t.Context(), j, nil, nil)
		want := network
		if want == "" {
			want = "none"
		}
		if err != nil || exit.Isolation.Network != want || exit.Isolation.Tier != tier {
			t.Errorf("network %q: %+v, %v", network, exit, err)
		}
		return run(t, e, j)
	}
	for _, network := range []string{"", "none"} {
		if got := devices(network); !strings.Contains(got, "lo\n") || strings.Contains(got, "eth") {
			t.Errorf("network %q has the devices %q", network, got)
		}
	}
	host, err := exec.Command("sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").Output()
	if got := devices("host"); err != nil || got != string(host) {
		t.Errorf("the host's network has the devices %q, not %q, %v", host, got, err)
	}
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		j := job("/usr/bin/python3", "-c", "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.send(b'to itself'); print(s.accept()[0].recv(99).decode())")
		if got := run(t, e, j); got != "to itself\n" {
			t.Errorf("on its own network it printed %q", got)
		}
	}
}

// The numbers are those of this architecture, by the names of x/sys: what is denied is tried as a tool would.
func TestSandboxDeniesSystemCalls(t *testing.T) { eachOf(t, fences, testSandboxDeniesSystemCalls) }

func testSandboxDeniesSystemCalls(t *testing.T, tier string) {
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("SKIPPED: there is no python3 to make system calls with")
	}
	e := newEngine(t, in(t, tier))
	inLandlock := func(errno unix.Errno) unix.Errno {
		if tier == TierLandlock {
			return errno
		}
		return 0
	}
	for _, c := range []struct {
		name string
		call string // of libc's syscall
		want unix.Errno
	}{
		{"unshare", fmt.Sprintf("%d, %d", unix.SYS_UNSHARE, unix.CLONE_NEWUSER), unix.EPERM},
		{"clone", fmt.Sprintf("%d, %d, 0, 0, 0, 0", unix.SYS_CLONE, unix.CLONE_NEWUSER|17), unix.EPERM},
		{"clone3", fmt.Sprintf("%d, 0, 0", unix.SYS_CLONE3), unix.ENOSYS},
		{"mount", fmt.Sprintf("%d, 0, 0, 0, 0, 0", unix.SYS_MOUNT), unix.EPERM},
		{"umount2", fmt.Sprintf("%d, 0, 0", unix.SYS_UMOUNT2), unix.EPERM},
		{"ptrace", fmt.Sprintf("%d, 0, 0, 0, 0", unix.SYS_PTRACE), unix.EPERM},
		{"process_vm_readv", fmt.Sprintf("%d, 1, 0, 0, 0, 0, 0", unix.SYS_PROCESS_VM_READV), unix.EPERM},
		{"bpf", fmt.Sprintf("%d, 0, 0, 0", unix.SYS_BPF), unix.EPERM},
		{"keyctl", fmt.Sprintf("%d, 0, 0", unix.SYS_KEYCTL), unix.EPERM},
		{"io_uring_setup", fmt.Sprintf("%d, 0, 0", unix.SYS_IO_URING_SETUP), unix.EPERM},
		{"userfaultfd", fmt.Sprintf("%d, 0", unix.SYS_USERFAULTFD), unix.EPERM},
		{"perf_event_open", fmt.Sprintf("%d, 0, 0, 0, 0, 0", unix.SYS_PERF_EVENT_OPEN), unix.EPERM},
		{"personality", fmt.Sprintf("%d, 0x40000", unix.SYS_PERSONALITY), unix.EPERM},
		{"vsock", fmt.Sprintf("%d, %d, 1, 0", unix.SYS_SOCKET, unix.AF_VSOCK), unix.EAFNOSUPPORT},
		{"packet socket", fmt.Sprintf("%d, %d, 3, 0", unix.SYS_SOCKET, unix.AF_PACKET), unix.EAFNOSUPPORT},
		{"alg socket", fmt.Sprintf("%d, %d, 5, 0", unix.SYS_SOCKET, unix.AF_ALG), unix.EAFNOSUPPORT},
		{"typing for others", fmt.Sprintf("%d, 0, %d, 0", unix.SYS_IOCTL, unix.TIOCSTI), unix.EPERM},
		{"what is allowed: personality", fmt.Sprintf("%d, 0xffffffff", unix.SYS_PERSONALITY), 0},
		{"what is allowed: socket", fmt.Sprintf("%d, %d, 1, 0", unix.SYS_SOCKET, unix.AF_INET6), inLandlock(unix.EAFNOSUPPORT)},
		{"shared memory", fmt.Sprintf("%d, 4711, 4096, 0o1600", unix.SYS_SHMGET), inLandlock(unix.EPERM)},
		{"a message queue", fmt.Sprintf("%d, b'tool', 0o100, 0o600, 0", unix.SYS_MQ_OPEN), inLandlock(unix.EPERM)},
		{"limits of another process", fmt.Sprintf("%d, os.getppid(), 7, 0, 0", unix.SYS_PRLIMIT64), inLandlock(unix.EPERM)},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "import ctypes, os; l = ctypes.CDLL(None, use_errno=True); r = l.syscall(" + c.call + "); print(ctypes.get_errno() if r < 0 else 0)"
			if got, want := run(t, e, job(python, "-c", text)), fmt.Sprintf("%d\n", int(c.want)); got != want {
				t.Errorf("its error is %q, %q is right", got, want)
			}
		})
	}
}

func TestSandboxMounts(t *testing.T) { eachOf(t, boxes, testSandboxMounts) }

func testSandboxMounts(t *testing.T, tier string) {
	data, outside := openDir(t), openDir(t)
	for _, dir := range []string{data, outside} {
		if err := os.Chmod(dir, 0o777); err != nil { // tools have another user
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := newEngine(t, in(t, tier), func(c *Config) { c.Sandbox.MountRoots = []string{data + ":rw"} })
	with := func(text string, m ...contracts.Mount) *engines.Job {
		j := shell(text)
		j.Spec.Common().Mounts = m
		return j
	}
	if got := run(t, e, with("cat /data/file; echo x >/data/new 2>/dev/null || echo read-only", contracts.Mount{Source: data, Target: "/data"})); got != "content\nread-only\n" {
		t.Errorf("it printed %q", got)
	}
	run(t, e, with("echo x >/deep/down/new", contracts.Mount{Source: data, Target: "/deep/down", Mode: "rw"}))
	if text, err := os.ReadFile(filepath.Join(data, "new")); err != nil || string(text) != "x\n" {
		t.Errorf("it wrote %q, %v", text, err)
	}
	if got := run(t, e, with("cat /etc/one", contracts.Mount{Source: filepath.Join(data, "file"), Target: "/etc/one"})); got != "content\n" {
		t.Errorf("it printed %q", got)
	}
	if err := os.Symlink(outside, filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]contracts.Mount{
		"elsewhere":                  {Source: outside, Target: "/data"},
		"a link to elsewhere":        {Source: filepath.Join(data, "link"), Target: "/data"},
		"what is not there":          {Source: filepath.Join(data, "nothing"), Target: "/data"},
		"in the place of the system": {Source: data, Target: "/proc"},
	} {
		j := with("cat /data/file", m)
		j.Starting = func() error { t.Errorf("%s: Starting was called", name); return nil }
		if _, err := e.Run(t.Context(), j, nil, nil); err == nil {
			t.Errorf("%s was mounted", name)
		}
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("something was written elsewhere: %v", names)
	}
}

func TestSandboxShowsTheContractsDirectory(t *testing.T) {
	eachOf(t, fences, testSandboxShowsTheContractsDirectory)
}

func testSandboxShowsTheContractsDirectory(t *testing.T, tier string) {
	base := openDir(t)
	if err := os.WriteFile(filepath.Join(base, "tool.sh"), []byte("#!/bin/sh\ncat \"$0\" | wc -l; echo x >here 2>/dev/null || echo read-only; ls secret; cat key\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(base, 0o755), os.MkdirAll(filepath.Join(base, "secret"), 0o755), os.WriteFile(filepath.Join(base, "secret", "a"), nil, 0o644), os.WriteFile(filepath.Join(base, "key"), []byte("key"), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	e := newEngine(t, in(t, tier), func(c *Config) {
		c.Sandbox.Secrets = []string{filepath.Join(base, "secret"), filepath.Join(base, "key")}
	})
	j := job("./tool.sh")
	j.Contract.BaseDir, j.Spec.Common().Cwd = base, "."
	var code contracts.Code
	if _, err := e.Run(t.Context(), j, nil, nil); err == nil {
		t.Error("a contract that came over the bus chose what it sees")
	} else if code = errorCode(err); code != contracts.PolicyDenied {
		t.Errorf("%v", err)
	}
	aside := shell("dir=" + filepath.Dir(base) + "; cat $dir/" + filepath.Base(base) + "/key 2>/dev/null; echo ran")
	aside.Contract.BaseDir = base
	for name, needs := range map[string]func(*contracts.LocalSpec){
		"its file": func(s *contracts.LocalSpec) {
			s.Shell, s.Command = false, contracts.Command{Argv: []string{"./tool.sh"}}
		},
		"an argument": func(s *contracts.LocalSpec) { s.Command.Argv = append(s.Command.Argv, base+"/key") },
		"a variable":  func(s *contracts.LocalSpec) { s.Env = contracts.Variables{"KEY": base + "/key"} },
		"its cwd":     func(s *contracts.LocalSpec) { s.Cwd = base + "/" },
	} {
		j := shell("echo ran")
		j.Contract.BaseDir = base
		needs(j.Spec.(*contracts.LocalSpec))
		if _, err := e.Run(t.Context(), j, nil, nil); errorCode(err) != contracts.PolicyDenied {
			t.Errorf("%s is in the directory of a contract that came over the bus: %v", name, err)
		}
	}
	if got, _ := output(t, e, aside); got != "ran\n" {
		t.Errorf("a tool that does not need the directory of its contract printed %q", got)
	}
	j.Contract.File = filepath.Join(base, "tool.yaml")
	var stdout strings.Builder
	if _, err := e.Run(t.Context(), j, &stdout, nil); err != nil || stdout.String() != "2\nread-only\n" {
		t.Errorf("%v, it printed %q", err, stdout.String())
	}
	t.Run("not what it does not see", func(t *testing.T) {
		j := job(filepath.Join(t.TempDir(), "x"))
		if err := os.WriteFile(j.Spec.Common().Command.Argv[0], []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Run(t.Context(), j, nil, nil); errorCode(err) != contracts.SpawnFailed || !strings.Contains(err.Error(), "execution.local.sandbox.paths") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestSandboxCaches(t *testing.T) { eachOf(t, boxes, testSandboxCaches) }

func testSandboxCaches(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	with := func(text string) *engines.Job {
		j := shell(text)
		j.Spec.Common().CacheMounts = contracts.CacheMounts{{Name: "inner", Path: "~/.cache/pip"}, {Name: "outer", Path: "~/.cache"}, {Name: "far", Path: "/var/cache/far"}}
		return j
	}
	run(t, e, with("mkdir ~/.cache/d; echo 1 >~/.cache/d/a; echo 2 >~/.cache/pip/b; echo 3 >/var/cache/far/c"))
	if got := run(t, e, with("cat ~/.cache/d/a ~/.cache/pip/b /var/cache/far/c; ls -A")); got != "1\n2\n3\n.cache\n" {
		t.Errorf("the next run found %q", got)
	}
}

// The rights of root make much possible that an ordinary user cannot do, and the other way round.
func TestSandboxOfAnOrdinaryUser(t *testing.T) { eachOf(t, fences, testSandboxOfAnOrdinaryUser) }

func testSandboxOfAnOrdinaryUser(t *testing.T, tier string) {
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in(t, tier) // is it there?
	script := "id -u; cat /proc/self/uid_map; echo x >y; cat y; grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; for p in /proc/[0-9]*; do [ ${p#/proc/} -lt 50 ] || echo $p; done"
	one := `1000\n +1000 +65534 +1\nx\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nSeccomp:\t2\n`
	if tier == TierLandlock {
		script = "id -u; echo x >y; cat y; grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; cat /proc/1/environ 2>/dev/null; (echo x >/var/tmp/x) 2>/dev/null && echo wrote; ls /var/tmp /etc 2>/dev/null; true"
		one = `65534\nx\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n`
	}
	c := helper{DataDir: dir, Capture: true, Sandbox: true, Tier: tier, Times: 3}.command(t, "/bin/sh", "-c", script)
	asNobody(t, c, dir)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	three := regexp.MustCompile("^(" + one + "){3}$")
	if os.Getuid() == 0 && !three.Match(out) {
		t.Errorf("it printed\n%s", out)
	}
}

func TestKilledExecutorLeavesNoSandbox(t *testing.T) {
	eachOf(t, fences, testKilledExecutorLeavesNoSandbox)
}

func testKilledExecutorLeavesNoSandbox(t *testing.T, tier string) {
	for name, withShim := range map[string]bool{"the executor": false, "the executor and its helper at once": true} {
		t.Run(name, func(t *testing.T) {
			in(t, tier) // is it there?
			marker := fmt.Sprintf("%016x", rand.Uint64())
			data := openDir(t)
			c := helper{DataDir: data, Capture: true, Sandbox: true, Tier: tier}.command(t, enginetest.Build(t), "mark:"+marker, "daemon:2", "ignore-term", "block", "forkbomb:20:setsid", "out:up\n", "ignore-term", "block")
			stdout, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(stdout, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			shim := busyShim(t, c.Process.Pid)
			enginetest.Eventually(t, "the bomb has gone off", func() bool { return len(enginetest.Marked(marker)) > 20 })
			if withShim {
				unix.Kill(shim, unix.SIGSTOP)
				c.Process.Kill()
				unix.Kill(shim, unix.SIGKILL)
			}
			c.Process.Kill()
			c.Wait()
			if withShim && tier == TierLandlock { // nothing is left that knows them; whoever comes next ends them
				next := helper{DataDir: data, Capture: true, Sandbox: true, Tier: tier}.command(t, "/bin/true")
				if out, err := next.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			enginetest.Eventually(t, "no process of the tool is left", func() bool { return len(enginetest.Marked(marker)) == 0 })
		})
	}
}

func TestKilledShimEndsItsSandbox(t *testing.T) { eachOf(t, fences, testKilledShimEndsItsSandbox) }

func testKilledShimEndsItsSandbox(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	killShim(t, e)
	// What looks after a tool is beyond its reach. In what bubblewrap makes it has no parent, and 0 is its own group.
	script := "kill -KILL $PPID; kill -STOP $PPID; printf next"
	if tier == TierBubblewrap {
		script = "printf next"
	}
	if got := run(t, e, shell(script)); got != "next" {
		t.Errorf("the next run printed %q", got)
	}
	if left := files(e); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// mounts are those of this process that a sandbox could have left: below the engine's directory, or over files of the system.
// Others on this machine may mount what they want meanwhile.
func mounts(t *testing.T, e *Engine) (list []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if at := strings.Fields(line)[4]; within(e.config.DataDir, at) || at == "/proc/keys" || slices.Contains([]string{sandbox.Home, sandbox.Temp, sandbox.ArgsFile}, at) {
			list = append(list, line)
		}
	}
	return list
}

func TestSandboxLeavesNoMounts(t *testing.T) { eachOf(t, boxes, testSandboxLeavesNoMounts) }

func testSandboxLeavesNoMounts(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	before := mounts(t, e)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				run(t, e, tool(t, "daemon:1", "block", "out:x"))
			}
		})
	}
	group.Wait()
	if after := mounts(t, e); !slices.Equal(after, before) {
		t.Errorf("the mounts were %q, and are %q", before, after)
	}
}

func TestLimits(t *testing.T) { eachOf(t, fences, testLimits) }

func testLimits(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier), func(c *Config) { c.Sandbox.oldKernel = true }) // on a later one that of processes needs no cgroup
	for controller, spec := range map[string]contracts.CommonSpec{
		memoryController: {MemoryLimit: 64 << 20}, cpuController: {CPULimit: 200}, pidsController: {PidsLimit: 10},
	} {
		t.Run(controller, func(t *testing.T) {
			with := func(script ...string) *engines.Job {
				spec.Command.Argv = append([]string{enginetest.Build(t)}, script...)
				return jobOf(contracts.LocalSpec{CommonSpec: spec})
			}
			if !e.limits(controller) {
				if err := e.Check(with().Contract); errorCode(err) != contracts.Unsupported {
					t.Errorf("Check says %v of what cannot be enforced", err)
				}
				t.Skipf("SKIPPED: no cgroup with the controller %s can be made here", controller)
			}
			if err := e.Check(with().Contract); err != nil {
				t.Fatal(err)
			}
			want := limitsCgroup
			if !e.cgroups.has(controller) {
				want = limitsRlimit // limits_test.go has what comes of that
			}
			exit, err := e.Run(t.Context(), with(), nil, nil)
			if err != nil || exit.Code != 0 || exit.OOMKilled || exit.Isolation.Limits != want {
				t.Errorf("within the limit: %+v, %v", exit, err)
			}
			if want != limitsCgroup {
				return
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
				if tier == TierLandlock {
					return
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

// Cgroups of an executor that is dead go at the next start, and those of others stay.
func TestCgroupsOfDeadExecutorsAreReaped(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	if e.cgroups == nil {
		t.Skip("SKIPPED: no cgroups can be made here")
	}
	h := e.cgroups.hierarchies[0]
	dead, other, living := filepath.Join(h.dir, cgroupPrefix+"999999999-1-1"), filepath.Join(h.dir, "somebody-elses"), filepath.Join(h.dir, e.cgroups.prefix+"77")
	for _, dir := range []string{dead, other, living} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Rmdir(dir) })
	}
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead, "cgroup.procs"), []byte(fmt.Sprint(c.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	newEngine(t, sandboxed(t))
	<-ended
	for dir, there := range map[string]bool{dead: false, other: true, living: true} {
		if _, err := os.Stat(dir); (err == nil) != there {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestNoSandboxIsAnError(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can take away what a sandbox needs")
	}
	const setting = "/proc/sys/user/max_user_namespaces"
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Skipf("SKIPPED: %s", err)
	}
	// In a user namespace of its own the setting is nobody else's.
	c := helper{DataDir: t.TempDir(), Capture: true, Sandbox: true}.command(t, "/bin/true")
	c.Args = append([]string{"sh", "-c", `echo 0 >` + setting + ` && exec "$0" "$@"`, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	same := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: same, GidMappings: same, GidMappingsEnableSetgroups: true}
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "sysctl -w user.max_user_namespaces") {
		t.Errorf("%v: %s", err, out)
	}
	// Where the operator says so, it goes on with a weaker one, which needs no namespaces.
	if why := offered(TierLandlock); why != "" {
		t.Errorf("this machine does not offer the tier %s: %s", TierLandlock, why)
	}
	open := openDir(t)
	weaker := helper{DataDir: open, Capture: true, Sandbox: true, MinTier: TierLandlock}.command(t, "/bin/sh", "-c", "grep Seccomp: /proc/self/status; id -u")
	args := append(c.Args[:3:3], append([]string{weaker.Path}, weaker.Args[1:]...)...)
	weaker = &exec.Cmd{Path: c.Path, Args: args, Env: weaker.Env, SysProcAttr: c.SysProcAttr}
	if out, err := weaker.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "Seccomp:\t2\n65534\n") || !strings.Contains(string(out), "in a weaker sandbox") || !strings.Contains(string(out), "the sandbox bubblewrap does not work here: ") {
		t.Errorf("%v: %s", err, out)
	}
	// Or without: nobody but root gets to this directory, so that the weaker one does not work either.
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	again := helper{DataDir: filepath.Join(closed, "data"), Capture: true, Sandbox: true, MinTier: TierNone}.command(t, "/bin/sh", "-c", "grep Seccomp: /proc/self/status; id -u")
	c.Args, c.Env = append(c.Args[:3:3], append([]string{again.Path}, again.Args[1:]...)...), again.Env
	c = &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, SysProcAttr: c.SysProcAttr}
	if out, err := c.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "Seccomp:\t0\n0\n") || !strings.Contains(string(out), "without a sandbox") {
		t.Errorf("%v: %s", err, out)
	}
	if after, _ := os.ReadFile(setting); string(after) != string(before) {
		t.Fatalf("the setting of the machine was changed from %s to %s", before, after)
	}
}
