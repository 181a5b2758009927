package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Event is one message about a run. Which fields it has depends on Type.
type Event struct {
	contracts.Event
	Stream string  // of output: stdout or stderr
	Seq    uint64  // of output: its number in the attempt
	Data   []byte  // of output: what the tool printed
	Result *Result // of the result

	// Incomplete is set on a result whose output was not all to be had any more: executors keep output for a shorter time
	// than results.
	Incomplete bool
}

// Run is a request that was handed in, or one that is only followed. It is for one goroutine. Close it.
type Run struct {
	// ID is how the run can be asked for again, by anybody who knows it.
	ID string

	client  *Client
	engine  string // whose queue the request is for; "": the contract's
	request []byte // to be handed in again if nobody said that it is stored; nil once somebody did
	inbox   *nats.Subscription
	status  chan nats.Status // of the connection, since the inbox was opened
	replay  bool             // what comes to the inbox is told again from the beginning
	first   *nats.Msg        // read ahead
	at      Position
	held    map[uint64]Event // output that came before its turn, by Seq
	follow  contracts.Follow
	known   bool     // an executor has answered
	asked   Position // where the last replay was to begin
	twice   bool     // and the one before too
	result  *Result
}

// Position is a place in the output of a run: what follows it has not been read. It can be kept, also as JSON, and given
// to a later Follow by From. The zero Position is the beginning.
type Position struct {
	Attempt int    `json:"attempt"`
	Next    uint64 `json:"next"`  // Tools-Seq of the next chunk
	Bytes   int64  `json:"bytes"` // of output before it in this attempt, both streams together
}

const (
	// quiet is how long nothing may come from an executor, which says something every 5 s, before it is asked again.
	quiet = 12 * time.Second
	// pending bounds what waits for a slow reader here; what is dropped beyond is asked for again.
	pendingMessages = 1 << 20
	pendingBytes    = 64 << 20
)

// StartOption changes how Start and Submit hand in a request.
type StartOption func(*Run)

// OnEngine puts the request into the queue of an engine, whatever its contract says.
func OnEngine(engine string) StartOption { return func(r *Run) { r.engine = engine } }

// Start hands in a request and returns when an executor has answered: from then on it is stored, and will be run. Where
// it has no id it gets one. Follow the run by Events or Wait; what comes before that is kept.
func (c *Client) Start(ctx context.Context, request Request, opts ...StartOption) (*Run, error) {
	if request.ID == "" {
		request.ID = NewID()
	}
	if request.ReplyTo != "" {
		return nil, errors.New("reply_to is the client's own to set; publish to the queue to have answers elsewhere")
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if most := contracts.MaxRequest(c.nc.MaxPayload()); int64(len(data)) > most {
		return nil, contracts.TooLarge(len(data), most)
	}
	r := &Run{ID: request.ID, client: c, request: data, at: Position{Next: 1}}
	for _, opt := range opts {
		opt(r)
	}
	if r.engine != "" {
		if err := contracts.CheckSubject(c.subjects.Stream() + "." + r.engine); err != nil || strings.Contains(r.engine, ".") {
			return nil, fmt.Errorf("%q is not the name of an engine", r.engine)
		}
	}
	err = r.again(ctx, func() error {
		if err := r.open(); err != nil {
			return err
		}
		var err error
		r.first, err = r.receive(ctx, time.Now().Add(askWait))
		return err
	})
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Accepted says where a request is stored, and where what is said about its run can be read.
type Accepted struct {
	ID     string `json:"id"`
	Stream string `json:"stream,omitempty"` // of the queue; absent where the run has begun or ended already
	Seq    uint64 `json:"seq,omitempty"`    // its place there
	Reply  string `json:"reply"`            // subject below which the events are
}

// Submit hands in a request and returns when it is stored, without waiting for its run. A request that is refused is an
// error, a *Error where an executor refused it. Where the request has no id it gets one; follow the run by it.
func (c *Client) Submit(ctx context.Context, request Request, opts ...StartOption) (Accepted, error) {
	r, err := c.Start(ctx, request, opts...)
	if err != nil {
		return Accepted{}, err
	}
	defer r.Close()
	accepted := Accepted{ID: r.ID, Reply: c.subjects.Reply(r.ID)}
	switch r.first.Header.Get(contracts.HeaderType) {
	case TypeAccepted:
		var event contracts.Event
		if err := json.Unmarshal(r.first.Data, &event); err != nil {
			return accepted, fmt.Errorf("the answer cannot be read: %w", err)
		}
		accepted.Stream, accepted.Seq = event.Stream, event.Seq
	case TypeResult:
		var result Result
		if err := json.Unmarshal(r.first.Data, &result); err != nil {
			return accepted, fmt.Errorf("the answer cannot be read: %w", err)
		}
		if result.Attempt == 0 && result.Error != nil {
			return accepted, result.Error
		}
	}
	return accepted, nil
}

// FollowOption changes what Follow gets.
type FollowOption func(*Run)

// From begins behind a position that was read to. What a new attempt has replaced meanwhile begins anew.
func From(p Position) FollowOption {
	return func(r *Run) {
		if p.Next > 0 {
			r.at = p
		}
	}
}

// Snapshot gets what there is now and does not wait for more: the events of a run that has not ended end with one of
// the type TypeRunning.
func Snapshot() FollowOption { return func(r *Run) { r.follow.Snapshot = true } }

// SkipOutput leaves out the output.
func SkipOutput() FollowOption { return func(r *Run) { r.follow.SkipOutput = true } }

// Follow begins to follow a run that somebody handed in. There may be no such run: what is said about one that waits in
// a queue, and about one that never was, is the same, nothing.
func (c *Client) Follow(id string, opts ...FollowOption) *Run {
	r := &Run{ID: id, client: c, at: Position{Next: 1}}
	for _, opt := range opts {
		opt(r)
	}
	return r
}

// State is how far a run is.
type State struct {
	Result *Result // of a run that has ended
	// Last is the latest event of a run that has not; nil where none has been said: it waits in a queue, or there is no
	// such run.
	Last *Event
}

// State asks how far a run is.
func (c *Client) State(ctx context.Context, id string) (State, error) {
	var s State
	for event, err := range c.Follow(id, Snapshot(), SkipOutput()).Events(ctx) {
		switch {
		case err != nil:
			return s, err
		case event.Type == TypeResult:
			return State{Result: event.Result}, nil
		case event.Type != TypeRunning:
			s.Last = &event
		}
	}
	return s, nil
}

// Position is how far the run was read.
func (r *Run) Position() Position { return r.at }

// Close stops following. It does not stop the run; Cancel does.
func (r *Run) Close() {
	if r.inbox != nil {
		r.inbox.Unsubscribe()
		r.client.nc.RemoveStatusListener(r.status)
		r.inbox, r.first, r.held = nil, nil, nil
	}
}

// Wait follows the run to its end and returns its result. An error means that the result could not be had; a tool that
// failed is a result. With Snapshot it is nil for a run that has not ended.
func (r *Run) Wait(ctx context.Context) (*Result, error) {
	for _, err := range r.Events(ctx) {
		if err != nil {
			return nil, err
		}
	}
	return r.result, nil
}

// Events follows the run: every event as it comes, the result last. Lost connections and restarts of servers and
// executors do not end it; no output is left out or comes twice. When a new attempt begins, a started event with a
// higher Attempt tells that all output so far is void and begins anew. An error ends the sequence.
func (r *Run) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer r.Close()
		err := r.again(ctx, func() error { return r.listen(ctx, func(e Event) bool { return yield(e, nil) }) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(Event{}, err)
		}
	}
}

// Errors inside of a run.
var (
	errStopped = errors.New("the caller has enough")
	errAgain   = errors.New("something was missed")
)

// again does something until it fails for good.
func (r *Run) again(ctx context.Context, do func() error) error {
	wait := 50 * time.Millisecond
	for {
		before := r.at
		err := do()
		switch {
		case err == nil || errors.Is(err, errStopped):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrNoExecutor) && r.known: // they were there, and will be again
		case !errors.Is(err, errAgain):
			return err
		}
		r.Close()
		if r.at != before {
			wait = 50 * time.Millisecond
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, 2*time.Second)
	}
}

// open asks: to run the request, or, once that is stored, to be told again from where we are.
func (r *Run) open() error {
	nc := r.client.nc
	r.status = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	var err error
	if r.inbox, err = nc.SubscribeSync(nc.NewInbox()); err != nil {
		nc.RemoveStatusListener(r.status)
		return r.broken(err)
	}
	r.inbox.SetPendingLimits(pendingMessages, pendingBytes)
	subject, question := r.client.subjects.Stream(), r.request
	if r.engine != "" {
		subject += "." + r.engine
	}
	if r.replay = question == nil; r.replay {
		subject = r.client.subjects.Follow()
		r.twice, r.asked = r.known && r.at == r.asked, r.at
		if question, err = json.Marshal(contracts.Follow{ID: r.ID, From: r.at.Next, Attempt: r.at.Attempt, Snapshot: r.follow.Snapshot, SkipOutput: r.follow.SkipOutput}); err != nil {
			return err
		}
	}
	if err := nc.PublishRequest(subject, r.inbox.Subject, question); err != nil {
		return r.broken(err)
	}
	return nil
}

// listen takes what comes, until the result or until something is missing.
func (r *Run) listen(ctx context.Context, yield func(Event) bool) error {
	if r.inbox == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	for {
		msg := r.first
		r.first = nil
		if msg == nil {
			var err error
			if msg, err = r.receive(ctx, time.Now().Add(quiet)); err != nil {
				return err
			}
		}
		if done, err := r.take(msg, yield); done || err != nil {
			return err
		}
	}
}

// receive waits for one message. It returns errAgain where the connection was lost meanwhile, where messages were
// dropped because they were not read fast enough, and after too long a silence.
func (r *Run) receive(ctx context.Context, until time.Time) (*nats.Msg, error) {
	for {
		select {
		case s := <-r.status:
			if s == nats.CLOSED {
				return nil, nats.ErrConnectionClosed
			}
			return nil, errAgain
		default:
		}
		step, cancel := context.WithTimeout(ctx, min(time.Until(until), 250*time.Millisecond))
		msg, err := r.inbox.NextMsgWithContext(step)
		cancel()
		switch {
		case err == nil:
			r.request, r.known = nil, true // it is stored, or answered
			return msg, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded) && time.Now().Before(until):
			continue
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrSlowConsumer):
			return nil, errAgain
		case errors.Is(err, nats.ErrNoResponders):
			return nil, ErrNoExecutor
		}
		return nil, r.broken(err)
	}
}

// broken tells errors that pass from those that stay.
func (r *Run) broken(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubject) || errors.Is(err, nats.ErrMaxPayload) {
		return err
	}
	return fmt.Errorf("%w: %w", errAgain, err)
}

// enter notes the attempt that events are of; true where it is a new one.
func (r *Run) enter(attempt int) bool {
	if attempt <= r.at.Attempt {
		return false
	}
	r.at, r.held = Position{Attempt: attempt, Next: 1}, nil
	return true
}

// missing reports whether output that was published has not come.
func (r *Run) missing(result *Result) bool {
	published := result.StdoutBytes + result.StderrBytes - result.DroppedBytes
	return result.Attempt > 0 && !r.follow.SkipOutput && (result.Attempt != r.at.Attempt || r.at.Bytes < published)
}

// gone reports whether what is missing now was asked for twice without anything coming of it: it was not lost on its way
// here, but is stored later than what follows it, or not kept any more.
func (r *Run) gone() bool { return r.replay && r.twice && r.at == r.asked }

// disorder is how far from its place a chunk can be stored (docs/wire-protocol.md).
const disorder = 64

// output yields a chunk in its turn. One that is ahead of it waits: what is missing was stored later, or, if that many
// have come without it, is not kept any more.
func (r *Run) output(event Event, yield func(Event) bool) bool {
	if event.Seq < r.at.Next {
		return true
	}
	if r.held == nil {
		r.held = map[uint64]Event{}
	}
	r.held[event.Seq] = event
	if len(r.held) > disorder {
		r.at.Next = slices.Min(slices.Collect(maps.Keys(r.held)))
	}
	for {
		event, ok := r.held[r.at.Next]
		if !ok {
			return true
		}
		delete(r.held, r.at.Next)
		r.at.Next++
		r.at.Bytes += int64(len(event.Data))
		if !yield(event) {
			return false
		}
	}
}

// release yields the output that is held, at the end: what is missing before it will not come.
func (r *Run) release(yield func(Event) bool) bool {
	for _, seq := range slices.Sorted(maps.Keys(r.held)) {
		event := r.held[seq]
		r.at.Next, r.at.Bytes = seq+1, r.at.Bytes+int64(len(event.Data))
		if !yield(event) {
			return false
		}
	}
	r.held = nil
	return true
}

// take deals with one message; true at the end of the run.
func (r *Run) take(msg *nats.Msg, yield func(Event) bool) (bool, error) {
	kind := msg.Header.Get(contracts.HeaderType)
	event := Event{Event: contracts.Event{Type: kind, ID: msg.Header.Get(contracts.HeaderID), Executor: msg.Header.Get(contracts.HeaderExecutor)}}
	event.Attempt, _ = strconv.Atoi(msg.Header.Get(contracts.HeaderAttempt))
	if kind == "" {
		if text := msg.Header.Get(contracts.HeaderServiceError); text != "" {
			return false, errors.New(text)
		}
		if !r.follow.Snapshot || len(msg.Data) > 0 {
			return false, nil
		}
		if len(r.held) > 0 && !r.gone() {
			return false, errAgain
		}
		if !r.release(yield) {
			return true, errStopped
		}
		return true, nil
	}
	if event.Attempt < r.at.Attempt && kind != TypeResult {
		return false, nil // of an attempt that was given up
	}
	switch kind {
	case TypeResult:
		event.Result = &Result{}
		if err := json.Unmarshal(msg.Data, event.Result); err != nil {
			return false, fmt.Errorf("the result cannot be read: %w", err)
		}
		if r.missing(event.Result) {
			if !r.gone() {
				return false, errAgain
			}
			event.Incomplete = true
		}
		r.result = event.Result
		if !r.release(yield) || !yield(event) {
			return true, errStopped
		}
		return true, nil
	case TypeOutput:
		event.Stream, event.Data = msg.Header.Get(contracts.HeaderStream), msg.Data
		event.Seq, _ = strconv.ParseUint(msg.Header.Get(contracts.HeaderSeq), 10, 64)
		// A gap: what is missing was lost on the way, and is asked for again; or it is stored later, or not kept any more.
		if r.enter(event.Attempt); event.Seq > r.at.Next && !r.gone() {
			return false, errAgain
		}
		if !r.output(event, yield) {
			return true, errStopped
		}
		return false, nil
	default:
		if err := json.Unmarshal(msg.Data, &event.Event); err != nil {
			return false, fmt.Errorf("an event cannot be read: %w", err)
		}
		if known := !r.enter(event.Attempt); kind == TypeStarted && known && r.replay {
			return false, nil
		}
	}
	if !yield(event) {
		return true, errStopped
	}
	return false, nil
}
