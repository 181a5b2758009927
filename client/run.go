package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
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
	request []byte // to be handed in again if nobody said that it is stored; nil once somebody did
	inbox   *nats.Subscription
	status  chan nats.Status // of the connection, since the inbox was opened
	replay  bool             // what comes to the inbox is told again from the beginning
	first   *nats.Msg        // read ahead
	attempt int
	next    uint64 // the chunk to come in this attempt
	bytes   int64  // of output, in this attempt
	result  *Result
}

const (
	// quiet is how long nothing may come from an executor, which says something every 5 s, before it is asked again.
	quiet = 12 * time.Second
	// pending bounds what waits for a slow reader here; what is dropped beyond is asked for again.
	pendingMessages = 1 << 20
	pendingBytes    = 64 << 20
)

// Start hands in a request and returns when an executor has answered: from then on it is stored, and will be run. Where
// it has no id it gets one. Follow the run by Events or Wait; what comes before that is kept.
func (c *Client) Start(ctx context.Context, request Request) (*Run, error) {
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
	r := &Run{ID: request.ID, client: c, request: data, next: 1}
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

// Follow begins to follow a run that somebody handed in.
func (c *Client) Follow(id string) *Run { return &Run{ID: id, client: c, next: 1} }

// Close stops following. It does not stop the run; Cancel does.
func (r *Run) Close() {
	if r.inbox != nil {
		r.inbox.Unsubscribe()
		r.client.nc.RemoveStatusListener(r.status)
		r.inbox, r.first = nil, nil
	}
}

// Wait follows the run to its end and returns its result. An error means that the result could not be had; a tool that
// failed is a result.
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
		before := r.next
		err := do()
		switch {
		case err == nil || errors.Is(err, errStopped):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrNoExecutor) && r.request == nil: // they were there, and will be again
		case !errors.Is(err, errAgain):
			return err
		}
		r.Close()
		if r.next != before {
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
	if r.inbox, err = nc.SubscribeSync(nats.NewInbox()); err != nil {
		nc.RemoveStatusListener(r.status)
		return r.broken(err)
	}
	r.inbox.SetPendingLimits(pendingMessages, pendingBytes)
	subject, question := r.client.subjects.Stream(), r.request
	if r.replay = question == nil; r.replay {
		subject = r.client.subjects.Follow()
		if question, err = json.Marshal(contracts.Follow{ID: r.ID, From: r.next, Attempt: r.attempt}); err != nil {
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
			r.request = nil // it is stored, or answered
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
	if attempt <= r.attempt {
		return false
	}
	r.attempt, r.next, r.bytes = attempt, 1, 0
	return true
}

// missing reports whether output that was published has not come.
func (r *Run) missing(result *Result) bool {
	return result.Attempt > 0 && (result.Attempt != r.attempt || r.bytes < result.StdoutBytes+result.StderrBytes-result.DroppedBytes)
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
		return false, nil
	}
	if event.Attempt < r.attempt && kind != TypeResult {
		return false, nil // of an attempt that was given up
	}
	switch kind {
	case TypeResult:
		event.Result = &Result{}
		if err := json.Unmarshal(msg.Data, event.Result); err != nil {
			return false, fmt.Errorf("the result cannot be read: %w", err)
		}
		if r.missing(event.Result) {
			if !r.replay {
				return false, errAgain
			}
			event.Incomplete = true
		}
		r.result = event.Result
		if !yield(event) {
			return true, errStopped
		}
		return true, nil
	case TypeOutput:
		event.Stream, event.Data = msg.Header.Get(contracts.HeaderStream), msg.Data
		event.Seq, _ = strconv.ParseUint(msg.Header.Get(contracts.HeaderSeq), 10, 64)
		r.enter(event.Attempt)
		if event.Seq < r.next {
			return false, nil
		}
		if event.Seq > r.next {
			return false, errAgain
		}
		r.next++
		r.bytes += int64(len(event.Data))
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
