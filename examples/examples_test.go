// Package examples_test runs the clients of this folder as users do, against the real program, with the connection
// breaking in the ways that connections break.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// required is set where this machine is here to run the examples: what is missing is then a failure.
var required = os.Getenv("EXECUTOR_TEST_EXAMPLES") == "1"

// program is the executor, built once.
var program string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "executor-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "executor")
	make := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/executor")
	make.Dir, make.Env, make.Stderr = "..", append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := make.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}

// missing ends a test for which something is not to be had here.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	if required {
		t.Fatal(text)
	}
	t.Skip(text + " (with EXECUTOR_TEST_EXAMPLES=1 this is a failure)")
}

// What the tools of the tests print. count writes every line by itself, over three seconds, and exits with 3.
const (
	lines     = 60
	contracts = `
name: count
engine: local
engine_spec:
  command: ["sh", "-c", "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.05; done; exit 3"]
---
name: flood
engine: local
engine_spec:
  command: ["seq", "1", "1000000"]
---
name: octets
engine: local
engine_spec:
  command: ["printf", '\000\377\r\n']
`
	config = "nats: {ack_wait: 2}\n"
)

// numbered is what count prints to one of its streams.
func numbered(word string) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintln(&b, word, i+1)
	}
	return b.String()
}

// dev is a running executor dev.
type dev struct {
	cmd  *exec.Cmd
	url  string
	once sync.Once
}

// startDev starts one on a data directory and waits until it is ready.
func startDev(t *testing.T, data string) *dev {
	t.Helper()
	files := t.TempDir()
	write(t, filepath.Join(files, "tools", "tools.yaml"), contracts)
	write(t, filepath.Join(files, "executor.yaml"), config)
	d := &dev{cmd: exec.Command(program, "dev", "--nats-port", "-1", "--http", "off", "--data", data,
		"--config", filepath.Join(files, "executor.yaml"), "--tools", "../configs/tools", "--tools", filepath.Join(files, "tools"))}
	d.cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+files)
	var log bytes.Buffer
	d.cmd.Stderr = &log
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	d.cmd.Stdout = w
	err = d.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("stderr of executor dev:\n%s", &log)
		}
	})
	out.SetReadDeadline(time.Now().Add(60 * time.Second))
	for text := bufio.NewScanner(out); text.Scan(); {
		if _, address, ok := strings.Cut(text.Text(), "NATS_URL="); ok {
			d.url = address
		}
		if strings.Contains(text.Text(), "is ready") {
			return d
		}
	}
	t.Fatal("executor dev did not become ready")
	return nil
}

// end stops it: by SIGTERM in order, by SIGKILL as a crash does.
func (d *dev) end(signal syscall.Signal) {
	d.once.Do(func() {
		d.cmd.Process.Signal(signal)
		late := time.AfterFunc(30*time.Second, func() { d.cmd.Process.Kill() })
		defer late.Stop()
		d.cmd.Wait()
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outcome is what a command printed, and its exit code.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs a command to its end.
func run(t *testing.T, dir string, env []string, command ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%v: %v %v\n%s", command, err, ctx.Err(), &stderr)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// same compares long texts and shows only where they part.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, not the %d wanted; they part at %d: %.80q, not %.80q", what, len(got), len(want), at, got[at:], want[at:])
}

// client is how one language runs a file of its examples.
type client struct {
	dir     string
	command []string
	ext     string
}

func (c client) run(t *testing.T, server, file string, args ...string) outcome {
	t.Helper()
	return run(t, c.dir, []string{"NATS_URL=" + server}, append(append(append([]string{}, c.command...), file+c.ext), args...)...)
}

func TestJavaScript(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "there is no %s", tool)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("javascript")); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(dir, "node_modules"))
	if o := run(t, dir, nil, "npm", "ci", "--no-audit", "--no-fund"); o.code != 0 {
		missing(t, "the packages cannot be had: npm ci: %s", o.stderr)
	}
	testClient(t, client{dir, []string{"node"}, ".mjs"})
}

func TestPython(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"run.py", "stream.py"} {
		if o := run(t, "python", []string{"PYTHONPYCACHEPREFIX=" + t.TempDir()}, "python3", "-m", "py_compile", file); o.code != 0 {
			t.Fatalf("%s: %s", file, o.stderr)
		}
	}
	if o := run(t, ".", nil, "python3", "-c", "import nats"); o.code != 0 {
		t.Log("nats-py is not installed here: the Python examples were compiled and not run")
		return
	}
	testClient(t, client{"python", []string{"python3", "-B"}, ".py"})
}

// testClient runs the examples of a language.
func testClient(t *testing.T, c client) {
	server := startDev(t, t.TempDir()).url

	t.Run("run", func(t *testing.T) {
		t.Parallel()
		o := c.run(t, server, "run", "text_analyzer", `{"text": "to be or not to be"}`)
		if o.code != 0 || o.stderr != "" || !strings.Contains(o.stdout, `"unique_words": 4`) {
			t.Errorf("text_analyzer: %+v", o)
		}
		if o := c.run(t, server, "run", "octets"); o.stdout != "\x00\xff\r\n" || o.code != 0 {
			t.Errorf("octets: %+v", o)
		}
		o = c.run(t, server, "run", "no_such_tool")
		if o.code != 1 || o.stdout != "" || !strings.HasPrefix(o.stderr, `rejected: there is no tool "no_such_tool"`) {
			t.Errorf("no_such_tool: %+v", o)
		}
	})
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		o := c.run(t, server, "stream", "text_analyzer", `{"text": "to be or not to be"}`)
		if o.code != 0 || o.stderr != "" || !strings.Contains(o.stdout, `"unique_words": 4`) {
			t.Errorf("text_analyzer: %+v", o)
		}
		o = c.run(t, server, "stream", "octets")
		if o.code != 0 || o.stdout != "\x00\xff\r\n" {
			t.Errorf("octets: %+v", o)
		}
		o = c.run(t, server, "stream", "no_such_tool")
		if o.code != 1 || o.stdout != "" || !strings.HasPrefix(o.stderr, `rejected: there is no tool "no_such_tool"`) {
			t.Errorf("no_such_tool: %+v", o)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		deaf := startProxy(t, server, func(p *proxy) {
			p.ask = func(m []byte) []byte { return bytes.Replace(m, []byte("PUB tools."), []byte("PUB nobody."), 1) }
		})
		o := c.run(t, deaf.url, "stream", "count")
		if o.code == 0 || !strings.Contains(o.stderr, "no executor is there") {
			t.Errorf("%+v", o)
		}
	})

	// What can happen on the way to the client.
	for name, fault := range map[string]struct {
		follows int // how often the client asks for the rest
		set     func(p *proxy)
	}{
		"cut twice": {2, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk == 20 && p.follows() == 0 || m.chunk == 50 && p.follows() == 1 {
					p.cut()
				}
				return []message{m}
			}
		}},
		"cut before anything was heard": {1, func(p *proxy) {
			cut := false
			p.answer = func(m message) []message {
				if !cut && m.has("Tools-Type: accepted") {
					cut = true
					p.cut()
				}
				return []message{m}
			}
		}},
		"one chunk lost": {1, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk == 20 && p.follows() == 0 {
					return nil
				}
				return []message{m}
			}
		}},
		"last chunks lost": {1, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk > 0 && p.follows() == 0 && (m.has("line 60\n") || m.has("error 60\n")) {
					return nil
				}
				return []message{m}
			}
		}},
		"cut, then one chunk lost": {2, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk == 20 && p.follows() == 0 {
					p.cut()
				}
				if m.chunk == 40 && p.follows() == 1 {
					return nil
				}
				return []message{m}
			}
		}},
		"silence": {1, func(p *proxy) {
			silent := false
			p.answer = func(m message) []message {
				if silent = silent || m.chunk == 20; silent && p.follows() == 0 {
					return nil
				}
				return []message{m}
			}
		}},
		"cut, then out of order": {1, func(p *proxy) {
			var held []message
			p.answer = func(m message) []message {
				switch {
				case m.chunk == 20 && p.follows() == 0:
					p.cut()
				case m.chunk == 40:
					held = []message{m}
					return nil
				case m.chunk == 42:
					return append([]message{m}, held...)
				}
				return []message{m}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, server, fault.set)
			o := c.run(t, p.url, "stream", "count")
			same(t, "stdout", o.stdout, numbered("line"))
			same(t, "stderr", o.stderr, numbered("error")+"failed: the tool exited with 3\n")
			if o.code != 3 {
				t.Errorf("exit code %d, not 3", o.code)
			}
			if p.follows() != fault.follows {
				t.Errorf("the client asked %d times for the rest, not %d", p.follows(), fault.follows)
			}
		})
	}

	t.Run("a chunk is gone", func(t *testing.T) {
		t.Parallel()
		p := startProxy(t, server, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk == 20 {
					return nil
				}
				return []message{m}
			}
		})
		o := c.run(t, p.url, "stream", "count")
		if o.code == 0 || !strings.HasPrefix(numbered("line"), o.stdout) || !strings.Contains(o.stderr, "part of the output is not kept any more") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("cut in much output", func(t *testing.T) {
		t.Parallel()
		var want strings.Builder
		for i := range 1_000_000 {
			want.WriteString(strconv.Itoa(i + 1))
			want.WriteByte('\n')
		}
		p := startProxy(t, server, func(p *proxy) {
			p.answer = func(m message) []message {
				if m.chunk == 30 && p.follows() == 0 {
					p.cut()
				}
				return []message{m}
			}
		})
		o := c.run(t, p.url, "stream", "flood")
		same(t, "stdout", o.stdout, want.String())
		if o.stderr != "" || o.code != 0 || p.follows() == 0 {
			t.Errorf("exit code %d, %d follows, stderr %s", o.code, p.follows(), o.stderr)
		}
	})

	t.Run("the executor dies", func(t *testing.T) {
		t.Parallel()
		data := t.TempDir()
		first := startDev(t, data)
		seen := make(chan struct{})
		p := startProxy(t, first.url, func(p *proxy) {
			once := sync.OnceFunc(func() { close(seen) })
			p.answer = func(m message) []message {
				if m.chunk == 20 {
					once()
				}
				return []message{m}
			}
		})
		done := make(chan outcome, 1)
		go func() { done <- c.run(t, p.url, "stream", "count") }()
		select {
		case <-seen:
		case o := <-done:
			t.Fatalf("the client ended too early: %+v", o)
		}
		first.end(syscall.SIGKILL)
		p.to(startDev(t, data).url)
		o := <-done
		for word, text := range map[string]string{"line": o.stdout, "error": strings.TrimSuffix(o.stderr, "failed: the tool exited with 3\n")} {
			text = strings.Replace(text, "attempt 2 begins; what was printed so far is void\n", "", 1)
			void, ok := strings.CutSuffix(text, numbered(word))
			if !ok || void == "" || !strings.HasPrefix(numbered(word), void) {
				t.Errorf("want the beginning and then all of it:\n%s", text)
			}
		}
		if o.code != 3 || !strings.Contains(o.stderr, "attempt 2 begins") {
			t.Errorf("exit code %d, stderr %s", o.code, o.stderr)
		}
	})
}

// TestShell runs every line of the walk with the real nats command line.
func TestShell(t *testing.T) {
	t.Parallel()
	nats := buildNATS(t)
	home := t.TempDir()
	trace := filepath.Join(home, "trace")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", `exec 9>"$TRACE"; BASH_XTRACEFD=9; PS4='+$LINENO '; set -x; source ./nats.sh`)
	cmd.Dir = "shell"
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(nats)+":"+os.Getenv("PATH"), "NATS_URL="+startDev(t, t.TempDir()).url,
		"HOME="+home, "XDG_CONFIG_HOME="+home, "TRACE="+trace)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("nats.sh: %v", err)
	}

	log, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("shell/nats.sh")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		ran := regexp.MustCompile(fmt.Sprintf(`(?m)^\++%d `, i+1)).Match(log)
		if line != "" && !strings.HasPrefix(line, "#") && !ran {
			t.Errorf("line %d was not run: %s", i+1, line)
		}
	}

	rest := string(out)
	for _, want := range []string{
		`"type":"discovery"`, `"name":"system_info"`, // discover
		`"type":"discovery"`, `"name":"text_analyzer"`, // one tool
		`"type":"result"`, `\"unique_words\": 4`, // run
		`Nats-Service-Error-Code: 404`, `there is no tool \"no_such_tool\"`, // headers
		`Tools-Seq: 1`, `"type":"result"`, "nil body", // stream
		`{"stream":"TOOLS_EXEC","seq":`,                                    // queue
		"line 3\n",                                                         // live
		`"type":"started"`, "line 1\n", "line 3\n", `"status":"succeeded"`, // follow
		`"type":"started"`, "line 2\n", "line 3\n", `"status":"succeeded"`, // resume
		`Item: TOOLS_RESULT#`, `"status":"succeeded"`, // stream get
		`"tool":"count"`, `"status":"succeeded"`, // the same again
		`{"stream":"TOOLS_EXEC","seq":`, `{"stream":"TOOLS_CANCEL","seq":1}`, `"tool":"sleeper"`, `"status":"cancelled"`, // cancel
		`TOOLS_RESULT`, `Information for Stream TOOLS_EXEC`, `Information for Consumer TOOLS_EXEC > local`, `Unprocessed Messages: 0`,
		`Information for Stream TOOLS_DEAD`, // look
		`executor`, `Subject: tools.run`, `Requests`,
	} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Errorf("not in the output, or too early: %s\n%s", want, out)
			break
		}
		rest = after
	}
}

// buildNATS builds the nats command line, of the version that the walk names.
func buildNATS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module walk\n\ngo 1.26\n\nrequire github.com/nats-io/natscli v0.3.0\n")
	if o := run(t, dir, nil, "go", "build", "-mod=mod", "-o", "nats", "github.com/nats-io/natscli/nats"); o.code != 0 {
		missing(t, "the nats command line cannot be built: %s", o.stderr)
	}
	return filepath.Join(dir, "nats")
}

// TestSize keeps the examples short enough to be read and copied, and their dependencies exact.
func TestSize(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"javascript/run.mjs", "javascript/stream.mjs", "python/run.py", "python/stream.py", "shell/nats.sh"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n >= 60 {
			t.Errorf("%s has %d lines; an example has less than 60", file, n)
		}
		for line := range strings.Lines(string(text)) {
			if len(line) > 140 {
				t.Errorf("%s: a line is too long to be read: %s", file, line)
			}
		}
	}
	for file, exact := range map[string]string{
		"javascript/package.json": `"@nats-io/transport-node": "\d+\.\d+\.\d+"`,
		"python/requirements.txt": `^nats-py==\d+\.\d+\.\d+\n$`,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(exact).Match(text) {
			t.Errorf("%s does not name an exact version", file)
		}
	}
}

func host(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
