//go:build linux

package chaos_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The tools. Each first writes a line with the id of its request to the file starts: that is how it is known how often it
// was started, whatever the streams say. What they print is known in every byte.
const contractsText = `
tools:
  - name: touch
    engine: local
    engine_spec: {env: {CHAOS_MARK: "@MARK@"}, command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; echo "hello $ARG_ID"']}
  - name: print
    engine: local
    engine_spec:
      env: {CHAOS_MARK: "@MARK@"}
      command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; p=0; while [ $p -lt $ARG_PARTS ]; do seq -f "out $ARG_ID $p %.0f" 1 $ARG_LINES; echo "err $ARG_ID $p" >&2; sleep $ARG_PAUSE; p=$((p+1)); done']
  - name: flood
    engine: local
    engine_spec:
      env: {CHAOS_MARK: "@MARK@"}
      command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; i=0; while [ $i -lt $ARG_TIMES ]; do cat @DIR@/pattern; sleep $ARG_PAUSE; i=$((i+1)); done']
  - name: nap
    engine: local
    engine_spec: {env: {CHAOS_MARK: "@MARK@"}, command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; sleep $ARG_SECONDS; echo "slept $ARG_ID"']}
  - name: litter
    description: leaves processes of every kind behind
    engine: local
    engine_spec:
      env: {CHAOS_MARK: "@MARK@"}
      command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; (setsid sleep 600 &); (setsid sh -c "trap : TERM; sleep 600; sleep 600; sleep 600" &); mkdir -p "$HOME/a/b" && echo x > "$HOME/a/b/c"; sleep $ARG_SECONDS; echo "left $ARG_ID"']
  - name: fail
    engine: local
    engine_spec: {env: {CHAOS_MARK: "@MARK@"}, command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; echo "failed $ARG_ID" >&2; exit 3']}
  - name: once
    engine: local
    delivery: at_most_once
    engine_spec: {env: {CHAOS_MARK: "@MARK@"}, command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; sleep $ARG_SECONDS; echo "once $ARG_ID"']}
  - name: flaky
    description: fails the first two times
    engine: local
    retry: {max_attempts: @MOST@, backoff: 0.2, max_backoff: 1, on: [failed, lost]}
    engine_spec: {env: {CHAOS_MARK: "@MARK@"}, command: [sh, -c, 'echo "$ARG_ID $$" >> @DIR@/starts; [ $(grep -c "^$ARG_ID " @DIR@/starts) -ge 3 ] || exit 5; echo "at last $ARG_ID"']}
`

// pattern is what flood prints again and again; of a length that shows where a chunk is missing.
var pattern = func() []byte {
	b := make([]byte, 1<<20+61)
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}()

func (f *fleet) writeTools() {
	f.t.Helper()
	text := strings.NewReplacer("@DIR@", f.dir, "@MARK@", f.mark, "@MOST@", strconv.Itoa(maxAttempts)).Replace(contractsText)
	for name, content := range map[string][]byte{"pattern": pattern, "tools/tools.yaml": []byte(text), "starts": nil} {
		file := filepath.Join(f.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// markVariable is in the environment of all tools, and so of all that they start.
const markVariable = "CHAOS_MARK"

// request is one that was asked, with what must come of it.
type request struct {
	id       string
	tool     string
	args     map[string]any
	timeout  float64   // seconds; 0: the contract's
	priority string    // of the queue: "", high or low
	cancel   bool      // somebody asks for its end while it runs or waits
	stored   time.Time // when the servers said that it is
	ends     []string  // statuses that it may have
}

// printed is what the tool of a request prints where it comes to its end.
func (r *request) printed() (stdout, stderr []byte) {
	var out, err bytes.Buffer
	switch r.tool {
	case "touch":
		fmt.Fprintln(&out, "hello", r.id)
	case "print":
		for p := range r.args["parts"].(int) {
			for i := range r.args["lines"].(int) {
				fmt.Fprintln(&out, "out", r.id, p, i+1)
			}
			fmt.Fprintln(&err, "err", r.id, p)
		}
	case "flood":
		return bytes.Repeat(pattern, r.args["times"].(int)), nil
	case "nap":
		fmt.Fprintln(&out, "slept", r.id)
	case "litter":
		fmt.Fprintln(&out, "left", r.id)
	case "fail":
		fmt.Fprintln(&err, "failed", r.id)
	case "once":
		fmt.Fprintln(&out, "once", r.id)
	case "flaky":
		fmt.Fprintln(&out, "at last", r.id)
	}
	return out.Bytes(), err.Bytes()
}

// newRequest makes one of a kind. Kinds are the tools, and some ways to use them.
func newRequest(kind, id string, random *rand.Rand) *request {
	r := &request{id: id, tool: kind, args: map[string]any{"id": id}, ends: []string{"succeeded"}}
	switch kind {
	case "print": // for a second or so: most faults come while it prints
		r.args["parts"], r.args["lines"], r.args["pause"] = 3+random.IntN(6), 1+random.IntN(200), "0.1"
	case "long print":
		r.tool = "print"
		r.args["parts"], r.args["lines"], r.args["pause"] = 40, 50, "0.1"
	case "flood":
		r.args["times"], r.args["pause"] = 1+random.IntN(3), "0"
	case "big flood": // for some seconds
		r.tool = "flood"
		r.args["times"], r.args["pause"] = 20, "0.1"
	case "nap":
		r.args["seconds"] = fmt.Sprintf("%.2f", 0.2+random.Float64())
	case "long nap":
		r.tool = "nap"
		r.args["seconds"] = "3.5"
	case "litter":
		r.args["seconds"] = "0.1"
	case "long litter":
		r.tool = "litter"
		r.args["seconds"] = "1.5"
	case "too long":
		r.tool, r.timeout, r.ends = "nap", 0.5, []string{"timed_out"}
		r.args["seconds"] = "30"
	case "cancelled":
		r.tool, r.cancel, r.ends = "nap", true, []string{"cancelled"}
		r.args["seconds"] = "60"
	case "fail":
		r.ends = []string{"failed"}
	case "once":
		r.args["seconds"], r.ends = "0.5", []string{"succeeded", "unknown"}
	}
	switch random.IntN(10) {
	case 0:
		r.priority = "high"
	case 1:
		r.priority = "low"
	}
	return r
}

// atMostOnce reports whether the tool may never be started twice.
func (r *request) atMostOnce() bool { return r.tool == "once" }
