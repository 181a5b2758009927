package contracts

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// HeaderDead is the header of a dead letter that holds a DeadLetter as JSON.
const HeaderDead = "Tools-Dead"

// TypeDead is the type of a dead letter, in HeaderType.
const TypeDead = "dead"

// DeadLetter is a request that was given up on, as it is kept in the dead letter stream beside its original bytes.
type DeadLetter struct {
	ID        string    `json:"id,omitempty"`
	Tool      string    `json:"tool,omitempty"`   // as far as it could be read
	Digest    string    `json:"digest,omitempty"` // of a request that could be read
	Engine    string    `json:"engine"`
	Priority  string    `json:"priority,omitempty"` // of the queue it was in; absent in letters of earlier versions
	Seq       uint64    `json:"seq"`                // of the request in its stream
	Stored    time.Time `json:"stored"`
	Executor  string    `json:"executor"`
	Time      time.Time `json:"time"`
	Delivered uint64    `json:"delivered"`
	Attempts  int       `json:"attempts"` // claims
	Error     *Error    `json:"error"`

	// History is what was said about the run until then, the oldest first, of all engines and executors that had it.
	History        []PastEvent `json:"history,omitempty"`
	HistoryOmitted int         `json:"history_omitted,omitempty"` // events before these for which there was no room
	HistoryError   string      `json:"history_error,omitempty"`   // why it is not all there
}

// PastEvent is an event as a dead letter remembers it. Which fields it has depends on its type, as in Event.
type PastEvent struct {
	Type     string    `json:"type"`
	Attempt  int       `json:"attempt"`
	Executor string    `json:"executor"`
	Time     time.Time `json:"time"`
	Engine   string    `json:"engine,omitempty"`
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Hop      int       `json:"hop,omitempty"`
	Code     Code      `json:"code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Bounds of a dead letter. It is a header: the server takes 64 KiB of them in all, those of the request among them.
const (
	maxPastEvents = 32
	maxPastReason = 200      // bytes
	maxDeadLetter = 16 << 10 // bytes of the JSON
)

// Remember adds an event to the history, in the order in which they were stored. Events of another request that has the
// same id are not its history, and progress would only push out what matters; both are passed over.
func (l *DeadLetter) Remember(e Event) {
	ours := e.ExecSeq == l.Seq || e.Digest != "" && e.Digest == l.Digest
	if !ours || e.Type == TypeProgress {
		return
	}
	l.History = append(l.History, PastEvent{
		Type: e.Type, Attempt: e.Attempt, Executor: e.Executor, Time: e.Time,
		Engine: e.Engine, From: e.From, To: e.To, Hop: e.Hop, Code: e.Code, Reason: cutTo(e.Reason, maxPastReason),
	})
	if len(l.History) > maxPastEvents {
		l.forget(len(l.History) - maxPastEvents)
	}
}

// forget leaves out the first n events of the history: what came last led to the end.
func (l *DeadLetter) forget(n int) {
	l.History, l.HistoryOmitted = l.History[n:], l.HistoryOmitted+n
}

// Encode is the letter as JSON of at most 16 KiB. Where it is larger, the first events of the history are left out, and then
// the end of the messages.
func (l DeadLetter) Encode() ([]byte, error) {
	for {
		text, err := marshalJSON(l)
		if err != nil || len(text) <= maxDeadLetter {
			return text, err
		}
		switch n := len(l.History); {
		case n > 0:
			l.forget((n + 1) / 2)
		case len(l.HistoryError) > maxPastReason:
			l.HistoryError = cutTo(l.HistoryError, maxPastReason)
		case l.Error != nil && len(l.Error.Message) > maxPastReason:
			l.Error = &Error{Code: l.Error.Code, Message: cutTo(l.Error.Message, max(len(l.Error.Message)/2, maxPastReason))}
		default:
			return nil, fmt.Errorf("a dead letter has %d bytes without any history", len(text)) // names have bounds
		}
	}
}

// cutTo cuts a text to so many bytes, the mark of the cut among them, and not inside of a character.
func cutTo(s string, most int) string {
	const mark = "…"
	if len(s) <= most {
		return s
	}
	n := most - len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// DecodeDeadLetter reads the JSON of a dead letter. It passes over what it does not know, as all readers do.
func DecodeDeadLetter(text string) (DeadLetter, error) {
	var l DeadLetter
	if text == "" {
		return l, fmt.Errorf("it has no header %s", HeaderDead)
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return DeadLetter{}, fmt.Errorf("the header %s cannot be read: %w", HeaderDead, err)
	}
	if l.Error == nil {
		return DeadLetter{}, errors.New("the header " + HeaderDead + " does not say what went wrong")
	}
	return l, nil
}
