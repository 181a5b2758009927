//go:build linux

package abuse

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/abuse/internal/target"
)

// wanted is EXECUTOR_TEST_ABUSE: "all" asks for all tiers, "1" for all but the optional ones, anything else for those that there
// are here.
var wanted = os.Getenv("EXECUTOR_TEST_ABUSE")

// column is a tier for one user.
type column struct {
	tier string
	user string // root or user
	uid  int
	why  string // it is not there
}

// binaries are what the test builds.
type binaries struct{ target, attacker, attacker386 string }

func TestAbuse(t *testing.T) {
	if wanted == "" {
		t.Skip("SKIPPED: it takes a minute or two; make abuse, or EXECUTOR_TEST_ABUSE=1, runs it")
	}
	// What outlives its parents comes to this process.
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	all, err := readAttempts()
	must(t, err)
	b := build(t)
	t.Cleanup(target.RemoveContainers)
	columns := offered(t, b)
	results := &table{columns: columns}
	for _, a := range all {
		row := results.row(a)
		t.Run(a.name, func(t *testing.T) {
			for i, c := range columns {
				if c.why == "" {
					t.Run(c.tier+" as "+c.user, func(t *testing.T) { row[i] = judge(t, a, b, c, row[:i], columns) })
				}
			}
		})
	}
	results.print(os.Stdout)
}

// judge makes one attempt in one tier and compares what came of it with what is expected.
func judge(t *testing.T, a *attempt, b binaries, c column, before []outcome, columns []column) outcome {
	if a.helper == "386" && runtime.GOARCH != "amd64" {
		return absent
	}
	f := execute(t, a, b, c.tier, c.uid)
	got := stopped
	switch {
	case len(f.findings) > 0:
		got = open
	case f.report.Refused != "":
		got = refused
	}
	armed := "armed: 0"
	if a.helper != "" { // that it does not start may be how it is stopped
		armed = "armed: "
	}
	if got == stopped && !strings.Contains(f.report.Output, armed) {
		t.Errorf("%s\n  the run did not come as far as trying it\n%s", a.about, f.text())
	}
	expected := a.expect(c.tier, c.user)
	// What the machine, or being no more than a user, stops without us is not expected to be open.
	if got == stopped && slices.Contains(expected.outcomes, open) && a.needs != "" && stoppedBare(c, before, columns) {
		return absent
	}
	if !slices.Contains(expected.outcomes, got) {
		t.Errorf("%s\n  outcome: %s; expected: %s\n%s", a.about, got, describe(expected), f.text())
		if got == stopped && c.tier == target.Bare {
			t.Error("an attempt that nothing stops and that gets nothing shows nothing; if it is the machine that stops it, the header says what it needs")
		}
		return got
	}
	shown := false
	for _, one := range f.findings {
		shown = shown || slices.Contains(a.shows, one.kind)
		if !slices.Contains(a.shows, one.kind) && one.kind != says && c.tier != target.Bare {
			t.Errorf("%s\n  it is not stopped, as expected, and in a way that is not\n%s", a.about, f.text())
		}
	}
	if got == open && !shown {
		t.Errorf("%s\n  nothing shows %q\n%s", a.about, a.shows, f.text())
	}
	if a.oom && got == stopped && f.report.Exit.Isolation.Limits == "cgroup" && !f.report.Exit.OOMKilled {
		t.Errorf("%s\n  the exit does not say that it was killed for its memory\n%s", a.about, f.text())
	}
	if testing.Verbose() {
		t.Logf("%s: %s\n%s", a.about, got, f.text())
	}
	return got
}

// stoppedBare reports whether the attempt got nothing for the same user without any protection.
func stoppedBare(c column, before []outcome, columns []column) bool {
	if c.tier == target.Bare {
		return true
	}
	for i, got := range before {
		if columns[i].tier == target.Bare && columns[i].user == c.user {
			return got == absent || got == stopped
		}
	}
	return false
}

func describe(e expectation) string {
	var words []string
	for _, o := range e.outcomes {
		words = append(words, string(o))
	}
	text := strings.Join(words, " or ")
	if e.why != "" {
		text += ": " + e.why
	}
	return text
}

// text is the evidence.
func (f found) text() string {
	var s strings.Builder
	for _, one := range f.findings {
		fmt.Fprintf(&s, "  found %s\n", one)
	}
	if f.report.Refused != "" {
		fmt.Fprintf(&s, "  refused: %s\n", f.report.Refused)
	}
	if f.report.Error != "" {
		fmt.Fprintf(&s, "  error: %s\n", strings.TrimSpace(f.report.Error))
	}
	fmt.Fprintf(&s, "  exit %d %s, limits %q, output: %.2000q", f.report.Exit.Code, f.report.Exit.Signal, f.report.Exit.Isolation.Limits, f.report.Output)
	return s.String()
}

// offered finds out which tiers there are, for which users.
func offered(t *testing.T, b binaries) (columns []column) {
	t.Helper()
	const nobody = 65534
	users := []column{{user: "user", uid: os.Geteuid()}}
	if os.Geteuid() == 0 {
		users = []column{{user: "root"}, {user: "user", uid: nobody}}
	}
	for _, tier := range target.Tiers {
		for _, c := range users {
			if c.tier = tier.Name; tier.Root && c.uid != 0 {
				c.why = "only root may use the daemon"
				columns = append(columns, c)
				continue
			}
			c.why = probe(t, b, tier.Name, c.uid)
			if c.why != "" && (wanted == "all" || wanted == "1" && !tier.Optional) {
				t.Errorf("the tier %s as %s is not there: %s", c.tier, c.user, c.why)
			}
			columns = append(columns, c)
		}
	}
	return columns
}

// probe runs true in a tier, and says why that does not work.
func probe(t *testing.T, b binaries, tier string, uid int) string {
	t.Helper()
	w := newWorld(t, b, uid)
	e := &execution{attempt: &attempt{}, world: w}
	e.start(t, b.target, target.Order{Tier: tier, DataDir: w.path("data"), Command: []string{"/bin/true"}, Stdin: os.DevNull, Timeout: patience})
	why := ""
	event := <-e.events
	switch {
	case event.Report == nil:
		why = event.Failed
	case event.Report.Refused != "":
		why = event.Report.Refused
	case event.Report.Error != "" || event.Report.Exit.Code != 0:
		why = fmt.Sprintf("true ends with %d %s", event.Report.Exit.Code, event.Report.Error)
	}
	e.stop(t)
	w.process.end() // attempts are to find no other than theirs
	return why
}

// build builds the programs, static, where every user may run them.
func build(t *testing.T) binaries {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "abuse-bin-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	compile := func(name, from string, env ...string) string {
		file := filepath.Join(dir, name)
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "github.com/praxis-sdk/executor/abuse/"+from)
		c.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %s\n%s", name, err, text)
		}
		return file
	}
	b := binaries{target: compile("target", "target"), attacker: compile("attacker", "attacker")}
	if runtime.GOARCH == "amd64" {
		b.attacker386 = compile("attacker386", "attacker", "GOARCH=386")
	}
	return b
}
