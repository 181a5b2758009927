package dagger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// The SDK can start the CLI as well. It is not used for that: it does not heed its context while the engine is down, leaves the
// program behind, reads which one to start from our own environment, and downloads one where that names none.

// connection speaks to a session: an engineconn.EngineConn.
type connection struct {
	client    *http.Client
	transport *http.Transport
	token     string
	port      int
	child     *child // nil: the session is somebody else's
}

// Names in the environment that the SDKs of Dagger know.
const (
	envPort   = "DAGGER_SESSION_PORT"
	envToken  = "DAGGER_SESSION_TOKEN"
	envCLI    = "_EXPERIMENTAL_DAGGER_CLI_BIN"
	envRunner = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
)

// mend says how to get what is missing.
const mend = "install the Dagger CLI (https://docs.dagger.io/install) and name it in execution.dagger.cli"

// dial joins the session that the environment names, or starts one. ctx bounds the attempt, not the session. An error is a
// *contracts.Error with the code engine_unavailable; nothing is left of an attempt that failed.
func dial(ctx context.Context, config Config) (*connection, error) {
	if port := os.Getenv(envPort); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || os.Getenv(envToken) == "" {
			return nil, unavailable("%s and %s have to name a session; unset both to have one started", envPort, envToken)
		}
		return newConnection(n, os.Getenv(envToken)), nil
	}
	host := config.RunnerHost
	if host == "" {
		host = os.Getenv(envRunner)
	}
	if err := knock(ctx, host); err != nil {
		return nil, err
	}
	program, err := findCLI(config)
	if err != nil {
		return nil, err
	}
	c, port, token, err := startCLI(ctx, program, host)
	if err != nil {
		return nil, err
	}
	conn := newConnection(port, token)
	conn.child = c
	return conn, nil
}

func newConnection(port int, token string) *connection {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "tcp", address)
		},
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	return &connection{client: &http.Client{Transport: t}, transport: t, token: token, port: port}
}

// Host implements engineconn.EngineConn.
func (c *connection) Host() string { return "dagger" }

// Do implements engineconn.EngineConn.
func (c *connection) Do(r *http.Request) (*http.Response, error) {
	r.SetBasicAuth(c.token, "")
	if t := traceOf(r.Context()); t != "" {
		r.Header.Set("Traceparent", t)
	}
	answer, err := c.client.Do(r)
	if err == nil && r.Method == http.MethodPost { // not the log stream, which goes on
		answer.Body = &bounded{answer.Body, mostAnswer}
	}
	return answer, err
}

var errTooLarge = errors.New("the answer of the Dagger engine is larger than is taken")

// bounded is the body of an answer, until it is too large for memory.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// Close ends the session, if it is ours. It takes endTimeout at most.
func (c *connection) Close() error {
	if c.child != nil {
		c.child.end()
	}
	c.transport.CloseIdleConnections()
	return nil
}

// gone is closed when the program that holds the session has ended; nil where it is not ours.
func (c *connection) gone() <-chan struct{} {
	if c.child == nil {
		return nil
	}
	return c.child.ended
}

func unavailable(format string, a ...any) *contracts.Error {
	return contracts.Errorf(contracts.EngineUnavailable, format, a...)
}

// knock looks whether somebody listens where the engine is said to be: the CLI would try for minutes.
func knock(ctx context.Context, host string) error {
	where, err := url.Parse(host)
	if err != nil {
		return unavailable("execution.dagger.engine: %s; write unix:///path/to/socket or tcp://host:port", err)
	}
	network, address := where.Scheme, where.Host
	switch network {
	case "unix":
		address = where.Path
	case "tcp":
	default: // "": the CLI starts an engine; docker-container:// and others only the CLI understands
		return nil
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return unavailable("no Dagger engine listens at %s (%s); start it there, or change execution.dagger.engine", host, rootOf(err))
	}
	conn.Close()
	return nil
}

// rootOf is the innermost error, which says it shortest.
func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// findCLI returns the path of the CLI.
func findCLI(config Config) (string, error) {
	name, said := config.CLI, "execution.dagger.cli"
	if name == "" {
		name, said = os.Getenv(envCLI), envCLI
	}
	if name == "" {
		name, said = "dagger", "PATH"
	}
	file, err := exec.LookPath(name)
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) && filepath.Base(name) == name {
			return "", unavailable("there is no program %s (%s); %s", name, said, mend)
		}
		return "", unavailable("the Dagger CLI %s (%s) cannot be started: %s; %s", name, said, rootOf(err), mend)
	}
	return file, nil
}

// child is a CLI that holds a session. It ends when its stdin does, and so also when this process dies.
type child struct {
	command *exec.Cmd
	stdin   io.Closer
	said    *tail
	ended   chan struct{}
	ending  sync.Once
}

// startCLI starts a session and waits until it is ready.
func startCLI(ctx context.Context, program, host string) (*child, int, string, error) {
	command := exec.Command(program, "session", "--label", "dagger.io/sdk.name:go", "--label", "dagger.io/client.name:executor")
	command.Env = os.Environ()
	if host != "" {
		command.Env = append(command.Env, envRunner+"="+host)
	}
	// Without the first, the program keeps all that is told of runs.
	for _, entry := range []string{"DAGGER_SILENT=1", "DO_NOT_TRACK=1", "DAGGER_NO_NAG=1"} {
		name, _, _ := strings.Cut(entry, "=")
		if _, set := os.LookupEnv(name); !set {
			command.Env = append(command.Env, entry)
		}
	}
	ownGroup(command)
	c := &child{command: command, said: &tail{}, ended: make(chan struct{})}
	command.Stderr = c.said
	command.WaitDelay = time.Second // for what it leaves behind with its stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, 0, "", unavailable("start the Dagger CLI: %s", err)
	}
	c.stdin = stdin
	stdout, w, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, 0, "", unavailable("start the Dagger CLI: %s", err)
	}
	command.Stdout = w
	err = command.Start()
	w.Close()
	if err != nil {
		stdin.Close()
		stdout.Close()
		return nil, 0, "", unavailable("the Dagger CLI %s cannot be started: %s; %s", program, rootOf(err), mend)
	}
	type params struct {
		Port  int    `json:"port"`
		Token string `json:"session_token"`
	}
	ready := make(chan params, 1)
	go func() {
		defer stdout.Close()
		lines := bufio.NewReader(stdout)
		line, err := lines.ReadBytes('\n')
		var p params
		if err == nil && json.Unmarshal(line, &p) == nil && p.Port > 0 {
			ready <- p
			_, _ = io.Copy(io.Discard, lines) // to its end
		}
		close(ready)
	}()
	go func() {
		_ = command.Wait() // how it ended, its stderr says
		close(c.ended)
	}()
	select {
	case p, ok := <-ready:
		if ok {
			return c, p.Port, p.Token, nil
		}
		c.kill()
		return nil, 0, "", unavailable("the Dagger CLI did not start a session: %s", c.said.orElse("it said nothing"))
	case <-ctx.Done():
		c.kill()
		return nil, 0, "", unavailable("the Dagger CLI did not start a session in time (execution.dagger.connect_timeout): %s", c.said.orElse("it said nothing; is the engine there?"))
	}
}

// end asks the program to end, and kills it if that takes too long.
func (c *child) end() {
	c.ending.Do(func() { c.stdin.Close() })
	clock := time.NewTimer(endTimeout)
	defer clock.Stop()
	select {
	case <-c.ended:
	case <-clock.C:
	}
	c.kill()
}

// kill ends the program and what it started, and waits until it is gone.
func (c *child) kill() {
	killGroup(c.command.Process)
	c.ending.Do(func() { c.stdin.Close() })
	<-c.ended
}

// tail keeps the last lines that a program said.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write keeps the end of p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 2 << 10
	t.text = append(t.text, p[max(0, len(p)-most):]...)
	t.text = t.text[max(0, len(t.text)-most):]
	return len(p), nil
}

// orElse is what was said last, in one line, else other.
func (t *tail) orElse(other string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if said := strings.Join(strings.Fields(string(t.text)), " "); said != "" {
		return fmt.Sprintf("%.600s", said)
	}
	return other
}
