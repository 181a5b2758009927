package docker

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// link stands between an engine and the daemon. It can hang and break.
type link struct {
	host   string
	change func(*Config) // what an engine needs to go through it

	mu    sync.Mutex
	pause time.Duration // before each 32 KiB to the daemon
	conns map[net.Conn]bool
	hangs chan struct{} // closed: goes on; nil: nothing hangs
	shut  bool          // no new connections
}

func newLink(t *testing.T) *link {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return newLinkAt(t, listener, "unix://"+path, func(*Config) {})
}

// newSecureLink makes one that is reached by tcp and TLS.
func newSecureLink(t *testing.T) *link {
	t.Helper()
	files := certificates(t)
	pair, err := tls.LoadX509KeyPair(files["cert"], files["key"])
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	return newLinkAt(t, listener, "tcp://"+listener.Addr().String(), func(c *Config) { c.CA, c.Cert, c.Key = files["ca"], files["cert"], files["key"] })
}

func newLinkAt(t *testing.T, listener net.Listener, host string, change func(*Config)) *link {
	t.Helper()
	l := &link{host: host, change: change, conns: map[net.Conn]bool{}}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			shut := l.shut
			l.mu.Unlock()
			if shut {
				conn.Close()
				continue
			}
			work.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.goOn()
		l.cut()
		work.Wait()
	})
	return l
}

func (l *link) carry(conn net.Conn) {
	l.wait() // where TLS is spoken, its handshake hangs as well
	far, err := net.Dial("unix", strings.TrimPrefix(world.api.DaemonHost(), "unix://"))
	if err != nil {
		conn.Close()
		return
	}
	l.mu.Lock()
	l.conns[conn], l.conns[far] = true, true
	pause := l.pause
	l.mu.Unlock()
	var both sync.WaitGroup
	pass := func(to, from net.Conn, pause time.Duration) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			time.Sleep(pause)
			l.wait()
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		if half, is := to.(interface{ CloseWrite() error }); is {
			half.CloseWrite()
		}
	}
	both.Go(func() { pass(far, conn, pause) })
	both.Go(func() { pass(conn, far, 0) })
	both.Wait()
	conn.Close()
	far.Close()
	l.mu.Lock()
	delete(l.conns, conn)
	delete(l.conns, far)
	l.mu.Unlock()
}

func (l *link) wait() {
	l.mu.Lock()
	hangs := l.hangs
	l.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
}

// hang makes everything stand still, as a daemon does that waits for a lock for ever.
func (l *link) hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hangs = make(chan struct{})
}

func (l *link) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hangs != nil {
		close(l.hangs)
		l.hangs = nil
	}
}

// cut ends all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
}

func (l *link) stop(stopped bool) {
	l.mu.Lock()
	l.shut = stopped
	l.mu.Unlock()
	if stopped {
		l.cut()
	}
}

// through makes an engine whose daemon is behind the link, and does not wait long.
func through(t *testing.T, l *link, change ...func(*Config)) *Engine {
	return newEngine(t, append([]func(*Config){l.change, func(c *Config) {
		c.Host, c.CallTimeout = l.host, 2*time.Second
	}}, change...)...)
}

// patient is a change for one that waits so long for the daemon that it shows.
func patient(c *Config) { c.CallTimeout = 20 * time.Second }

// ready waits until an engine is.
func ready(t *testing.T, e *Engine) {
	t.Helper()
	enginetest.Eventually(t, "the engine is ready", func() bool { return e.Ready(t.Context()) == nil })
}

func quick(t *testing.T, what string, most time.Duration, one func()) {
	t.Helper()
	begun := time.Now()
	one()
	if took := time.Since(begun); took > most {
		t.Errorf("%s took %s", what, took)
	}
}

func unavailable(t *testing.T, err error, says string) {
	t.Helper()
	if got := contracts.AsError(err); err == nil || got.Code != contracts.EngineUnavailable || !strings.Contains(got.Message, says) {
		t.Errorf("%v; engine_unavailable with %q is right", err, says)
	}
}

func TestDaemonHangs(t *testing.T) {
	toolIn(t)
	for name, make := range map[string]func(*testing.T) *link{"at a socket": newLink, "behind TLS": newSecureLink} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait
			daemonHangs(t, make(t))
		})
	}
}

func daemonHangs(t *testing.T, l *link) {
	t.Helper()
	e := through(t, l, func(c *Config) { c.Warm = Warm{Each: 2, Total: 4, MaxAge: time.Minute} })
	warmUp(t, e, func() *engines.Job { return tool("out:x") })
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	up := newWaiter("up")
	ended := make(chan error)
	go func() {
		_, err := e.Run(ctx, tool("out:up", "block"), up, io.Discard)
		ended <- err
	}()
	up.wait(t)
	awaitWarm(t, e)
	l.hang()
	quick(t, "Ready", 5*time.Second, func() { unavailable(t, e.Ready(t.Context()), "has not answered within") })
	quick(t, "Run", 10*time.Second, func() {
		_, err := e.Run(t.Context(), tool("out:x"), io.Discard, io.Discard)
		unavailable(t, err, "has not answered within")
	})
	quick(t, "the end of a run that is cancelled", 20*time.Second, func() {
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) {
			t.Errorf("it returned %v", err)
		}
	})
	l.goOn()
	enginetest.Eventually(t, "the daemon is back", func() bool { return e.Ready(t.Context()) == nil })
	if got := run(t, e, tool("out:again")); got != "again" {
		t.Error(got)
	}
	enginetest.Eventually(t, "nothing is left", func() bool { return len(left(e)) == 0 })
}

func TestDaemonGone(t *testing.T) {
	toolIn(t)
	l := newLink(t)
	e := through(t, l)
	run(t, e, tool("out:x"))
	up := newWaiter("up")
	ended := make(chan error)
	go func() {
		_, err := e.Run(t.Context(), tool("out:up", "block"), up, io.Discard)
		ended <- err
	}()
	up.wait(t)
	l.stop(true)
	quick(t, "the end of a run whose daemon is gone", 10*time.Second, func() {
		err := <-ended
		var coded *contracts.Error
		if err == nil || errors.As(err, &coded) || !strings.Contains(err.Error(), "lost the tool") {
			t.Errorf("it returned %v; the core starts it again where the engine lost it", err)
		}
	})
	quick(t, "Ready", 5*time.Second, func() { unavailable(t, e.Ready(t.Context()), "") })
	quick(t, "Run", 5*time.Second, func() {
		_, err := e.Run(t.Context(), tool("out:x"), io.Discard, io.Discard)
		unavailable(t, err, "")
	})
	l.stop(false)
	enginetest.Eventually(t, "the daemon is back", func() bool { return e.Ready(t.Context()) == nil })
	if got := run(t, e, tool("out:again")); got != "again" {
		t.Error(got)
	}
	enginetest.Eventually(t, "nothing is left", func() bool { return len(left(e)) == 0 })
}

// Close does not wait for a daemon that hangs, however much there is to remove.
func TestCloseWhileDaemonHangs(t *testing.T) {
	toolIn(t)
	l := newLink(t)
	e := through(t, l, func(c *Config) { c.Warm = Warm{Each: 2, Total: 4, MaxAge: time.Minute} })
	warmUp(t, e, func() *engines.Job { return tool("out:x") })
	e.graves.wait()
	was := mostClosing
	mostClosing = time.Second
	defer func() { mostClosing = was }()
	l.hang()
	quick(t, "to have much removed", time.Second, func() {
		for i := range 2 * mostGraves {
			e.graves.bury(fmt.Sprintf("%s-nothing-%d", e.name, i), false)
		}
	})
	quick(t, "Close", 6*time.Second, func() { e.Close() })
	l.goOn()
	enginetest.Eventually(t, "all has ended by itself", func() bool { return len(leftOf(world.api, e.name)) == 0 })
}

func TestNoDaemon(t *testing.T) {
	for host, says := range map[string]string{
		"unix:///nowhere/docker.sock": "start it, or set execution.docker.host", "tcp://127.0.0.1:1": "cannot be reached", "ssh://nobody@127.0.0.1:1": "",
	} {
		config := Default()
		config.Host, config.CallTimeout = host, 3*time.Second
		e, err := New(config, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		quick(t, host, 20*time.Second, func() {
			unavailable(t, e.Ready(t.Context()), says)
			_, err := e.Run(t.Context(), tool("out:x"), io.Discard, io.Discard)
			unavailable(t, err, says)
			e.Close()
		})
	}
	config := Default()
	config.Host = "ftp://host"
	if _, err := New(config, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "execution.docker.host") {
		t.Errorf("New says %v", err)
	}
}

// waiter is a writer that tells when it has got a text.
type waiter struct {
	text string
	mu   sync.Mutex
	got  strings.Builder
	came chan struct{}
}

func newWaiter(text string) *waiter { return &waiter{text: text, came: make(chan struct{})} }

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.got.String(), w.text)
	w.got.Write(p)
	if !before && strings.Contains(w.got.String(), w.text) {
		close(w.came)
	}
	return len(p), nil
}

func (w *waiter) wait(t *testing.T) {
	t.Helper()
	select {
	case <-w.came:
	case <-time.After(time.Minute):
		t.Fatalf("%q did not come", w.text)
	}
}

// A helper is this test binary as an executor that has runs under way, until it is killed.
const asHelper = "EXECUTOR_TEST_DOCKER_HELPER"

func helperMain() {
	config := Default()
	config.Program = os.Getenv(asHelper)
	e, err := New(config, zerolog.Nop())
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println(e.name)
	for _, script := range [][]string{{"out:up\n", "ignore-term", "block"}, {"out:up\n", "daemon:1", "block", "block"}, {"background:1", "flood:10G", "out:up\n", "block"}} {
		go func() {
			_, err := e.Run(context.Background(), tool(append([]string{"mark:" + e.name}, script...)...), os.Stdout, io.Discard)
			fmt.Println("ended:", err)
		}()
	}
	select {}
}

// An executor that is killed leaves nothing that runs, whether another one comes or not. What it was making at that moment is removed by
// the next one.
func TestExecutorKilled(t *testing.T) {
	toolIn(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), asHelper+"="+world.program, asImage+"="+testImage)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	name, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	name = strings.TrimSpace(name)
	enginetest.Eventually(t, "three tools run", func() bool { return len(enginetest.Marked(name)) >= 5 })
	volumes := anonymousVolumes(t, name)
	if len(volumes) == 0 {
		t.Error("none of its containers has a volume")
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	enginetest.Eventually(t, "the tools are gone", func() bool { return len(enginetest.Marked(name)) == 0 })
	enginetest.Eventually(t, "all that was started is gone", func() bool {
		for _, one := range leftOf(world.api, name) {
			if !strings.Contains(one, "(created") {
				return false
			}
		}
		return true
	})
	e := newEngine(t)
	enginetest.Eventually(t, "the containers are gone", func() bool { return len(leftOf(world.api, name)) == 0 })
	e.Close()
	for _, volume := range volumes {
		enginetest.Eventually(t, "the volume is gone", func() bool {
			_, err := world.api.VolumeInspect(t.Context(), volume)
			return cerrdefs.IsNotFound(err)
		})
	}
}

// anonymousVolumes are the volumes that containers of an engine have. It is by these that a volume without a name is known to be one of it.
func anonymousVolumes(t *testing.T, owner string) (all []string) {
	t.Helper()
	list, err := world.api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+owner))})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeVolume && !slices.Contains(all, m.Name) {
				all = append(all, m.Name)
			}
		}
	}
	return all
}

// The reaper removes what a dead executor made and never started, and nothing of others.
func TestReaper(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	createAs := func(name string, labels map[string]string) string {
		c, err := world.api.ContainerCreate(t.Context(), &container.Config{Image: testImage, Cmd: []string{"/bin/testtool", "block"}, Labels: labels}, &container.HostConfig{NetworkMode: "none"}, nil, nil, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			world.api.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true})
		})
		return c.ID
	}
	number := 0
	create := func(labels map[string]string) string {
		name := ""
		if owner := labels[labelOwner]; owner != "" {
			number++
			name = fmt.Sprintf("%s-t%d-%d", owner, os.Getpid(), number)
		}
		return createAs(name, labels)
	}
	start := func(id string) string {
		if err := world.api.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	// Of an owner that seems dead: the reaper of another executor on the daemon may take it before it is started.
	startDead := func(create func() string) (id string) {
		enginetest.Eventually(t, "a container runs", func() bool {
			id = create()
			err := world.api.ContainerStart(t.Context(), id, container.StartOptions{})
			if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
				t.Fatal(err)
			}
			return err == nil
		})
		return id
	}
	exists := func(id string) bool {
		_, err := world.api.ContainerInspect(t.Context(), id)
		return err == nil
	}
	of := func(owner, role string, deadline time.Time) map[string]string {
		l := e.labels(role, deadline)
		l[labelOwner] = owner
		return l
	}
	later := time.Now().Add(time.Hour)
	anchor, err := e.anchor.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.stop() // its own reaper, which else looks at any moment
	e.work.Wait()
	dead, alive := fmt.Sprintf("executor-test-dead%d", os.Getpid()), fmt.Sprintf("executor-test-alive%d", os.Getpid())
	running := start(create(of(alive, roleAnchor, time.Time{}))) // before all else of it: by this all reapers know that it lives
	gone := map[string]string{
		"made, and never started":        create(of(dead, roleRun, later)),
		"running, long after its time":   startDead(func() string { return create(of(dead, roleRun, time.Now().Add(-time.Minute))) }),
		"our own, which has ended":       create(of(e.name, roleRun, later)), // and could not be removed then
		"our own, long after its time":   start(create(of(e.name, roleWarm, time.Now().Add(-time.Minute)))),
		"the anchor of a dead executor":  create(of(dead, roleAnchor, time.Time{})),
		"our own anchor that we lost":    start(create(of(e.name, roleAnchor, time.Time{}))),
		"of a cache that was to be made": create(of(dead, roleCache, later)),
	}
	kept := map[string]string{
		"running, in its time": start(create(of(alive, roleRun, later))),
		"our own anchor":       anchor,
		"an anchor that runs":  running,
		"without our label":    create(map[string]string{labelOwner: dead}),
		"with half of it":      create(map[string]string{labelManaged: "true"}),
		"without any":          create(nil),
		"somebody else's tool": start(create(map[string]string{"com.example": "x"})),
		// Its executor lives, and knows better; perhaps it is only its clock that is another.
		"running, long after its time, of a living executor": start(create(of(alive, roleRun, time.Now().Add(-time.Minute)))),
		// Labels go on to what is made of a container: docker commit, and a container of that.
		"made of an image of ours": start(createAs("", of(dead, roleRun, time.Now().Add(-time.Minute)))),
	}
	theirs := fmt.Sprintf("executor-test-theirs:%d", os.Getpid())
	if err := importImage(t.Context(), world.api, theirs, map[string][]byte{"file": nil}, "LABEL "+labelManaged+"=true"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImages(world.api, theirs) })
	mine := []string{e.name, dead, alive, theirs}
	err = e.reapOlder(t.Context(), func(of string) time.Duration {
		if slices.Contains(mine, of) {
			return 0
		}
		return abandoned // others may be about to start what they made
	})
	if err != nil {
		t.Fatal(err)
	}
	e.graves.wait()
	for what, id := range gone {
		if exists(id) {
			t.Errorf("it is still there: %s", what)
		}
	}
	for what, id := range kept {
		if !exists(id) {
			t.Errorf("it was removed: %s", what)
		}
	}
	if _, err := world.api.ImageInspect(t.Context(), theirs); err != nil {
		t.Errorf("an image that has our label and not our name was removed: %s", err)
	}
}

// How old something is is a matter of the daemon's clock, whatever that of the executor says.
func TestReaperByClockOfDaemon(t *testing.T) {
	for name, c := range map[string]struct{ ahead, age time.Duration }{"behind": {-time.Hour, time.Second}, "ahead": {time.Hour, time.Hour}} {
		clock := time.Now().Add(c.ahead)
		removed := make(chan string, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Api-Version", oldestAPI)
			labels := func(role string) string {
				return fmt.Sprintf(`{%q:"true",%q:"executor-test",%q:%q}`, labelManaged, labelOwner, labelRole, role)
			}
			switch {
			case q.Method == http.MethodDelete:
				removed <- q.URL.Path
				w.WriteHeader(http.StatusNoContent)
			case strings.HasSuffix(q.URL.Path, "/info"):
				fmt.Fprintf(w, `{"SystemTime":%q}`, clock.Format(time.RFC3339Nano))
			case strings.HasSuffix(q.URL.Path, "/containers/json"):
				fmt.Fprintf(w, `[{"Id":"111111111111","Names":["/executor-test-anchor-1"],"State":"running","Created":%d,"Labels":%s},{"Id":"222222222222","Names":["/executor-test-1"],"State":"created","Created":%[1]d,"Labels":%[3]s}]`,
					clock.Add(-c.age).Unix(), labels(roleAnchor), labels(roleRun))
			default:
				io.WriteString(w, "[]")
			}
		}))
		d, err := connect(Config{Host: "tcp://" + server.Listener.Addr().String(), CallTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		e := &Engine{daemon: d, graves: newGraves(d, zerolog.Nop()), held: &names{}, log: zerolog.Nop()}
		if err := e.reap(t.Context()); err != nil {
			t.Error(err)
		}
		e.graves.wait()
		if was := len(removed) == 1; was != (c.age > abandoned) {
			t.Errorf("where the daemon's clock is %s, that what is %s old was removed is %t", name, c.age, was)
		}
		d.Close()
		server.Close()
	}
}

// The reaper leaves alone what its own engine uses, whatever the label of a deadline says.
func TestReaperLeavesRuns(t *testing.T) {
	toolIn(t)
	e := newEngine(t, func(c *Config) { c.Warm.MaxAge = -time.Hour }) // so the deadline has passed
	j := with(func(s *contracts.DockerSpec) { s.Timeout = contracts.Duration(time.Second) }, "out:x", "sleep:500ms")
	j.Starting = func() error {
		err := e.reap(t.Context())
		e.graves.wait()
		return err
	}
	if got := run(t, e, j); got != "x" {
		t.Error(got)
	}
}

// An anchor that is being made goes on being made when nobody waits for it, and there is one then.
func TestAnchorOutlivesItsCaller(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if _, err := e.anchor.get(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	enginetest.Eventually(t, "there is an anchor", func() bool { return e.anchor.current() != "" })
	if all := leftOf(world.api, e.name); len(all) != 1 {
		t.Errorf("there are %q", all)
	}
}

// An anchor that was lost just before Close leaves nothing either.
func TestAnchorLostBeforeClose(t *testing.T) {
	toolIn(t)
	program := filepath.Join(t.TempDir(), "executor")
	if err := os.WriteFile(program, fmt.Appendf(must(os.ReadFile(world.program)), "%d", time.Now().UnixNano()), 0o755); err != nil { // of which nobody else has an image
		t.Fatal(err)
	}
	e := newEngine(t, func(c *Config) { c.Program = program })
	id, err := e.anchor.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	image := e.anchor.imageName()
	e.anchor.lost(id)
	e.Close()
	if _, err := world.api.ImageInspect(t.Context(), image); err == nil {
		t.Errorf("%s is left", image)
		removeImages(world.api, image)
	}
}

// deaf is a connection that takes nothing and knows no deadlines, as one by ssh.
type deaf struct{ net.Conn }

func (deaf) SetDeadline(time.Time) error      { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

// Nobody waits for a connection that takes nothing.
func TestDeafConnection(t *testing.T) {
	opened := func() *box {
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close(); near.Close() })
		b := &box{daemon: &daemon{host: "ssh://there", timeout: 200 * time.Millisecond}, streams: types.NewHijackedResponse(deaf{near}, ""), over: make(chan struct{})}
		b.stdout, b.stderr = &splitter{box: b}, &splitter{box: b}
		return b
	}
	q := &boot.Request{Mark: newMark()}
	quick(t, "a request", 10*time.Second, func() { unavailable(t, opened().prepare(t.Context(), q), "send the request") })
	quick(t, "a command", 10*time.Second, func() { opened().command(boot.Go) })
	quick(t, "a request that is cancelled", 10*time.Second, func() {
		cause := errors.New("enough")
		b := opened()
		b.daemon.timeout = time.Hour
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		if err := b.prepare(ctx, q); !errors.Is(err, cause) {
			t.Errorf("it returned %v", err)
		}
	})
}

// That there is no room for a process is the fault of a contract that bounds their number, and of the daemon's machine else.
func TestNoRoomForProcesses(t *testing.T) {
	d, err := connect(Config{Host: "unix:///nowhere/docker.sock", CallTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for limited, code := range map[bool]contracts.Code{true: contracts.Unsupported, false: contracts.EngineUnavailable} {
		b := &box{daemon: d, limited: limited}
		b.stdout, b.stderr = &splitter{box: b}, &splitter{box: b}
		b.stderr.Write([]byte("exec: resource temporarily unavailable\n"))
		if got := contracts.AsError(b.broken(t.Context(), errBroken)); got.Code != code || !strings.Contains(got.Message, map[bool]string{true: "nproc", false: "temporarily unavailable"}[limited]) {
			t.Errorf("where the contract has ulimits (%t): %s", limited, got)
		}
	}
}

// A link over which this program takes longer than a call may: the engine says so, and comes to be ready.
func TestSlowLink(t *testing.T) {
	toolIn(t)
	text, err := os.ReadFile(world.program)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "executor")
	if err := os.WriteFile(program, fmt.Appendf(text, "%d", time.Now().UnixNano()), 0o755); err != nil { // another one, which is not on the daemon
		t.Fatal(err)
	}
	l := newLink(t)
	l.mu.Lock()
	l.pause = 8 * time.Second / time.Duration(len(text)/(32<<10)+1)
	l.mu.Unlock()
	e := through(t, l, func(c *Config) { c.Program = program })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // enough to get there, and too little for all of the program
	defer cancel()
	unavailable(t, e.Ready(ctx), "still on its way")
	enginetest.Eventually(t, "the engine is ready", func() bool { return e.Ready(t.Context()) == nil })
}

// Contracts with different timeouts have no containers in common: those carry the time at which they are overdue.
func TestKindsByTimeout(t *testing.T) {
	short, long := &plan{timeout: time.Second}, &plan{timeout: time.Hour}
	if short.key() == long.key() {
		t.Error("containers with different timeouts are of the same kind")
	}
}

// Runs that need the same cache do not wait one after another for a daemon that hangs, nor for longer than anybody waits for them.
func TestCacheWhileDaemonHangs(t *testing.T) {
	toolIn(t)
	l := newLink(t)
	e, e2 := through(t, l), through(t, l, patient)
	ready(t, e)
	ready(t, e2)
	l.hang()
	var group sync.WaitGroup
	quick(t, "what eight runs wait for a cache", 6*time.Second, func() {
		for range 8 {
			group.Go(func() { unavailable(t, e.readyCache(t.Context(), "executor-test.hangs"), "has not answered within") })
		}
		group.Wait()
	})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	other, enough := context.WithCancel(t.Context())
	defer enough()
	group.Go(func() { _ = e2.readyCache(other, "executor-test.hangs") })
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	quick(t, "the end of one that is cancelled", 5*time.Second, func() {
		if err := e2.readyCache(ctx, "executor-test.hangs"); !errors.Is(err, cause) {
			t.Errorf("it returned %v", err)
		}
	})
	enough()
	group.Wait()
	place := make(chan struct{}, 1) // of a run that is making it, and does not end
	place <- struct{}{}
	e.caching.Store("executor-test.hangs", place)
	l.goOn()
	quick(t, "what one waits for another", 5*time.Second, func() {
		unavailable(t, e.readyCache(t.Context(), "executor-test.hangs"), "has not answered within")
	})
}

// The end of a run that nobody waits for any more does not wait for the daemon.
func TestEndWhileDaemonHangs(t *testing.T) {
	toolIn(t)
	l := newLink(t)
	e := through(t, l, patient)
	ready(t, e)
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	b := &box{daemon: e.daemon, graves: e.graves, held: e.held, id: e.name + "-nothing", streams: types.NewHijackedResponse(near, "")}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	l.hang()
	quick(t, "the end", 5*time.Second, func() {
		if _, err := e.ended(ctx, b, nil, engines.Exit{}, boot.End{}, errBroken); !errors.Is(err, cause) {
			t.Errorf("it returned %v", err)
		}
	})
	l.goOn()
}

// A daemon that takes a pull and says nothing of it holds up a run no longer than one that does not answer another call.
func TestPullWhileDaemonHangs(t *testing.T) {
	toolIn(t)
	l := newLink(t)
	e := through(t, l)
	ready(t, e)
	l.hang()
	quick(t, "the pull", 10*time.Second, func() {
		_, err := e.images.pull(t.Context(), must(engines.ImageName("executor-test/nothing")), "", nil)
		unavailable(t, err, "has not answered within")
	})
	l.goOn()
}
