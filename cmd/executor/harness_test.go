package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// instance is the program, running.
type instance struct {
	tb    testing.TB
	cmd   *exec.Cmd
	log   *lockedBuffer // its stderr
	ended chan struct{}
	err   error // of its end; read after ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts the program; at the end of the test it is killed if it still runs, and its log is shown if the test failed.
func start(tb testing.TB, stdout *os.File, args ...string) *instance {
	tb.Helper()
	return startAs(tb, stdout, nil, args...)
}

// startAs is start with changes to how the program is started.
func startAs(tb testing.TB, stdout *os.File, change []func(*exec.Cmd), args ...string) *instance {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	if built := os.Getenv("EXECUTOR_BENCH_PROGRAM"); built != "" {
		self = built
	}
	p := &instance{tb: tb, cmd: exec.Command(self, args...), log: &lockedBuffer{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "XDG_STATE_HOME="+tb.TempDir())
	p.cmd.Stderr = p.log
	for _, c := range change {
		c(p.cmd)
	}
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.stop()
		if tb.Failed() {
			tb.Logf("stderr of %v:\n%s", args, p.log)
		}
	})
	return p
}

// stop ends the program in order and waits for that.
func (p *instance) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
		p.tb.Errorf("the program did not stop in 20 s")
	}
}

// kill ends the program as a crash does.
func (p *instance) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *instance) exitCode() int {
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// dev is an executor dev in a instance of its own.
type dev struct {
	*instance
	url  string
	http string
	data string
}

// startDev starts one and waits until it is ready. config may be empty.
func startDev(tb testing.TB, config string, extra ...string) *dev {
	tb.Helper()
	d := &dev{data: filepath.Join(tb.TempDir(), "data")}
	args := append([]string{"dev", "--nats-port", "-1", "--http", "127.0.0.1:0", "--data", d.data}, extra...)
	if config != "" {
		args = append(args, "--config", writeFile(tb, "executor.yaml", config))
	}
	d.read(tb, func(w *os.File) *instance { return start(tb, w, args...) })
	return d
}

// read starts it and reads what it says about itself, until it is ready.
func (d *dev) read(tb testing.TB, start func(stdout *os.File) *instance) {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	d.instance = start(w)
	w.Close()
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if _, url, ok := strings.Cut(lines.Text(), "NATS_URL="); ok {
			d.url = url
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "HTTP"); ok {
			d.http = strings.TrimSuffix(strings.TrimSpace(rest), "/readyz")
		}
		if strings.Contains(lines.Text(), "is ready") {
			return
		}
	}
	tb.Fatal("executor dev did not become ready")
}

// startServe starts an executor on a server and waits until it is ready.
func startServe(tb testing.TB, url string, extra ...string) *instance {
	tb.Helper()
	port := freePort(tb)
	address := "127.0.0.1:" + strconv.Itoa(port)
	p := start(tb, nil, append([]string{"serve", "--server", url, "--http", address, "--data", tb.TempDir(), "--config", writeFile(tb, "executor.yaml", serveConfig)}, extra...)...)
	awaitReady(tb, address)
	return p
}

// awaitReady waits until the executor that listens there is ready.
func awaitReady(tb testing.TB, address string) {
	tb.Helper()
	eventually(tb, "the executor is ready", func() bool {
		reply, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		reply.Body.Close()
		return reply.StatusCode == http.StatusOK
	})
	http.DefaultClient.CloseIdleConnections()
}

// serveConfig allows what tests need, and has short times.
const serveConfig = `
nats: {ack_wait: 2, streams: {queue_bytes: 64Mi, reply_bytes: 256Mi, result_bytes: 64Mi, dead_bytes: 16Mi}}
executor: {slots: 4, drain_timeout: 2}
execution: {enable_sandboxing: false, local: {kill_grace: 0.5}}
policy: {inline_contracts: true, shell: true}
log: {level: debug, format: json}
`

func writeFile(tb testing.TB, name, text string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// freePort is a port below those that the system gives to whoever asks for any: nobody takes it before it is used.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	tb.Fatal("no port is free")
	return 0
}

// natsServer is a server inside of the test that can be restarted at the same place.
type natsServer struct {
	tb   testing.TB
	dir  string
	port int
	*bus.Server
}

func startNATS(tb testing.TB) *natsServer {
	tb.Helper()
	s := &natsServer{tb: tb, dir: tb.TempDir(), port: freePort(tb)}
	s.start()
	tb.Cleanup(func() { s.Stop() })
	return s
}

func (s *natsServer) start() {
	s.tb.Helper()
	var err error
	if s.Server, err = bus.StartServer(bus.ServerConfig{Port: s.port, Dir: s.dir, Log: zerolog.Nop()}); err != nil {
		s.tb.Fatal(err)
	}
}

func connectTo(tb testing.TB, url string) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

func newClient(tb testing.TB, nc *nats.Conn) *client.Client {
	tb.Helper()
	c, err := client.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// shell is a request that runs shell text.
func shell(text string) client.Request {
	return client.Request{ID: client.NewID(), Contract: &contracts.Contract{
		Name: "shell", Engine: contracts.EngineLocal,
		Spec: &contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Shell: text}}, Shell: true},
	}}
}

func wait(tb testing.TB, run *client.Run) *client.Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	result, err := run.Wait(ctx)
	if err != nil {
		tb.Fatalf("wait for %s: %v", run.ID, err)
	}
	return result
}

func begin(tb testing.TB, c *client.Client, request client.Request) *client.Run {
	tb.Helper()
	run, err := c.Start(tb.Context(), request)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(run.Close)
	return run
}

// stored reads everything that a stream has below a subject, by direct gets.
func stored(tb testing.TB, nc *nats.Conn, stream, subject string) []*nats.Msg {
	tb.Helper()
	var list []*nats.Msg
	for seq := uint64(1); ; {
		question, _ := json.Marshal(map[string]any{"seq": seq, "next_by_subj": subject})
		m, err := nc.Request("$JS.API.DIRECT.GET."+stream, question, 5*time.Second)
		if err != nil {
			tb.Fatal(err)
		}
		if m.Header.Get("Status") == "404" {
			return list
		}
		list = append(list, m)
		at, _ := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		seq = at + 1
	}
}

// types are the types of messages, as "started output finished".
func types(list []*nats.Msg) string {
	var kinds []string
	for _, m := range list {
		kinds = append(kinds, m.Header.Get(contracts.HeaderType))
	}
	return strings.Join(kinds, " ")
}

// eventually polls until the condition holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			tb.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// processesWith counts the processes whose command line holds a text.
func processesWith(tb testing.TB, text string) int {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(text)) && f != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			n++
		}
	}
	return n
}
