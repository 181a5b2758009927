package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// settleWait is how long we try to tell the server what became of a request. If it does not hear it, the request comes
// again one ack-wait later, and is answered by what is stored.
const settleWait = 30 * time.Second

func (l *loop) settle(m *taken, s contracts.Settlement) {
	msg := m.msg
	if s.Outcome == contracts.Left || s.Outcome == contracts.Again && l.bus.leases.lost(msg) {
		// Somebody else has it, or will when the lease is over: what we said would be taken as said by him.
		return
	}
	wait := settleWait
	if l.work.Err() != nil && !l.bus.Connected() {
		wait = 0 // the executor stops, and must not wait for a server that is away
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.work), wait)
	defer cancel()
	for {
		err := l.bus.await(ctx)
		if err == nil {
			switch s.Outcome {
			case contracts.Done:
				err = l.acknowledge(ctx, msg)
			case contracts.Again:
				if err = msg.NakWithDelay(s.Delay); err == nil && s.Delay == 0 {
					l.bell.ring(m.delivery.Priority) // no bell tells of what comes back; it makes others look
				}
			case contracts.Refused:
				err = msg.TermWithReason(s.Reason)
			}
		}
		if err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return
		}
		if ctx.Err() != nil || l.bus.nc.IsClosed() {
			l.bus.log.Warn().Err(err).Str("queue", msg.Subject()).Uint64("seq", sequenceOf(msg)).Msg("the server did not hear that a request is done; it will be delivered again and answered by its result")
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// sequenceOf is a request's place in its stream, 0 where the message does not say.
func sequenceOf(msg jetstream.Msg) uint64 {
	meta, err := msg.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}

func (l *loop) acknowledge(ctx context.Context, msg jetstream.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return msg.DoubleAck(ctx)
}
