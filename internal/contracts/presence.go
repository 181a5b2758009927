package contracts

import (
	"slices"
	"strings"
	"time"
)

// Presence is what an instance says about itself in the executors bucket, and what tools.discover returns of it.
type Presence struct {
	Name    string                    `json:"name"`
	Version string                    `json:"version"`
	Started time.Time                 `json:"started"`
	Slots   int                       `json:"slots"`
	Busy    int                       `json:"busy"`
	Engines map[string]EnginePresence `json:"engines"`
	Tools   int                       `json:"tools"` // contracts that it knows
	Drains  bool                      `json:"drains,omitempty"`
}

// EnginePresence is an engine of an instance.
type EnginePresence struct {
	Ready  bool   `json:"ready"`
	Tier   string `json:"tier,omitempty"`   // of isolation
	Reason string `json:"reason,omitempty"` // why it is not ready
}

// Serving are the engines that instances are ready to serve, by engine the names of those instances.
func Serving(fleet []Presence) map[string][]string {
	serving := map[string][]string{}
	for _, one := range fleet {
		for engine, state := range one.Engines {
			if state.Ready && !one.Drains {
				serving[engine] = append(serving[engine], one.Name)
			}
		}
	}
	return serving
}

// Discovery is the answer of tools.discover.
type Discovery struct {
	Type      string      `json:"type"` // "discovery"
	Prefix    string      `json:"prefix"`
	Engines   []string    `json:"engines"` // that some instance serves now
	Executors []Presence  `json:"executors"`
	Tools     []*Contract `json:"tools"` // that the answering instance knows

	// Sources says where the answering instance has its tools from, by name: SourceDirectory or SourceBucket. All versions of
	// a name are from one.
	Sources map[string]string `json:"sources,omitempty"`
	// Refused are contracts that the answering instance found and does not take.
	Refused []Refusal `json:"refused,omitempty"`
}

// Refusal is about a contract, or a file of them, that an instance found and does not take: it is wrong, or its name is
// taken. Where it was right before, that one stays.
type Refusal struct {
	Name    string `json:"name,omitempty"` // of the tool; "": the file cannot be read that far
	Version string `json:"version,omitempty"`
	Source  string `json:"source"`
	Where   string `json:"where"` // the file, or the key in the registry
	Reason  string `json:"reason"`
}

// Follow is the question to tools.follow: replay the run, its output from chunk From of attempt Attempt on.
type Follow struct {
	ID      string `json:"id"`
	From    uint64 `json:"from,omitempty"`    // Tools-Seq of the first chunk wanted; 0 and 1: all
	Attempt int    `json:"attempt,omitempty"` // the attempt that From counts in; another one is replayed from its start

	Snapshot   bool `json:"snapshot,omitempty"`    // what is stored now, and no waiting for more
	SkipOutput bool `json:"skip_output,omitempty"` // events and the result only
}

// Discover is the question to tools.discover. An empty message asks for everything.
type Discover struct {
	Tool string `json:"tool,omitempty"` // the contracts of this tool only
	As   string `json:"as,omitempty"`   // a name of Dialects: declarations instead of contracts
}

// DecodeDiscover reads and checks the question, strictly. An error has the code invalid_request.
func DecodeDiscover(text []byte) (Discover, error) {
	var ask Discover
	if len(text) == 0 {
		return ask, nil
	}
	n, err := ParseJSON("", text)
	if err != nil {
		return ask, Errorf(InvalidRequest, "the question %s", first(err))
	}
	if problems := Decode("", n, &ask); len(problems) > 0 {
		return ask, Errorf(InvalidRequest, "%s", problems[0].inline())
	}
	if child(n, "as") != nil && !slices.Contains(Dialects, ask.As) {
		return ask, Errorf(InvalidRequest, "as: there is no dialect %s; there are %s", quote(ask.As), strings.Join(Dialects, ", "))
	}
	return ask, nil
}

// DecodeFollow reads and checks the question, strictly. An error has the code invalid_request.
func DecodeFollow(text []byte) (Follow, error) {
	var f Follow
	n, err := ParseJSON("", text)
	if err != nil {
		return f, Errorf(InvalidRequest, "the request %s", first(err))
	}
	if problems := Decode("", n, &f); len(problems) > 0 {
		return f, Errorf(InvalidRequest, "%s", problems[0].inline())
	}
	if !IsID(f.ID) {
		return f, Errorf(InvalidRequest, "id: %s is not an id of a run", quote(f.ID))
	}
	if f.Attempt < 0 {
		return f, Errorf(InvalidRequest, "attempt: must not be below 0")
	}
	return f, nil
}
