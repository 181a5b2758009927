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

// Run is a request that was handed in, or one that is only followed. It is for one goroutine.
type Run struct {
	// ID is how the run can be asked for again, by anybody who knows it.
	ID string

	client  *Client
	request []byte // to be handed in again if nobody said that it is stored; nil once somebody did
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

// Start hands in a request. Where it has no id it gets one. Nothing waits for the run's end: follow it by Events, or
// get its result by Wait.
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
	return &Run{ID: request.ID, client: c, request: data, next: 1}, nil
}

// Follow begins to follow a run that somebody handed in.
func (c *Client) Follow(id string) *Run { return &Run{ID: id, client: c, next: 1} }

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
		if err := r.events(ctx, func(e Event) bool { return yield(e, nil) }); err != nil {
			yield(Event{}, err)
		}
	}
}

// Errors inside of events.
var (
	errStopped = errors.New("the caller has enough")
	errAgain   = errors.New("something was missed")
)

func (r *Run) events(ctx context.Context, yield func(Event) bool) error {
	wait := 50 * time.Millisecond
	for {
		before := r.next
		err := r.listen(ctx, yield)
		switch {
		case err == nil || errors.Is(err, errStopped):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, errAgain):
			return err
		}
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

// listen asks once and takes what comes, until the result or until something is missing.
func (r *Run) listen(ctx context.Context, yield func(Event) bool) error {
	nc := r.client.nc
	status := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return r.broken(err)
	}
	defer sub.Unsubscribe()
	sub.SetPendingLimits(pendingMessages, pendingBytes)

	subject, question := r.client.subjects.Stream(), r.request
	replay := question == nil
	if replay {
		subject = r.client.subjects.Follow()
		question, _ = json.Marshal(contracts.Follow{ID: r.ID, From: r.next, Attempt: r.attempt})
	}
	if err := nc.PublishRequest(subject, inbox, question); err != nil {
		return r.broken(err)
	}
	for heard := time.Now(); ; {
		msg, err := r.nextMessage(ctx, sub, status, heard.Add(quiet))
		if err != nil {
			return err
		}
		heard = time.Now()
		if len(msg.Data) == 0 && msg.Header.Get(contracts.HeaderType) == "" {
			if msg.Header.Get("Status") == "503" {
				return ErrNoExecutor
			}
			continue
		}
		done, err := r.take(msg, replay, yield)
		if done || err != nil {
			return err
		}
	}
}

// nextMessage waits for one message. It returns errAgain where the connection was lost meanwhile, where messages were
// dropped because they were not read fast enough, and after too long a silence.
func (r *Run) nextMessage(ctx context.Context, sub *nats.Subscription, status <-chan nats.Status, until time.Time) (*nats.Msg, error) {
	for {
		select {
		case s := <-status:
			if s == nats.CLOSED {
				return nil, nats.ErrConnectionClosed
			}
			return nil, errAgain
		default:
		}
		step, cancel := context.WithTimeout(ctx, min(time.Until(until), 250*time.Millisecond))
		msg, err := sub.NextMsgWithContext(step)
		cancel()
		switch {
		case err == nil:
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

// take deals with one message, of a replay or live; true at the end of the run.
func (r *Run) take(msg *nats.Msg, replay bool, yield func(Event) bool) (bool, error) {
	kind := msg.Header.Get(contracts.HeaderType)
	event := Event{Event: contracts.Event{Type: kind, ID: msg.Header.Get(contracts.HeaderID), Executor: msg.Header.Get(contracts.HeaderExecutor)}}
	event.Attempt, _ = strconv.Atoi(msg.Header.Get(contracts.HeaderAttempt))
	if kind == "" {
		if text := msg.Header.Get(contracts.HeaderServiceError); text != "" {
			return false, errors.New(text)
		}
		return false, nil
	}
	r.request = nil // it is stored, or answered
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
			if !replay {
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
		if known := !r.enter(event.Attempt); kind == TypeStarted && known && replay {
			return false, nil
		}
	}
	if !yield(event) {
		return true, errStopped
	}
	return false, nil
}
