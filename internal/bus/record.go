package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// codeWrongLastSequence is the server's answer to a publish that expected another last message on its subject.
const codeWrongLastSequence = 10071

// Record reads what is stored about a run. The status costs a question that the first attempt of a run can do without:
// its claim finds out.
func (b *Bus) Record(ctx context.Context, id string, status bool) (contracts.Record, error) {
	var record contracts.Record
	var reads sync.WaitGroup
	errs := make([]error, 3)
	reads.Go(func() { record.Result, errs[0] = b.Result(ctx, id) })
	if status {
		reads.Go(func() { record.Status, record.StatusSeq, errs[1] = b.lastStatus(ctx, id) })
	}
	record.Cancelled, errs[2] = b.Cancelled(ctx, id)
	reads.Wait()
	if err := errors.Join(errs...); err != nil {
		return record, b.explain(fmt.Errorf("read what is stored about the run: %w", err))
	}
	return record, nil
}

// Result reads the result of a run, nil where there is none yet.
func (b *Bus) Result(ctx context.Context, id string) (*contracts.Result, error) {
	msg, err := last(ctx, b.streams.result, b.subjects.Result(id))
	if msg == nil {
		return nil, err
	}
	var result contracts.Result
	if err := json.Unmarshal(msg.Data, &result); err != nil {
		return nil, fmt.Errorf("the stored result of %s: %w", id, err)
	}
	return &result, nil
}

func (b *Bus) lastStatus(ctx context.Context, id string) (*contracts.Event, uint64, error) {
	msg, err := last(ctx, b.streams.reply, b.subjects.Status(id))
	if msg == nil {
		return nil, 0, err
	}
	var event contracts.Event
	if err := json.Unmarshal(msg.Data, &event); err != nil {
		return nil, 0, fmt.Errorf("the stored status of %s: %w", id, err)
	}
	return &event, msg.Sequence, nil
}

// Cancelled reports whether somebody asked for the end of a run.
func (b *Bus) Cancelled(ctx context.Context, id string) (bool, error) {
	msg, err := last(ctx, b.streams.cancel, b.subjects.Cancel(id))
	return msg != nil, err
}

// Queued reports whether a request is still in the queue, or being handled.
func (b *Bus) Queued(ctx context.Context, seq uint64) (bool, error) {
	_, err := b.streams.exec.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// last returns the last message of a subject, nil where there is none.
func last(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return msg, err
}

// Advance stores a status event of a run, if the last one is still that at after (0: none), and returns its place. A started
// event stored so is the claim: who stored it owns the attempt. It returns 0 where somebody else wrote to the status
// meanwhile. It tries until ctx ends.
func (b *Bus) Advance(ctx context.Context, event contracts.Event, after uint64, trace string) (uint64, error) {
	what := "store the " + event.Type + " event of the run"
	msg := b.eventMessage(b.subjects.Status(event.ID), event, trace)
	for {
		ack, err := b.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(after))
		switch {
		case err == nil:
			return ack.Sequence, nil
		case isWrongSequence(err):
			// An answer can get lost: what is stored decides whether it was ours.
			is, seq, err := b.lastStatus(ctx, event.ID)
			if err != nil { // not known yet whether it was
				break
			}
			if is != nil && is.Type == event.Type && is.Attempt == event.Attempt && is.Executor == event.Executor && is.Time.Equal(event.Time) {
				return seq, nil
			}
			return 0, nil
		case ctx.Err() != nil:
			return 0, fmt.Errorf("%s: %w", what, err)
		case !transient(err):
			return 0, b.permanent(what, err)
		}
		if err := b.pause(ctx); err != nil {
			return 0, err
		}
	}
}

// StoreResult stores the result of a run if it has none, and returns the one that is stored then: another one where
// somebody else was faster. It tries until ctx ends.
func (b *Bus) StoreResult(ctx context.Context, result *contracts.Result, trace string) (*contracts.Result, error) {
	data, err := encode(result)
	if err != nil {
		return nil, err
	}
	msg := b.message(b.subjects.Result(result.ID), contracts.TypeResult, result.ID, result.Attempt, result.Executor, trace)
	msg.Data = data
	setServiceError(msg, result)
	for {
		_, err := b.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(0))
		if err == nil {
			return result, nil
		}
		if isWrongSequence(err) {
			stored, err := b.Result(ctx, result.ID)
			if err == nil && stored != nil {
				return stored, nil
			}
		} else if !transient(err) {
			return nil, b.permanent("store the result", err)
		}
		if err := b.pause(ctx); err != nil {
			return nil, err
		}
	}
}

func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeWrongLastSequence
}

// permanent explains an error that is not transient, and marks what the server refused.
func (b *Bus) permanent(what string, err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) {
		return fmt.Errorf("%s: %w: %w", what, contracts.ErrPermanent, b.explain(err))
	}
	return b.explain(fmt.Errorf("%s: %w", what, err))
}

// transient reports whether the same may succeed later: the server is away, has no leader, or no room just now.
func transient(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == 503 || api.Code == 500
	}
	return !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrMaxPayload) && !errors.Is(err, nats.ErrBadSubject)
}

// pause waits a little, and for a connection.
func (b *Bus) pause(ctx context.Context) error {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return b.await(ctx)
}

// message makes an empty message about a run.
func (b *Bus) message(subject, kind, id string, attempt int, executor, trace string) *nats.Msg {
	msg := &nats.Msg{Subject: subject, Header: nats.Header{
		contracts.HeaderType:     {kind},
		contracts.HeaderAttempt:  {strconv.Itoa(attempt)},
		contracts.HeaderExecutor: {executor},
	}}
	if id != "" {
		msg.Header[contracts.HeaderID] = []string{id}
	}
	if trace != "" {
		msg.Header[contracts.HeaderTraceparent] = []string{trace}
	}
	return msg
}

func (b *Bus) eventMessage(subject string, event contracts.Event, trace string) *nats.Msg {
	msg := b.message(subject, event.Type, event.ID, event.Attempt, event.Executor, trace)
	data, err := encode(event)
	if err != nil {
		panic("bus: an event cannot be encoded: " + err.Error()) // strings, numbers and a time
	}
	msg.Data = data
	return msg
}
