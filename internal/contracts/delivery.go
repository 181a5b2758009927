package contracts

import (
	"context"
	"errors"
	"regexp"
	"time"
)

// Delivery is a request as it was taken from its queue.
type Delivery struct {
	Engine    string // whose queue it was in
	Priority  string
	Seq       uint64    // its place in the request stream
	Created   time.Time // when that stream was made: the other half of the id of a request without one
	Stored    time.Time
	Delivered uint64 // how often it was taken, this time included; a lower bound
	Header    Header
	Data      []byte

	// Yield gives the slot of this delivery back while wait runs, and takes one again where wait returns nil. Its context
	// ends with ctx, with the cause ErrStopping when no more work is taken. ErrCrowded: too many wait already.
	Yield func(ctx context.Context, wait func(context.Context) error) error
}

// Why a delivery does not wait, or no longer.
var (
	ErrCrowded  = errors.New("too many requests wait here already")
	ErrBusy     = errors.New("all slots are taken")
	ErrStopping = errors.New("this executor takes no more work")
)

// Header has the headers of a message. Names are compared as they are written.
type Header map[string][]string

// Get returns the first value of a header, or "".
func (h Header) Get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// traceparent is the form of W3C Trace Context, level 1; later versions may append to it.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,64})?$`)

// Trace returns the header traceparent; "" where it is none, or not of its form: as W3C Trace Context asks, such a one is
// not passed on.
func (h Header) Trace() string {
	if value := h.Get(HeaderTraceparent); traceparent.MatchString(value) {
		return value
	}
	return ""
}

// ErrPermanent marks an error of the bus after which the same can never succeed: the server understood, and refused.
var ErrPermanent = errors.New("the server refuses it for good")

// Settlement is what becomes of a delivery when its handling has ended.
type Settlement struct {
	Outcome Outcome
	Delay   time.Duration // of Again
	Reason  string        // of Refused, and for the log of Again
}

// Outcome is a kind of Settlement.
type Outcome int

// The outcomes.
const (
	Done    Outcome = iota // answered; the request leaves the queue
	Again                  // to be taken again, by anybody, after the delay
	Refused                // given up on; the request leaves the queue, and the server tells why (an advisory)
	Left                   // somebody else has it: nothing is said, for what is said would be taken as said by him
)

// Record is what is stored about a run.
type Record struct {
	Result    *Result // nil: none yet
	Status    *Event  // the last status event; nil: none
	StatusSeq uint64  // its place in the stream; 0: none
	Cancelled bool    // somebody asked for its end
}

// Copies says where copies of the events of a run go.
type Copies struct {
	Subject string // "": nowhere
	Reply   string // ReplyEvents or ReplyResult
	Trace   string // traceparent, passed on in all messages about the run
}
