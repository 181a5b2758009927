//go:build linux

package abuse

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/abuse/internal/target"
)

// kind is what a finding is about.
type kind string

const (
	secret    kind = "secret"    // it printed what it must not know
	reached   kind = "reached"   // it got through to a listener
	changed   kind = "changed"   // files of the host are not as they were
	survived  kind = "process"   // a process of it goes on after its end
	disturbed kind = "disturbed" // another process: the executor, another run, one of the same user
	left      kind = "left"      // files, mounts, objects of the kernel
	stuck     kind = "stuck"     // its run does not end
	grew      kind = "grew"      // the executor needs much memory for it
	says      kind = "says"      // it says OPEN, and nothing is to be seen from outside
)

var kinds = []kind{secret, reached, changed, survived, disturbed, left, stuck, grew, says}

// finding is one thing that an attempt has got, and should not.
type finding struct {
	kind kind
	what string
}

func (f finding) String() string { return string(f.kind) + ": " + f.what }

// found is all that is known after an attempt.
type found struct {
	report   target.Report
	findings []finding
}

func (f *found) add(k kind, format string, a ...any) {
	f.findings = append(f.findings, finding{k, fmt.Sprintf(format, a...)})
}

// prelude is what every script begins with. The attacker comes by stdin, because that is what all tiers have. daemon runs
// shell text in a session of its own, without a parent of the run, and returns when it is up. A run whose attacker
// does not start has tried nothing.
const prelude = `mkdir .bin && cat >.bin/attacker && chmod 700 .bin/attacker && PATH=$HOME/.bin:$PATH && exec </dev/null
attacker wait 0s
echo "armed: $?"
daemon() {
	mkfifo .up
	(setsid sh -c "echo >.up; $1; :" attempt "mark:$ARG_MARK" >/dev/null 2>&1 &)
	read _ <.up
}
`

// patience is how long an attempt may take with all that belongs to it.
const patience = time.Minute

// execution is one attempt under way.
type execution struct {
	attempt *attempt
	world   *world
	cmd     *exec.Cmd
	stdin   io.Closer
	order   target.Order
	events  chan target.Event
	stderr  *os.File
	found   found
}

// execute makes an attempt on an executor of its own and says what came of it.
func execute(t *testing.T, a *attempt, b binaries, tier string, uid int) found {
	t.Helper()
	w := newWorld(t, b, uid)
	order := a.order
	order.Tier, order.DataDir, order.Victim = tier, w.path("data"), w.secrets["run"]
	order.Command = []string{"/bin/sh", "-c", prelude + a.script, "attempt", "mark:" + w.mark}
	if order.Stdin = b.attacker; a.helper != "" {
		order.Stdin = b.attacker386
	}
	e := &execution{attempt: a, world: w}
	e.start(t, b.target, order)
	died := e.watch(t)
	e.look(died)
	e.stop(t)
	if died { // whoever comes next cleans up
		next := &execution{attempt: a, world: w}
		next.start(t, b.target, target.Order{Tier: tier, DataDir: order.DataDir, Command: []string{"/bin/true"}, Stdin: os.DevNull, Timeout: patience})
		next.watch(t)
		next.stop(t)
	}
	for _, what := range w.left() {
		e.found.add(left, "%s", what)
	}
	for _, what := range w.changes() {
		e.found.add(changed, "%s", what)
	}
	return e.found
}

// start starts the executor.
func (e *execution) start(t *testing.T, file string, order target.Order) {
	t.Helper()
	w := e.world
	e.cmd = exec.Command(file)
	e.cmd.Dir = w.path("etc")
	e.cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "NATS_PASSWORD=" + w.secrets["environ"]}
	e.cmd.ExtraFiles = []*os.File{w.inherit}
	e.cmd.SysProcAttr = as(w.uid)
	var err error
	e.stderr, err = os.CreateTemp(t.TempDir(), "stderr")
	must(t, err)
	e.cmd.Stderr = e.stderr
	stdin, err := e.cmd.StdinPipe()
	must(t, err)
	e.stdin = stdin
	stdout, err := e.cmd.StdoutPipe()
	must(t, err)
	must(t, e.cmd.Start())
	e.events = make(chan target.Event)
	go func() {
		defer close(e.events)
		for lines := json.NewDecoder(stdout); ; {
			var event target.Event
			if lines.Decode(&event) != nil {
				return
			}
			e.events <- event
		}
	}()
	t.Cleanup(func() { e.end() })
	if order.Victim != "" {
		order.Args = with(order.Args, w.args, map[string]any{"executor": e.cmd.Process.Pid})
	}
	e.order = order
	must(t, json.NewEncoder(stdin).Encode(order))
}

// watch waits for the end of the attempt, and reports whether the executor has died of it.
func (e *execution) watch(t *testing.T) (died bool) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	printed, frozen := "", false
	for {
		select {
		case event, more := <-e.events:
			switch {
			case !more:
				e.found.report.Output = printed
				if !strings.Contains(printed, "READY") || !e.attempt.killed {
					e.found.add(disturbed, "the executor is gone")
				}
				return true
			case event.Failed != "":
				t.Fatalf("the executor says: %s", event.Failed)
			case event.Report != nil:
				e.found.report = *event.Report
				return false
			}
			printed += event.Printed
			if e.attempt.killed && strings.Contains(printed, "READY") {
				e.cmd.Process.Kill()
			}
		case <-look.C:
			if statOf(e.cmd.Process.Pid).state == "T" && !frozen {
				frozen = true
				e.found.add(disturbed, "the executor was stopped")
				e.cmd.Process.Signal(unix.SIGCONT)
			}
		case <-deadline:
			e.found.report.Output = printed
			e.found.add(stuck, "after %s the run has not ended", patience)
			e.cmd.Process.Kill()
			return true
		}
	}
}

// look looks for all that can be found while the executor is there, right after the run.
func (e *execution) look(died bool) {
	w, f := e.world, &e.found
	ours := []int{e.cmd.Process.Pid, w.process.cmd.Process.Pid}
	here := w.survivors(ours...)
	for look := 0; look < 2 && len(here) == 0; look++ {
		here = w.survivors(ours...) // one may have started another while we looked
	}
	// Where the executor has died the end of all may take a moment. There is none in the bare tier.
	for deadline := time.Now().Add(5 * time.Second); died && e.order.Tier != target.Bare && len(here) > 0 && time.Now().Before(deadline); here = w.survivors(ours...) {
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range here {
		if stat := statOf(pid); stat.name != "" {
			f.add(survived, "%d %s, state %s, parent %d", pid, stat.name, stat.state, stat.parent)
		} else {
			f.add(survived, "%d, which has ended since", pid)
		}
	}
	for name, text := range w.secrets {
		if strings.Contains(f.report.Output, text) {
			f.add(secret, "%s", name)
		}
	}
	for _, l := range w.listeners {
		if l.reached() {
			f.add(reached, "%s", l.name)
		}
	}
	for _, what := range w.process.disturbed() {
		f.add(disturbed, "a process of the same user %s", what)
	}
	if f.report.VictimDied {
		f.add(disturbed, "another run has ended")
	}
	if peak := peakOf(e.cmd.Process.Pid); peak > 192<<20 {
		f.add(grew, "the executor had %d MiB", peak>>20)
	}
	for line := range strings.Lines(f.report.Output) {
		if strings.HasPrefix(line, "OPEN") {
			f.add(says, "%s", strings.TrimSpace(line))
		}
	}
}

// stop has the executor end in order, after what the attempt has left was ended.
func (e *execution) stop(t *testing.T) {
	t.Helper()
	if err := e.world.end(e.cmd.Process.Pid, e.world.process.cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	e.stdin.Close()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range e.events {
		}
	}()
	select {
	case <-over:
	case <-time.After(patience):
		e.found.add(stuck, "the executor does not end")
	}
	e.end()
}

// end ends the executor, whatever state it is in.
func (e *execution) end() {
	if e.cmd.ProcessState != nil {
		return
	}
	e.cmd.Process.Kill()
	go func() {
		for range e.events { // until all is read
		}
	}()
	e.cmd.Wait()
	if text, _ := os.ReadFile(e.stderr.Name()); len(text) > 0 {
		e.found.report.Error += "\n" + string(text)
	}
	e.stderr.Close()
}

// with joins maps; later ones win.
func with(all ...map[string]any) map[string]any {
	joined := map[string]any{}
	for _, m := range all {
		for name, value := range m {
			joined[name] = value
		}
	}
	return joined
}
