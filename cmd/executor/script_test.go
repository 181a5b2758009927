package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program as users do: testdata/script has what is typed, and what must be seen.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("ROOT", root)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("PATH", e.Getenv("PATH")+":/usr/local/go/bin")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// ready waits until the executor dev with a data directory is ready.
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				awaitFile(ts, filepath.Join(ts.MkAbs(args[0]), devURL))
			},
			// await waits until a file is there.
			"await": func(ts *testscript.TestScript, _ bool, args []string) { awaitFile(ts, ts.MkAbs(args[0])) },
			// big makes the file big of 2 MB.
			"big": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(os.WriteFile(ts.MkAbs("big"), make([]byte, 2<<20), 0o600))
			},
			// occupy listens on a port and sets PORT to it, until the script ends.
			"occupy": func(ts *testscript.TestScript, _ bool, _ []string) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				_, port, _ := net.SplitHostPort(l.Addr().String())
				ts.Setenv("PORT", port)
			},
			// connection sets NATS_URL to that of the executor dev with a data directory.
			"connection": func(ts *testscript.TestScript, _ bool, args []string) {
				text, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), devURL))
				ts.Check(err)
				ts.Setenv("NATS_URL", strings.TrimSpace(string(text)))
			},
			"exits":    exits,
			"publish":  publish,
			"jsonkeys": jsonKeys,
			"appears":  appears,
			"prints":   prints,
			// set gives a variable what the last command printed.
			"set": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			// gone fails where a process is left whose command line holds a text.
			"gone": func(ts *testscript.TestScript, _ bool, args []string) {
				if n := processesWith(t, args[0]); n > 0 {
					ts.Fatalf("%d processes with %q are left", n, args[0])
				}
			},
		},
	})
}

// publish stores a file in a stream, with headers: publish tools.exec.local file 'Name: value'.
func publish(ts *testscript.TestScript, _ bool, args []string) {
	nc, err := nats.Connect(ts.Getenv("NATS_URL"))
	ts.Check(err)
	defer nc.Close()
	msg := nats.NewMsg(args[0])
	msg.Data = []byte(strings.TrimSuffix(ts.ReadFile(args[1]), "\n"))
	for _, header := range args[2:] {
		name, value, _ := strings.Cut(header, ": ")
		msg.Header.Set(name, value)
	}
	reply, err := nc.RequestMsg(msg, 5*time.Second)
	ts.Check(err)
	if strings.Contains(string(reply.Data), `"error"`) {
		ts.Fatalf("%s", reply.Data)
	}
}

// exits runs a program as exec does, and wants an exit code: exits 125 executor run nope.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// jsonKeys wants the keys of the JSON in a file, stdout or stderr, in alphabetical order, at a path of keys and indices in it:
// jsonkeys stdout .requests.0 engine id. What it looks at is the first document; nothing may follow the last but others.
func jsonKeys(ts *testscript.TestScript, _ bool, args []string) {
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	var first any
	for n := 0; ; n++ {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) && n > 0 {
			break
		}
		ts.Check(err)
		if n == 0 {
			first = document
		}
	}
	at := first
	for step := range strings.SplitSeq(strings.Trim(args[1], "."), ".") {
		switch place := at.(type) {
		case map[string]any:
			if step != "" {
				at = place[step]
			}
		case []any:
			i, err := strconv.Atoi(step)
			ts.Check(err)
			if i >= len(place) {
				ts.Fatalf("%s: there are %d", args[1], len(place))
			}
			at = place[i]
		}
	}
	object, ok := at.(map[string]any)
	if !ok {
		ts.Fatalf("%s is %v, not an object", args[1], at)
	}
	if got, want := strings.Join(slices.Sorted(maps.Keys(object)), " "), strings.Join(args[2:], " "); got != want {
		ts.Fatalf("%s has the keys\n%s\nwant\n%s", args[1], got, want)
	}
}

// appears waits until a file holds what a regular expression says.
func appears(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(`(?m)` + args[1])
	var text []byte
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if text, _ = os.ReadFile(ts.MkAbs(args[0])); want.Match(text) {
			return
		}
	}
	ts.Fatalf("%s did not get %s in 20 s:\n%s", args[0], args[1], text)
}

// prints runs a program until it prints what a regular expression says, or, with !, until it prints nothing like that.
func prints(ts *testscript.TestScript, not bool, args []string) {
	pattern := regexp.MustCompile(`(?m)` + args[0])
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if pattern.MatchString(ts.ReadFile("stdout")) != not {
			return
		}
	}
	ts.Fatalf("%v in 20 s: %s: not so: %s", args[1:], args[0], ts.ReadFile("stdout"))
}

func awaitFile(ts *testscript.TestScript, file string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear in 20 s", file)
}
