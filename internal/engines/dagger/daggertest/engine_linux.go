package daggertest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// Options say how the double differs from a usual engine.
type Options struct {
	Images         map[string]Image
	Platform       string                 // "": that of this machine
	NoLogs         bool                   // it has no log stream
	HangLogs       bool                   // its log stream never answers
	FailLogs       func() bool            // a request for it fails
	ForbidInsecure bool                   // it allows no privileged commands
	Beside         string                 // the program that is to stand beside tools, which is not copied for each; "": that of Program
	Lose           func(text string) bool // loses a piece of output in the log stream
}

// Query is one that was asked.
type Query struct {
	Text  string
	Trace string
}

// Engine is the double: an engine with one session.
type Engine struct {
	Port  int
	Token string

	options  Options
	dir      string
	program  string // the first one of containers
	beside   string // the one beside tools
	ctx      context.Context
	stop     context.CancelFunc
	server   *http.Server
	running  sync.WaitGroup
	shutting chan struct{}

	mu         sync.Mutex
	things     map[string]any
	executions map[string]*execution
	records    []map[string]any
	queries    []Query
	hung       chan struct{} // not nil: queries wait until it is closed
}

// logEvery is how often an engine looks for something new in its log stream.
const logEvery = 100 * time.Millisecond

// Start starts a double that ends with the test. Containers need namespaces: the test is skipped where it may not make them.
func Start(tb testing.TB, options Options) *Engine {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("SKIPPED: containers of the test double need root")
	}
	e, err := open(options, Program(tb), "")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

// open makes a double whose files are below dir; "": where temporary files are.
func open(options Options, program, dir string) (*Engine, error) {
	e := &Engine{Token: "double-" + strconv.FormatInt(time.Now().UnixNano(), 36), options: options, program: program, beside: cmp.Or(options.Beside, program),
		things: map[string]any{}, executions: map[string]*execution{}, shutting: make(chan struct{})}
	var err error
	if e.dir, err = os.MkdirTemp(dir, "dagger-double-"); err != nil {
		return nil, err
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e.Port = listener.Addr().(*net.TCPAddr).Port
	routes := http.NewServeMux()
	routes.HandleFunc("POST /query", e.query)
	if !options.NoLogs {
		routes.HandleFunc("GET /v1/logs", e.logs)
	}
	e.server = &http.Server{Handler: e.known(routes), ReadHeaderTimeout: time.Minute}
	go e.server.Serve(listener)
	return e, nil
}

// Close ends the double with all that runs in it.
func (e *Engine) Close() {
	e.Resume()
	close(e.shutting)
	e.stop()
	e.server.Close()
	e.running.Wait()
	os.RemoveAll(e.dir)
}

// Drop ends all connections and listens no more, as an engine that is killed.
func (e *Engine) Drop() { e.server.Close() }

// Use has sessions of the SDK's kind, and ours, be those of the double.
func (e *Engine) Use(tb testing.TB) {
	for name, value := range map[string]string{"DAGGER_SESSION_PORT": strconv.Itoa(e.Port), "DAGGER_SESSION_TOKEN": e.Token} {
		if t, is := tb.(interface{ Setenv(string, string) }); is {
			t.Setenv(name, value)
		}
	}
}

// Queries are all that were asked, in order.
func (e *Engine) Queries() []Query {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.queries)
}

// Runs are the commands that were run to an end or are under way, each once.
func (e *Engine) Runs() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.executions {
		x.mu.Lock()
		if x.started {
			n++
		}
		x.mu.Unlock()
	}
	return n
}

// Hang has queries wait until Resume.
func (e *Engine) Hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung == nil {
		e.hung = make(chan struct{})
	}
}

// Resume undoes Hang.
func (e *Engine) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung != nil {
		close(e.hung)
		e.hung = nil
	}
}

// Cache is the directory of a cache volume.
func (e *Engine) Cache(key string) string { return filepath.Join(e.dir, "cache-"+key) }

func (e *Engine) platform() string {
	if e.options.Platform != "" {
		return e.options.Platform
	}
	return "linux/" + runtime.GOARCH
}

// known lets in who has the token.
func (e *Engine) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _, ok := r.BasicAuth(); !ok || user != e.Token {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (e *Engine) query(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Query string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	trace := ""
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 {
		trace = parts[1]
	}
	e.mu.Lock()
	e.queries = append(e.queries, Query{asked.Query, trace})
	hung := e.hung
	e.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-r.Context().Done():
			return
		}
	}
	answer := map[string]any{}
	document, err := parser.ParseQuery(&ast.Source{Input: asked.Query})
	if err == nil && len(document.Operations) == 1 {
		answer["data"], err = (&asker{e, r.Context(), trace}).fields(nil, document.Operations[0].SelectionSet)
	}
	if err != nil {
		one := map[string]any{"message": err.Error(), "path": []any{}}
		var known *queryError
		if errors.As(err, &known) && known.extensions != nil {
			one["extensions"] = known.extensions
		}
		answer = map[string]any{"data": nil, "errors": []any{one}}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// logs is the log stream: server-sent events with what was printed, as OTLP has it.
func (e *Engine) logs(w http.ResponseWriter, r *http.Request) {
	if e.options.FailLogs != nil && e.options.FailLogs() {
		http.Error(w, "bad gateway", http.StatusBadGateway)
		return
	}
	if e.options.HangLogs {
		select {
		case <-r.Context().Done():
		case <-e.shutting:
		}
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "id: \nevent: subscribed\ndata\n\n")
	w.(http.Flusher).Flush()
	seen, _ := strconv.Atoi(r.Header.Get("X-Last-Event-ID"))
	ticker := time.NewTicker(logEvery)
	defer ticker.Stop()
	for {
		e.mu.Lock()
		fresh := e.records[seen:]
		fresh = fresh[:min(len(fresh), 1000)]
		e.mu.Unlock()
		if len(fresh) == 0 {
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			case <-e.shutting:
				return
			}
			continue
		}
		seen += len(fresh)
		text, _ := json.Marshal(map[string]any{"resourceLogs": []any{map[string]any{"scopeLogs": []any{map[string]any{"logRecords": fresh}}}}})
		if _, err := fmt.Fprintf(w, "id: %d\nevent: logs\ndata: %s\n\n", seen, text); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

// pull makes a container from an image.
func (e *Engine) pull(name string, from *ctr) (*ctr, error) {
	image, is := e.options.Images[name]
	if !is {
		return nil, &queryError{message: fmt.Sprintf("failed to resolve image %q (platform: %q): failed to resolve source metadata for %s: %s: not found", name, e.platform(), name, name)}
	}
	return from.with("from", map[string]any{"address": name}, func(c *ctr) {
		c.image, c.layers, c.env, c.workdir = &image, []string{image.Dir}, slices.Clone(image.Env), image.Workdir
		c.user = image.User
	}), nil
}

// MakeImage makes the files of an image in a directory of the test: places that all images have, and the programs named, which
// must be static, in /bin. With host it also has the programs of this machine, and python.
func MakeImage(tb testing.TB, host bool, programs ...string) Image {
	tb.Helper()
	image := Image{Dir: tb.TempDir(), Host: host, Env: []string{"PATH=/opt/bin:/usr/local/bin:/usr/bin:/bin"}}
	do := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	do(os.Chmod(image.Dir, 0o755))
	for _, dir := range []string{"dev", "proc", "tmp", "etc", "opt/bin"} {
		do(os.MkdirAll(filepath.Join(image.Dir, dir), 0o755))
	}
	do(os.Chmod(filepath.Join(image.Dir, "tmp"), 0o777|os.ModeSticky))
	do(os.WriteFile(filepath.Join(image.Dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"), 0o644))
	if host {
		for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
			do(os.Symlink("usr/"+dir, filepath.Join(image.Dir, dir)))
		}
		do(os.Symlink("/usr/bin/python3", filepath.Join(image.Dir, "opt/bin/python")))
	} else {
		do(os.Mkdir(filepath.Join(image.Dir, "bin"), 0o755))
	}
	for _, program := range programs {
		text, err := os.ReadFile(program)
		do(err)
		to := filepath.Join(image.Dir, "opt/bin", filepath.Base(program))
		do(os.WriteFile(to, text, 0o755))
		do(os.Chmod(to, 0o755))
	}
	return image
}
