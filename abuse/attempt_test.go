//go:build linux

package abuse

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/abuse/internal/target"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// attempt is one script with its header.
type attempt struct {
	name   string // area/name
	about  string // what is tried
	script string

	shows    []kind                 // what is found where it is not stopped
	needs    string                 // of the machine or the user, without which it is stopped anyway
	expected map[string]expectation // by tier, or by tier and user as in "none as root"

	order  target.Order // what it asks for
	killed bool         // the executor is killed when the attempt prints READY
	oom    bool         // where it is stopped, the exit says oom_killed
	helper string       // the architecture of the attacker, if it is not the usual one
}

// outcome is what came of an attempt.
type outcome string

const (
	stopped outcome = "stopped"
	refused outcome = "refused" // was not run: Check or Run said why
	open    outcome = "not stopped"
	absent  outcome = "not applicable"
)

// expectation is what is to come of an attempt.
type expectation struct {
	outcomes []outcome
	why      string
}

// tierNames are all that an attempt has to say something about.
var tierNames = local.Tiers

// expect is what is to come of it in a tier for a user.
func (a *attempt) expect(tier, user string) expectation {
	for _, key := range []string{tier + " as " + user, tier} {
		if e, is := a.expected[key]; is {
			return e
		}
	}
	if tier == target.Container { // what nothing is said about
		return expectation{outcomes: []outcome{stopped}}
	}
	return expectation{outcomes: []outcome{open}} // bare
}

// readAttempts reads all attempts, in the order of their names.
func readAttempts() ([]*attempt, error) {
	files, err := filepath.Glob("attempts/*/*.sh")
	if err != nil {
		return nil, err
	}
	var all []*attempt
	for _, file := range files {
		a, err := readAttempt(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// readAttempt reads a script. Its header is comments: what is tried, an empty line, then "key: value", where lines that
// begin with more space go on with the one before.
func readAttempt(file string) (*attempt, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	a := &attempt{
		name: strings.TrimSuffix(strings.TrimPrefix(file, "attempts/"), ".sh"), script: string(text),
		expected: map[string]expectation{}, order: target.Order{Timeout: 20 * time.Second},
	}
	var entries []string
	keys := false
	lines := bufio.NewScanner(strings.NewReader(a.script))
	for lines.Scan() && strings.HasPrefix(lines.Text(), "#") {
		line := strings.TrimPrefix(lines.Text(), "#")
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "!"):
		case !keys:
			keys = trimmed == ""
			a.about = strings.TrimSpace(a.about + " " + trimmed)
		case strings.HasPrefix(line, "  ") && len(entries) > 0:
			entries[len(entries)-1] += " " + trimmed
		default:
			entries = append(entries, trimmed)
		}
	}
	for _, entry := range entries {
		key, value, _ := strings.Cut(entry, ":")
		if err := a.set(strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
	}
	return a, a.check()
}

// set takes one entry of the header.
func (a *attempt) set(key, value string) (err error) {
	tier, _, _ := strings.Cut(key, " as ")
	switch {
	case tier == target.Bare || tier == target.Container || slices.Contains(tierNames, tier):
		a.expected[key], err = parseExpectation(value)
	case key == "shows":
		for word := range strings.SplitSeq(value, ",") {
			a.shows = append(a.shows, kind(strings.TrimSpace(word)))
		}
	case key == "needs":
		a.needs = value
	case key == "timeout":
		a.order.Timeout, err = time.ParseDuration(value)
	case key == "runs":
		a.order.Runs, err = strconv.Atoi(value)
	case key == "memory":
		var size contracts.Size
		size, err = contracts.ParseSize(value)
		a.order.Memory = int64(size)
	case key == "pids":
		a.order.Pids, err = strconv.ParseInt(value, 10, 64)
	case key == "args":
		err = json.Unmarshal([]byte(value), &a.order.Args)
	case key == "args_env" && value == "raw":
		a.order.ArgsRaw = true
	case key == "network":
		a.order.Network = value
	case key == "cache" && value == "yes":
		a.order.Cache = true
	case key == "cache_inside":
		a.order.Inside = value
	case key == "executor" && value == "killed":
		a.killed = true
	case key == "ends" && value == "oom_killed":
		a.oom = true
	case key == "helper" && value == "386":
		a.helper = value
	default:
		err = fmt.Errorf("there is no such entry")
	}
	return err
}

// parseExpectation reads "stopped", "stopped or refused", "not stopped: why".
func parseExpectation(text string) (e expectation, err error) {
	words, why, _ := strings.Cut(text, ":")
	e.why = strings.TrimSpace(why)
	for word := range strings.SplitSeq(words, " or ") {
		e.outcomes = append(e.outcomes, outcome(word))
		if !slices.Contains([]outcome{stopped, refused, open}, outcome(word)) {
			return e, fmt.Errorf("%q is no outcome", word)
		}
	}
	if slices.Contains(e.outcomes, open) && e.why == "" {
		return e, fmt.Errorf("say why it is not stopped")
	}
	return e, nil
}

func (a *attempt) check() error {
	for _, tier := range tierNames {
		_, both := a.expected[tier]
		_, root := a.expected[tier+" as root"]
		_, user := a.expected[tier+" as user"]
		if !both && (!root || !user) {
			return fmt.Errorf("the header does not say what is expected in the tier %s", tier)
		}
	}
	if a.about == "" || len(a.shows) == 0 {
		return fmt.Errorf("the header must say what is tried, and what it shows")
	}
	for _, k := range a.shows {
		if !slices.Contains(kinds, k) {
			return fmt.Errorf("there is nothing that shows %q", k)
		}
	}
	return nil
}

// TestAttempts checks the headers of all attempts. It takes no time, and is always run.
func TestAttempts(t *testing.T) {
	all, err := readAttempts()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 60 {
		t.Errorf("there are %d attempts; at least 60 are promised", len(all))
	}
}
