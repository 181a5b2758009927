package contracts

import (
	"fmt"
	"regexp"
	"strings"
)

// Subjects are the names of one fleet: subjects, streams, buckets and consumers, all derived from its prefix, so that
// one account can hold several fleets.
type Subjects struct{ prefix string }

// DefaultPrefix is the prefix of a fleet that names none.
const DefaultPrefix = "tools"

var subjectPrefix = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// NewSubjects returns the names for a prefix: one token that begins with a letter; "" is DefaultPrefix.
func NewSubjects(prefix string) (Subjects, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if !subjectPrefix.MatchString(prefix) {
		return Subjects{}, fmt.Errorf("%s is not a subject prefix: a letter, then letters, digits, '_' and '-', 32 at most", quote(prefix))
	}
	return Subjects{prefix}, nil
}

// Prefix is the first token of all subjects.
func (s Subjects) Prefix() string { return s.prefix }

// Exec is the queue of an engine for requests of a priority; "" is normal.
func (s Subjects) Exec(engine, priority string) string {
	if priority == "" || priority == PriorityNormal {
		return s.prefix + ".exec." + engine
	}
	return s.prefix + ".exec." + engine + "." + priority
}

// ParseExec splits the subject of a queue.
func (s Subjects) ParseExec(subject string) (engine, priority string, ok bool) {
	rest, ok := strings.CutPrefix(subject, s.prefix+".exec.")
	engine, priority, has := strings.Cut(rest, ".")
	if !has {
		return engine, PriorityNormal, ok && engine != ""
	}
	return engine, priority, ok && engine != "" && (priority == PriorityHigh || priority == PriorityLow)
}

// ExecAll are the subjects of the request stream.
func (s Subjects) ExecAll() []string {
	return []string{s.prefix + ".exec.*", s.prefix + ".exec.*." + PriorityHigh, s.prefix + ".exec.*." + PriorityLow}
}

// Bell is where the server tells that something was queued for an engine, headers only; its priorities are below it.
func (s Subjects) Bell(engine string) string { return s.prefix + ".bell." + engine }

// Reply is the subject below which everything about a run is.
func (s Subjects) Reply(id string) string { return s.prefix + ".reply." + id }

// Status is where the status events of a run are.
func (s Subjects) Status(id string) string { return s.Reply(id) + ".status" }

// Output is where the output of a run is.
func (s Subjects) Output(id string) string { return s.Reply(id) + ".output" }

// Result is where the result of a run is.
func (s Subjects) Result(id string) string { return s.Reply(id) + ".result" }

// Cancel is where a run is cancelled.
func (s Subjects) Cancel(id string) string { return s.prefix + ".cancel." + id }

// Dead is where requests of an engine go that were given up on.
func (s Subjects) Dead(engine string) string { return s.prefix + ".dead." + engine }

// Limit is where somebody has a place of a limit on runs.
func (s Subjects) Limit(hash, place string) string { return s.prefix + ".limit." + hash + "." + place }

// Run is the front door that replies once, with the result.
func (s Subjects) Run() string { return s.prefix + ".run" }

// Stream is the front door that replies with every event.
func (s Subjects) Stream() string { return s.prefix + ".stream" }

// Follow is the front door that replays a run and follows it.
func (s Subjects) Follow() string { return s.prefix + ".follow" }

// Discover is the front door that lists tools, engines and executors.
func (s Subjects) Discover() string { return s.prefix + ".discover" }

// Name is the name of a stream or bucket, as TOOLS_EXEC for "EXEC".
func (s Subjects) Name(suffix string) string { return strings.ToUpper(s.prefix) + "_" + suffix }

// Consumer is the name of the consumer of a queue.
func (s Subjects) Consumer(engine, priority string) string {
	if priority == "" || priority == PriorityNormal {
		return engine
	}
	return engine + "-" + priority
}
