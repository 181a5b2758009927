package contracts

import "time"

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

// Discovery is the answer of tools.discover.
type Discovery struct {
	Type      string      `json:"type"` // "discovery"
	Prefix    string      `json:"prefix"`
	Engines   []string    `json:"engines"` // that some instance serves now
	Executors []Presence  `json:"executors"`
	Tools     []*Contract `json:"tools"` // that the answering instance knows
}

// Follow is the question to tools.follow: replay the run, its output from chunk From of attempt Attempt on.
type Follow struct {
	ID      string `json:"id"`
	From    uint64 `json:"from,omitempty"`    // Tools-Seq of the first chunk wanted; 0 and 1: all
	Attempt int    `json:"attempt,omitempty"` // the attempt that From counts in; another one is replayed from its start
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
	if !isID(f.ID) {
		return f, Errorf(InvalidRequest, "id: %s is not an id of a run", quote(f.ID))
	}
	if f.Attempt < 0 {
		return f, Errorf(InvalidRequest, "attempt: must not be below 0")
	}
	return f, nil
}
