package bus

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// follow handles tools.follow: it replays a run into the asker's inbox and goes on to its end.
func (f *FrontDoor) follow(r micro.Request) {
	if !f.answerable(r) {
		return
	}
	select {
	case f.follows <- struct{}{}:
	default:
		f.fail(r, contracts.Errorf(contracts.EngineUnavailable, "this executor has %d followers, as many as it takes; ask again", frontDoorFollows))
		return
	}
	f.enter(func() {
		defer func() { <-f.follows }()
		question, err := contracts.DecodeFollow(r.Data())
		if err != nil {
			f.fail(r, err)
			return
		}
		run := follower{bus: f.bus, question: question, to: contracts.Copies{Subject: r.Reply(), Reply: contracts.ReplyEvents}, wake: make(chan struct{}, 1)}
		if err := run.follow(f.work); err != nil && f.work.Err() == nil {
			f.fail(r, err)
		}
	})
}

// follower replays one run. It reads the streams by direct gets and is woken by the live messages, so that it has no
// state in the server and does not care about restarts.
type follower struct {
	bus      *Bus
	question contracts.Follow
	to       contracts.Copies
	wake     chan struct{}
	gone     atomic.Bool // nobody listens any more
	attempt  int         // the last one that is known
	ahead    []*jetstream.RawStreamMsg
}

const (
	followTick    = time.Second
	followSilence = 5 * time.Second
)

func (f *follower) follow(ctx context.Context) error {
	subject := f.bus.subjects.Reply(f.question.ID) + ".*"
	if f.question.SkipOutput {
		subject = f.bus.subjects.Status(f.question.ID)
	}
	live, err := f.bus.nc.Subscribe(subject, func(*nats.Msg) { f.signal() })
	if err != nil {
		return err
	}
	defer live.Unsubscribe()
	// The answer to a message that nobody hears is "no responders": that is how we know that the asker has gone.
	inbox := f.bus.nc.NewInbox()
	probe, err := f.bus.nc.Subscribe(inbox, func(m *nats.Msg) {
		if m.Header.Get("Status") == "503" {
			f.gone.Store(true)
			f.signal()
		}
	})
	if err != nil {
		return err
	}
	defer probe.Unsubscribe()
	for {
		event, _, err := f.bus.lastStatus(ctx, f.question.ID)
		if err == nil {
			if event != nil {
				f.attempt = event.Attempt
			}
			break
		}
		if ctx.Err() != nil || !transient(err) {
			return f.bus.explain(err)
		}
		if err := f.bus.pause(ctx); err != nil { // a server that was just started has its streams a little later
			return err
		}
	}

	next, said := uint64(1), time.Now()
	for {
		msg, err := f.next(ctx, subject, next)
		switch {
		case err != nil && (ctx.Err() != nil || !transient(err)):
			return f.bus.explain(err)
		case err != nil:
			if err := f.bus.pause(ctx); err != nil {
				return err
			}
			continue
		case msg != nil:
			sent, err := f.forward(msg)
			if err != nil { // the connection is away; once it is back the same message is sent
				f.ahead = nil
				if err := f.bus.pause(ctx); err != nil {
					return err
				}
				continue
			}
			if next = msg.Sequence + 1; sent {
				said = time.Now()
			}
			if msg.Header.Get(contracts.HeaderType) != contracts.TypeFinished {
				continue
			}
		}
		// At the end of what is stored: is it the end of the run?
		result, err := f.bus.Result(ctx, f.question.ID)
		if err == nil && result != nil {
			if later, err := f.next(ctx, subject, next); err == nil && later == nil {
				f.bus.CopyResult(f.to, result)
				return nil
			}
			continue
		}
		if msg == nil && err == nil && f.question.Snapshot {
			f.bus.CopyEvent(f.to, f.running())
			f.bus.nc.Publish(f.to.Subject, nil)
			return nil
		}
		if msg == nil && time.Since(said) >= followSilence {
			f.probe(inbox)
			said = time.Now()
		}
		timer := time.NewTimer(followTick)
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer.Stop()
		if f.gone.Load() {
			return nil
		}
	}
}

func (f *follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Bounds of what is read ahead in one question: a message for each round trip would be slower than most tools print.
const (
	aheadOfFollower      = 64
	aheadOfFollowerBytes = 4 << 20
)

// next returns the first message at or after seq, nil where there is none yet.
func (f *follower) next(ctx context.Context, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
	if len(f.ahead) == 0 || f.ahead[0].Sequence < seq {
		if err := f.read(ctx, subject, seq); err != nil || len(f.ahead) == 0 {
			return nil, err
		}
	}
	msg := f.ahead[0]
	if msg.Sequence >= seq {
		return msg, nil
	}
	return nil, nil
}

// read fetches what comes at or after seq, as much as one question gives.
func (f *follower) read(ctx context.Context, subject string, seq uint64) error {
	if i := slices.IndexFunc(f.ahead, func(m *jetstream.RawStreamMsg) bool { return m.Sequence >= seq }); i >= 0 {
		f.ahead = f.ahead[i:]
		return nil
	}
	var err error
	f.ahead, err = f.bus.replies(ctx, subject, seq, aheadOfFollower)
	return err
}

// replies reads what comes at or after seq on a subject of the reply stream, at most so many messages and as much as one
// question gives; none where there is nothing more yet.
func (b *Bus) replies(ctx context.Context, subject string, seq uint64, most int) ([]*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	batch, err := jetstreamext.GetBatch(ctx, b.js, b.subjects.Name(streamReply), most,
		jetstreamext.GetBatchSeq(seq), jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchMaxBytes(aheadOfFollowerBytes))
	if err != nil {
		return nil, err
	}
	var found []*jetstream.RawStreamMsg
	for msg, err := range batch {
		switch {
		case errors.Is(err, jetstreamext.ErrNoMessages):
			return found, nil
		case err != nil && len(found) > 0:
			return found, nil // what has come is right; the rest is asked for again
		case err != nil:
			return nil, err
		}
		found = append(found, msg)
	}
	if len(found) == 0 && ctx.Err() != nil { // which is how the library tells of an answer that did not come
		return nil, ctx.Err()
	}
	return found, nil
}

// forward sends a stored message on, unless it is output that the asker has or that a later attempt replaced. An error
// means that it could not be sent.
func (f *follower) forward(msg *jetstream.RawStreamMsg) (bool, error) {
	attempt, _ := strconv.Atoi(msg.Header.Get(contracts.HeaderAttempt))
	f.attempt = max(f.attempt, attempt)
	if seq := msg.Header.Get(contracts.HeaderSeq); seq != "" {
		n, _ := strconv.ParseUint(seq, 10, 64)
		if attempt < f.attempt || attempt == f.question.Attempt && n < f.question.From {
			return false, nil
		}
	}
	if msg.Header.Get(contracts.HeaderType) == contracts.TypeFinished {
		return false, nil // for the asker the result is the end, as in all copies
	}
	header := nats.Header{}
	for name, values := range msg.Header {
		if !strings.HasPrefix(name, "Nats-") { // the server's, about the stream
			header[name] = values
		}
	}
	return true, f.bus.copy(f.to, &nats.Msg{Header: header, Data: msg.Data})
}

// running says that the run has not ended.
func (f *follower) running() contracts.Event {
	return contracts.Event{Type: contracts.TypeRunning, ID: f.question.ID, Attempt: f.attempt, Executor: f.bus.name, Time: time.Now().UTC()}
}

// probe keeps the asker from thinking that we are gone, and finds out whether he is.
func (f *follower) probe(inbox string) {
	msg := f.bus.eventMessage(f.to.Subject, f.running(), "")
	msg.Reply = inbox
	f.bus.nc.PublishMsg(msg)
}
