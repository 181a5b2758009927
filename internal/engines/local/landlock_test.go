//go:build linux

package local

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/rs/zerolog"
)

func TestLandlockShowsFilesWhereTheyAre(t *testing.T) {
	outside := openDir(t)
	if err := os.Chmod(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("x\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, in(t, TierLandlock))
	for _, c := range []struct{ name, text, want string }{
		{"what is its own", `for f in "$HOME" "$TMPDIR"; do echo x >$f/y && cat $f/y && mv $f/y $f/z && mkdir $f/d && ln -s z $f/l && mkfifo $f/p; done; [ "$PWD" = "$HOME" ] && echo home; wc -c <$ARGS_FILE`, "x\nx\nhome\n24\n"},
		{"from one to the other", `echo x >$HOME/a && mv $HOME/a $TMPDIR/b && cat $TMPDIR/b`, "x\n"},
		{"nothing of the host's", "ls / /etc /root /home /var /sys /run /tmp /dev 2>/dev/null; cat /etc/shadow /etc/hostname " + outside + "/file 2>/dev/null; true", ""},
		{"nothing to write", "for f in / /usr /etc /tmp /var/tmp /dev/shm /proc/sys/kernel " + outside + "; do (echo x >$f/x) 2>/dev/null && echo $f; done; (echo x >>" + outside + "/file) 2>/dev/null && echo file; truncate -s 0 " + outside + "/file 2>/dev/null && echo truncate; ln " + outside + "/file hard 2>/dev/null && cat hard; rm -f " + outside + "/file 2>/dev/null && echo removed; (echo x >$ARGS_FILE) 2>/dev/null && echo args", ""},
		{"users and names of the host", "id -un >/dev/null 2>&1; test -r /etc/passwd && test -r /etc/hosts && echo there", "there\n"},
		{"devices", "head -c 3 /dev/zero | od -An -tx1; echo x >/dev/null; echo x >/dev/stderr && echo y >/dev/stdout; cat /dev/stdin </dev/null; (: </dev/tty) 2>/dev/null || echo no terminal", " 00 00 00\ny\nno terminal\n"},
		{"descriptors", "ls /proc/self/fd", "0\n1\n2\n3\n"},
		{"processes of others", "n=$(cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^ARGS_FILE=); [ $n -ge 1 -a $n -le 5 ] && echo its own; ls /proc/$PPID/fd /proc/$PPID/root 2>/dev/null; kill -0 $PPID 2>/dev/null && echo signal", "its own\n"}, // its shells, cat, tr and grep
		{"limits", "ulimit -n; ulimit -c", "4096\n0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout strings.Builder
			if _, err := e.Run(t.Context(), shell(c.text), &stdout, nil); err != nil || stdout.String() != c.want {
				t.Errorf("%v; it printed\n%s\nand this is right:\n%s", err, stdout.String(), c.want)
			}
		})
	}
}

func TestLandlockNetwork(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("SKIPPED: there is no python3 to open sockets with")
	}
	e := newEngine(t, in(t, TierLandlock))
	// One that everybody may connect to, as to the bus of a machine.
	path := filepath.Join(openDir(t), "socket")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(`
import socket
def attempt(what, f):
    try: f(); print(what, "yes")
    except OSError as e: print(what, e.strerror)
attempt("tcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt("udp", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect("SOCKET"))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("pair", lambda: socket.socketpair())
attempt("pair of packets", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
attempt("pair of datagrams", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
`, "SOCKET", path)
	const no = " Address family not supported by protocol\n"
	for network, want := range map[string]string{
		"none": "tcp" + no + "udp" + no + "unix" + no + "netlink" + no + "pair yes\npair of packets yes\npair of datagrams" + no,
		"host": "tcp yes\nudp yes\nunix" + no + "netlink yes\npair yes\npair of packets yes\npair of datagrams" + no,
	} {
		j := job(python, "-c", text)
		if j.Spec.Common().Network = network; network == "none" {
			j.Spec.Common().Network = ""
		}
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
		if err != nil || exit.Isolation.Network != network || exit.Isolation.Tier != TierLandlock || stdout.String() != want {
			t.Errorf("network %s: %+v, %v; it printed\n%s\nand this is right:\n%s", network, exit, err, stdout.String(), want)
		}
	}
}

func TestLandlockMountsAndCaches(t *testing.T) {
	data, outside := openDir(t), openDir(t)
	for _, dir := range []string{data, outside} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	e := newEngine(t, in(t, TierLandlock), func(c *Config) { c.Sandbox.MountRoots = []string{data + ":rw"} })
	j := shell("cat " + data + "/file; (echo x >" + data + "/new) 2>/dev/null || echo read-only; ls " + outside + " 2>/dev/null")
	if j.Spec.Common().Mounts = (contracts.Mounts{{Source: data, Target: data}}); e.Check(j.Contract) != nil {
		t.Errorf("Check says %v", e.Check(j.Contract))
	}
	if got, _ := output(t, e, j); got != "content\nread-only\n" {
		t.Errorf("it printed %q", got)
	}
	j = shell("echo x >" + data + "/new")
	j.Spec.Common().Mounts = contracts.Mounts{{Source: data, Target: data + "/", Mode: "rw"}}
	run(t, e, j)
	if text, err := os.ReadFile(filepath.Join(data, "new")); err != nil || string(text) != "x\n" {
		t.Errorf("it wrote %q, %v", text, err)
	}
	j.Spec.Common().Mounts = contracts.Mounts{{Source: data, Target: "/data"}}
	if err := e.Check(j.Contract); errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("Check says %v of a mount that is to be elsewhere", err)
	}
	j.Spec.Common().Mounts = contracts.Mounts{{Source: outside, Target: outside}}
	if _, err := e.Run(t.Context(), j, nil, nil); errorCode(err) != contracts.PolicyDenied {
		t.Errorf("Run returned %v for a mount that nobody has allowed", err)
	}

	with := func(text string) string {
		j := shell(text)
		j.Spec.Common().CacheMounts = contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}}
		return run(t, e, j)
	}
	with("echo 1 >~/.cache/pip/a; rm -rf ~/.cache/pip")
	with("rmdir \"$(readlink ~/.cache/pip)\" 2>/dev/null; mv \"$(readlink ~/.cache/pip)\" x 2>/dev/null; true")
	if got := with("cat ~/.cache/pip/a"); got != "1\n" {
		t.Errorf("the next run found %q", got)
	}
}

// /work is what a sandbox with a view of its own calls HOME, and in landlock a directory as others. What is the machine's is shown
// there by nobody but the operator.
func TestReservedDirectories(t *testing.T) {
	c := &contracts.Contract{File: "tool.yaml"}
	for _, at := range []struct {
		dir           string
		inPlace, says string // what it is refused with; "": it is not
	}{
		{"/work", "", "another one"},
		{"/work/tools", "", ""},
		{"/", "more of the host", "another one"},
		{"/tmp", "more of the host", "another one"},
		{"/proc/1", "more of the host", "another one"},
		{"/srv", "", ""},
	} {
		for inPlace, want := range map[bool]string{true: at.inPlace, false: at.says} {
			err := (&view{inPlace: inPlace}).showable(c, at.dir, at.dir, nil, nil)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, in place %v: %v", at.dir, inPlace, err)
			}
		}
	}
	for inPlace, may := range map[bool]bool{true: true, false: false} {
		_, _, err := (&view{inPlace: inPlace}).mountSource(c, contracts.Mount{Source: "/etc", Target: "/etc"}, []string{"/etc"}, nil)
		if (err == nil) != may {
			t.Errorf("a mount of /etc that the operator allows, in place %v: %v", inPlace, err)
		}
	}
}

// All tools are one user, and Landlock knows nothing of modes.
func TestToolsThatCloseDirectoriesOfOthers(t *testing.T) {
	e := newEngine(t, in(t, TierLandlock))
	j := shell("echo content >~/.cache/pip/a")
	j.Spec.Common().CacheMounts = contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}}
	run(t, e, j)
	take := func() *workspace {
		t.Helper()
		w, err := e.space.take()
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for _, closed := range []string{"work", "tmp", "args.json"} {
		other, own := take(), take()
		other.remove()
		own.remove()
		if got := run(t, e, shell("chmod 000 "+filepath.Join(other.root, closed)+" "+filepath.Join(e.space.caches, "pip")+" && echo done")); got != "done\n" {
			t.Fatalf("it printed %q", got)
		}
		own = take()
		j := shell("cat ~/.cache/pip/a; echo x >$HOME/x; echo x >$TMPDIR/x; wc -c <$ARGS_FILE")
		j.Spec.Common().CacheMounts = contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}}
		if got := run(t, e, j); got != "content\n24\n" {
			t.Errorf("after %s was closed the next run printed %q", closed, got)
		}
		own.remove()
	}
}

// Whatever modes tools give to what is theirs, other users of the machine do not get there.
func TestDirectoriesOfRunsAreClosedToOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root runs tools as another user")
	}
	for _, tier := range []string{TierBubblewrap, TierLandlock} {
		t.Run(tier, func(t *testing.T) {
			data := openDir(t)
			e := newEngine(t, in(t, tier), func(c *Config) { c.DataDir, c.KeepFiles = data, true })
			j := shell("echo x >$HOME/file; echo x >~/cache/file; chmod 777 $HOME ~/cache $(readlink ~/cache)")
			j.Spec.Common().CacheMounts = contracts.CacheMounts{{Name: "pip", Path: "~/cache"}}
			run(t, e, j)
			files, _ := filepath.Glob(filepath.Join(e.space.dir, "*/work/file"))
			for _, file := range append(files, filepath.Join(e.space.caches, "pip/file")) {
				for user, may := range map[uint32]bool{12345: false, uint32(e.config.Sandbox.User): true} {
					c := exec.Command("/bin/cat", file)
					c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
					if text, err := c.CombinedOutput(); (err == nil) != may {
						t.Errorf("the user %d reads %s: %q, %v", user, file, text, err)
					}
				}
			}
			if len(files) != 1 {
				t.Errorf("there are %v", files)
			}
		})
	}
}

// output is what a run printed that may fail.
func output(t *testing.T, e *Engine, j *engines.Job) (string, engines.Exit) {
	t.Helper()
	var stdout strings.Builder
	exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
	if err != nil {
		t.Error(err)
	}
	return stdout.String(), exit
}

func TestSecretsAreCarvedOut(t *testing.T) {
	base := openDir(t)
	for _, file := range []string{"tool/a", "tool/config/open", "tool/config/secret", "tool/data/token", "other/x"} {
		for _, err := range []error{os.MkdirAll(filepath.Dir(filepath.Join(base, file)), 0o755), os.WriteFile(filepath.Join(base, file), []byte(file+"\n"), 0o644)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink("config/secret", filepath.Join(base, "tool/link")); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, in(t, TierLandlock), func(c *Config) {
		c.Sandbox.Paths = append(c.Sandbox.Paths, base)
		c.Sandbox.Secrets = []string{filepath.Join(base, "tool/config/secret"), filepath.Join(base, "tool/data"), "/there/is/nothing"}
	})
	text := "cd " + base + " && cat tool/a tool/config/open tool/config/secret tool/data/token tool/link other/x 2>/dev/null; ls other; ls tool tool/data 2>/dev/null"
	if got, _ := output(t, e, shell(text)); got != "tool/a\ntool/config/open\nother/x\nx\n" {
		t.Errorf("it printed %q", got)
	}
}

func TestTiersThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		release string
		says    string
	}{
		"off":        {syscall.EOPNOTSUPP, "6.8.0", "lsm=landlock"},
		"too old":    {syscall.ENOSYS, "5.10.0-28", "Linux 6.2 or later, and this is 5.10"},
		"not built":  {syscall.ENOSYS, "6.8.0", "no Landlock"},
		"filtered":   {syscall.EPERM, "6.8.0", "filter of system calls"},
		"another":    {syscall.EINVAL, "6.8.0", "invalid argument"},
		"not a call": {errors.New("odd"), "6.8.0", "odd"},
	} {
		if err := withoutLandlock(c.err, c.release); !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for how, says := range map[ended]string{{Step: "become the user 65534", Errno: int(syscall.EPERM)}: "CAP_SETUID", {Step: "open /usr", Errno: int(syscall.EACCES)}: ""} {
		if got := landlockRemedy(how); os.Geteuid() == 0 && (says == "" && got != "" || !strings.Contains(got, says)) {
			t.Errorf("%+v: %q", how, got)
		}
	}
}

// Root's tools are another user, who has to get to the directories of runs.
func TestDirectoriesThatToolsCannotGetTo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root runs tools as another user")
	}
	for _, tier := range []string{TierBubblewrap, TierLandlock} {
		t.Run(tier, func(t *testing.T) {
			closed := filepath.Join(openDir(t), "closed")
			if err := os.Mkdir(closed, 0o700); err != nil {
				t.Fatal(err)
			}
			config := Config{DataDir: filepath.Join(closed, "data"), Path: DefaultPath}
			in(t, tier)(&config)
			e, err := New(config, zerolog.Nop())
			if err == nil {
				e.Close()
			}
			if errorCode(err) != contracts.EngineUnavailable || !strings.Contains(err.Error(), "chmod o+x") || !strings.Contains(err.Error(), closed+":") {
				t.Errorf("New says %v", err)
			}
			if err := os.Chmod(closed, 0o711); err != nil {
				t.Fatal(err)
			}
			if e, err = New(config, zerolog.Nop()); err != nil {
				t.Fatal(err)
			}
			e.Close()
		})
	}
}

func TestFindBubblewrap(t *testing.T) {
	dir := openDir(t)
	place := filepath.Join(dir, "bwrap")
	const nowhere = "/nowhere/bwrap"
	try := func(mode os.FileMode, owner int) (string, error) {
		t.Helper()
		os.Remove(place)
		for _, err := range []error{os.WriteFile(place, []byte("#!/bin/sh\n"), 0o755), os.Chmod(place, mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(place, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
		return findBubblewrap([]string{nowhere, place})
	}
	if file, err := try(0o755, 0); err != nil || file != place {
		t.Errorf("%q, %v", file, err)
	}
	for mode, says := range map[os.FileMode]string{0o775: "chmod go-w", 0o757: "chmod go-w", 0o644: "chmod +x"} {
		if _, err := try(mode, 0); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if os.Geteuid() == 0 {
		if _, err := try(0o755, 65534); err == nil || !strings.Contains(err.Error(), "chown root") {
			t.Errorf("of another user: %v", err)
		}
	}
	if _, err := findBubblewrap([]string{nowhere}); err == nil || !strings.Contains(err.Error(), "apt-get install bubblewrap") {
		t.Errorf("%v", err)
	}
}

// What bwrap has to say is told, and nothing of it is left.
func TestBubblewrapThatFails(t *testing.T) {
	e := newEngine(t, in(t, TierBubblewrap), func(c *Config) { c.Sandbox.MountRoots = []string{"/var/tmp:rw"} })
	dir := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	j := shell("true")
	j.Spec.Common().Mounts = contracts.Mounts{{Source: filepath.Join(dir, "file"), Target: "/etc/passwd/none"}}
	_, err := e.Run(t.Context(), j, nil, nil)
	if errorCode(err) != contracts.SpawnFailed || !strings.Contains(err.Error(), "bwrap says: ") || !strings.Contains(err.Error(), "Not a directory") {
		t.Errorf("Run returned %v", err)
	}
	run(t, e, shell("true"))
	for _, shim := range shimsOf(os.Getpid()) {
		if left := descendants(shim); len(left) > 0 {
			t.Errorf("%d processes are left", len(left))
		}
	}
}
