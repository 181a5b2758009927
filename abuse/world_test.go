//go:build linux

package abuse

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// world is what one attempt finds on the host, beside the host itself: an executor's configuration, credentials and data, a
// home directory, listeners, a process. Whatever an attempt does is to be done to these.
type world struct {
	dir     string
	mark    string // among the arguments of the attempt's processes, and in all names that it leaves
	key     int    // of objects of System V
	uid     int    // of the executor
	secrets map[string]string
	inherit *os.File // open in the executor
	args    map[string]any

	listeners []*listener
	process   *canary
	before    map[string]string
}

// newWorld makes it. It ends with the test.
func newWorld(t *testing.T, b binaries, uid int) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "abuse-")
	must(t, err)
	w := &world{dir: dir, mark: random(8), key: randomKey(), uid: uid, secrets: map[string]string{}}
	t.Cleanup(w.remove)
	must(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"etc", "data", "home", "drop", "run"} {
		must(t, os.Mkdir(w.path(name), 0o755))
		must(t, os.Chown(w.path(name), uid, uid))
	}
	must(t, os.Mkdir(w.path("root"), 0o700))
	w.args = map[string]any{
		"mark": w.mark, "key": w.key,
		"config": w.secretFile(t, "etc/executor.yaml", "config", uid),
		"creds":  w.secretFile(t, "etc/nats.creds", "creds", uid),
		"data":   w.secretFile(t, "data/token", "data", uid),
		"home":   w.secretFile(t, "home/id_ed25519", "home", uid),
		"root":   w.secretFile(t, "root/secret", "root", os.Geteuid()),
		"drop":   w.path("drop"),
	}
	w.secret("environ")
	w.secret("run")
	held := w.secretFile(t, "held", "descriptor", uid)
	w.inherit, err = os.Open(held)
	must(t, err)
	t.Cleanup(func() { w.inherit.Close() })
	must(t, os.Remove(held))
	must(t, os.WriteFile(w.path("drop/canary"), []byte("as it was\n"), 0o644))
	must(t, os.Chown(w.path("drop/canary"), uid, uid))
	w.args["setuid"] = w.path("setuid")
	must(t, copyFile(b.attacker, w.path("setuid"), 0o755))
	must(t, unix.Chmod(w.path("setuid"), 0o4755))

	w.listen(t, "nats", "tcp", "127.0.0.1:0")
	w.listen(t, "dns", "udp", "127.0.0.1:0")
	w.listen(t, "docker", "unix", w.path("run/docker.sock"))
	must(t, os.Chmod(w.path("run/docker.sock"), 0o666))
	w.listen(t, "abstract", "unix", "@abuse-"+w.mark)
	w.process = newCanary(t, b.attacker, w.secret("process"), uid)
	w.args["process"] = w.process.cmd.Process.Pid
	w.before = w.snapshot()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// secret makes a secret, which is found by its name.
func (w *world) secret(name string) string {
	w.secrets[name] = "canary-" + name + "-" + random(16)
	return w.secrets[name]
}

// secretFile makes a file with a secret that its owner alone may read.
func (w *world) secretFile(t *testing.T, file, name string, uid int) string {
	t.Helper()
	must(t, os.WriteFile(w.path(file), []byte(w.secret(name)+"\n"), 0o600))
	must(t, os.Chown(w.path(file), uid, uid))
	return w.path(file)
}

// snapshot describes all that is there, but for what the executor does in its data directory.
func (w *world) snapshot() map[string]string {
	found := map[string]string{}
	filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if strings.HasPrefix(path, w.path("data/runs")) || strings.HasPrefix(path, w.path("data/cache")) {
			return fs.SkipDir
		}
		var stat unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &stat)
		}
		text := ""
		if err != nil {
			text = ", " + err.Error()
		}
		if err == nil && entry.Type().IsRegular() && stat.Size < 1<<16 {
			all, err := os.ReadFile(path)
			text = fmt.Sprintf(", %q, %v", all, err)
		}
		if path == w.path("data") {
			return nil // has more directories by now
		}
		found[path] = fmt.Sprintf("mode %o, user %d, %d links%s", stat.Mode, stat.Uid, stat.Nlink, text)
		return nil
	})
	return found
}

// changes lists what is not as it was.
func (w *world) changes() (found []string) {
	after := w.snapshot()
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if before, was := w.before[path]; !was {
			found = append(found, path+" is new")
		} else if before != after[path] {
			found = append(found, fmt.Sprintf("%s was (%s), is (%s)", path, before, after[path]))
		}
	}
	for path := range w.before {
		if _, is := after[path]; !is {
			found = append(found, path+" is gone")
		}
	}
	return found
}

// remove removes all files, also those that an attempt has made immutable.
func (w *world) remove() {
	if os.RemoveAll(w.dir) == nil {
		return
	}
	filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if entry.IsDir() {
			os.Chmod(path, 0o700)
		}
		if entry.IsDir() || entry.Type().IsRegular() {
			if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
				unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0)
				unix.Close(fd)
			}
		}
		return nil
	})
	os.RemoveAll(w.dir)
}

// listener answers whoever comes, and counts them.
type listener struct {
	name, network, address string
	came                   atomic.Int64
}

// listen makes a listener, whose address attempts get.
func (w *world) listen(t *testing.T, name, network, address string) {
	t.Helper()
	l := &listener{name: name, network: network}
	var closer io.Closer
	if network == "udp" {
		conn, err := net.ListenPacket(network, address)
		must(t, err)
		l.address, closer = conn.LocalAddr().String(), conn
		go func() {
			for {
				_, from, err := conn.ReadFrom(make([]byte, 512))
				if err != nil {
					return
				}
				l.came.Add(1)
				conn.WriteTo([]byte("x"), from)
			}
		}()
	} else {
		socket, err := net.Listen(network, address)
		must(t, err)
		l.address, closer = socket.Addr().String(), socket
		go func() {
			for {
				conn, err := socket.Accept()
				if err != nil {
					return
				}
				l.came.Add(1)
				conn.Write([]byte("x"))
				conn.Close()
			}
		}()
	}
	t.Cleanup(func() { closer.Close() })
	w.args[name] = l.address
	w.listeners = append(w.listeners, l)
}

// reached reports whether anybody came but this call: whoever came before it has been counted when it is answered.
func (l *listener) reached() bool {
	conn, err := net.Dial(l.network, l.address)
	if err != nil {
		return true // somebody has broken it
	}
	defer conn.Close()
	if l.network == "udp" {
		conn.Write([]byte("x"))
	}
	conn.Read(make([]byte, 1))
	return l.came.Load() > 1
}

// canary is a process of the executor's user, which an attempt may get at.
type canary struct {
	cmd    *exec.Cmd
	lines  chan string
	limits string
	nice   string
	end    func()
}

func newCanary(t *testing.T, attacker, secret string, uid int) *canary {
	t.Helper()
	c := &canary{cmd: exec.Command(attacker, "canary"), lines: make(chan string, 100)}
	c.cmd.Env = []string{"SECRET=" + secret}
	c.cmd.SysProcAttr = as(uid)
	stdin, err := c.cmd.StdinPipe()
	must(t, err)
	stdout, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	c.end = sync.OnceFunc(func() {
		stdin.Close()
		c.cmd.Process.Signal(unix.SIGCONT)
		c.cmd.Wait()
	})
	t.Cleanup(c.end)
	go func() {
		defer close(c.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	if line := <-c.lines; line != "up" {
		t.Fatalf("the process to be attacked said %q", line)
	}
	c.limits, c.nice = c.read("limits"), statOf(c.cmd.Process.Pid).nice
	return c
}

func (c *canary) read(name string) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/" + name)
	return string(text)
}

// disturbed says what was done to the process. A signal of its own tells that all before it were handled.
func (c *canary) disturbed() (found []string) {
	if stat := statOf(c.cmd.Process.Pid); stat.state == "T" || stat.state == "t" {
		found = append(found, "was stopped")
		c.cmd.Process.Signal(unix.SIGCONT)
	} else if stat.nice != c.nice {
		found = append(found, "has the nice value "+stat.nice)
	}
	if limits := c.read("limits"); limits != c.limits {
		found = append(found, "has other limits")
	}
	c.cmd.Process.Signal(unix.SIGWINCH)
	for line := range c.lines {
		if line == unix.SIGWINCH.String() {
			return found
		}
		found = append(found, "got the signal: "+line)
	}
	return append(found, "is gone")
}

// as makes a process that belongs to a user.
func as(uid int) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setsid: true}
	if uid != os.Geteuid() {
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return attributes
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(bytes int) string {
	text := make([]byte, bytes)
	rand.Read(text)
	return hex.EncodeToString(text)
}

func randomKey() int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<30))
	if err != nil {
		panic(err)
	}
	return int(n.Int64()) + 1
}

func copyFile(from, to string, mode os.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, mode)
}
