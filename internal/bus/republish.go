package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Republish stores a request in the queue of another engine, with the id that it has by now, once: where it is there already,
// because somebody died before he could say so, it is not stored again. A full queue is an error with the code queue_full. It
// tries until ctx ends.
func (b *Bus) Republish(ctx context.Context, d contracts.Delivery, id string, event contracts.Event) error {
	msg := nats.NewMsg(b.subjects.Exec(event.To, d.Priority))
	msg.Data = d.Data
	// What the run needs, and nothing else: an agent's other headers could make it too large to be stored again.
	for _, name := range []string{contracts.HeaderReplyTo, contracts.HeaderReply} {
		if value := d.Header.Get(name); value != "" {
			msg.Header.Set(name, value)
		}
	}
	if trace := d.Header.Trace(); trace != "" {
		msg.Header.Set(contracts.HeaderTraceparent, trace)
	}
	tried, err := json.Marshal(event.Tried)
	if err != nil {
		return err
	}
	msg.Header.Set(contracts.HeaderID, id)
	msg.Header.Set(contracts.HeaderHop, strconv.Itoa(event.Hop))
	msg.Header.Set(contracts.HeaderTried, string(tried))
	once := id + "." + strconv.Itoa(event.Hop) + "." + event.To
	msg.Header.Set(nats.MsgIdHdr, once)
	for {
		ack, err := b.js.PublishMsg(ctx, msg)
		switch {
		case err == nil && ack.Duplicate:
			// The server compares nothing but the message id, which anybody could have used before.
			same, err := b.holds(ctx, ack.Sequence, msg)
			if err == nil && same {
				return nil
			}
			if err == nil {
				msg.Header.Set(nats.MsgIdHdr, once+"."+nuid.Next())
				continue
			}
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("republish the request: %w", err)
		case isStoreFailed(err):
			return contracts.Errorf(contracts.QueueFull, "the queue of the engine %s is full", event.To)
		case !transient(err):
			return b.permanent("republish the request", err)
		}
		if err := b.pause(ctx); err != nil {
			return err
		}
	}
}

// holds reports whether the request at a place is the one that msg would store.
func (b *Bus) holds(ctx context.Context, seq uint64, msg *nats.Msg) (bool, error) {
	is, err := b.streams.exec.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil // it was, and has been handled; whoever takes the new one finds the result
	}
	if err != nil {
		return false, err
	}
	return is.Subject == msg.Subject && bytes.Equal(is.Data, msg.Data) &&
		is.Header.Get(contracts.HeaderHop) == msg.Header.Get(contracts.HeaderHop) && is.Header.Get(contracts.HeaderID) == msg.Header.Get(contracts.HeaderID), nil
}

// Request reads a request from its place in the queue; nil where it is not there any more.
func (b *Bus) Request(ctx context.Context, seq uint64) (*contracts.Delivery, error) {
	msg, err := b.streams.exec.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, b.explain(fmt.Errorf("read the request: %w", err))
	}
	engine, priority, _ := b.subjects.ParseExec(msg.Subject)
	return &contracts.Delivery{
		Engine: engine, Priority: priority, Seq: msg.Sequence, Created: b.streams.created, Stored: msg.Time, Delivered: 1,
		Header: contracts.Header(msg.Header), Data: msg.Data,
	}, nil
}

// isStoreFailed reports whether a stream takes no more: "maximum messages per subject exceeded" and its like.
func isStoreFailed(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeStoreFailed
}
