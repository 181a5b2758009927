package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Handler handles one delivery and says what becomes of it. It holds a slot and the lease until it returns. Its context
// ends when running work has to stop, not when taking new work has.
type Handler func(context.Context, contracts.Delivery) contracts.Settlement

// Slots are the right to handle that many deliveries at a time, shared by the engines of an instance.
type Slots struct{ free chan struct{} }

// NewSlots makes n free slots.
func NewSlots(n int) *Slots {
	s := &Slots{free: make(chan struct{}, n)}
	for range n {
		s.free <- struct{}{}
	}
	return s
}

// Busy is how many are taken.
func (s *Slots) Busy() int { return cap(s.free) - len(s.free) }

// Total is how many there are.
func (s *Slots) Total() int { return cap(s.free) }

func (s *Slots) take() bool {
	select {
	case <-s.free:
		return true
	default:
		return false
	}
}

func (s *Slots) give() { s.free <- struct{}{} }

// Consume takes requests of the engines until take ends, and returns when all that was taken is handled. Handlers run
// in work, which the caller ends when he has waited long enough.
func (b *Bus) Consume(take, work context.Context, engines []string, slots *Slots, handle Handler) error {
	loops := make([]*loop, len(engines))
	for i, engine := range engines {
		l := &loop{bus: b, engine: engine, slots: slots, work: work, handle: handle}
		err := b.patiently(take, func() error { return l.open(take) })
		if take.Err() != nil {
			return nil //nolint:nilerr // asked to stop before it began
		}
		if err != nil {
			return b.explain(err)
		}
		loops[i] = l
	}
	var running sync.WaitGroup
	for _, l := range loops {
		running.Go(func() { l.run(take) })
	}
	running.Wait()
	return nil
}

// loop takes requests from the queues of one engine.
type loop struct {
	bus    *Bus
	engine string
	slots  *Slots
	work   context.Context
	handle Handler

	queues  []queue // by priority, the first first
	bell    *bell
	running sync.WaitGroup
	failing string // the last error of a look, to log it once
}

type queue struct {
	priority string
	consumer jetstream.Consumer
	waiting  uint64 // how many were left at the last look
	look     bool   // false where it is known to be empty: it was, and the bell would have rung since
}

func (l *loop) open(ctx context.Context) error {
	var queues []queue
	for _, priority := range contracts.Priorities {
		consumer, err := l.bus.ensureConsumer(ctx, l.engine, priority, mend, &Declared{})
		if err != nil {
			return err
		}
		if wait := consumer.CachedInfo().Config.AckWait; wait < time.Duration(l.bus.config.AckWait) {
			l.bus.log.Warn().Dur("ack_wait", wait).Str("engine", l.engine).
				Msg("the queue was made with a shorter ack_wait than is configured here; requests may be taken over while they run: use one ack_wait, and executor provision")
		}
		queues = append(queues, queue{priority: priority, consumer: consumer, look: true})
	}
	l.queues = queues
	if l.bell == nil {
		l.bell = newBell(l.bus, l.engine)
	}
	return nil
}

// run: take a slot, then look in the queues, then wait for the bell, a free slot, or a tick. No slot, no look: what is
// taken is handled at once, and nothing is hoarded that another instance could run.
func (l *loop) run(take context.Context) {
	defer l.running.Wait()
	defer l.bell.ignore()
	for {
		if !l.slots.take() {
			// Who cannot take must not hear, because the bell rings for one instance of the fleet alone; what he has
			// heard, or seen waiting, he passes on.
			l.bell.ignore()
			l.passOn()
			select {
			case <-l.slots.free:
			case <-take.Done():
				return
			}
		}
		if take.Err() != nil {
			l.slots.give()
			return
		}
		m := l.find(take)
		if m == nil {
			l.slots.give()
			if l.bell.wait(take) {
				l.lookInAll()
			}
			continue
		}
		l.running.Go(func() {
			defer l.slots.give()
			l.settle(m.msg, l.handle(l.work, m.delivery))
			l.bus.leases.drop(m.msg)
		})
	}
}

func (l *loop) lookInAll() {
	for i := range l.queues {
		l.queues[i].look = true
	}
}

// passOn rings for others what was heard or seen here. From now on nothing is heard, so nothing is known to be empty.
func (l *loop) passOn() {
	rung := l.bell.take()
	for i := range l.queues {
		if q := &l.queues[i]; rung.has(i) || q.waiting > 0 {
			l.bell.ring(q.priority)
		}
	}
	l.lookInAll()
}

type taken struct {
	msg      jetstream.Msg
	delivery contracts.Delivery
}

// find takes the first request there is. Where the bell has rung and nothing is there yet it looks again after 0.2, 2, 20
// and 200 ms, sooner if it rings once more: the bell rings before the consumer has the request. With nil, the bell is heard
// from before the last look.
func (l *loop) find(take context.Context) *taken {
	rung := l.bell.take()
	if m := l.look(take, rung); m != nil {
		return m
	}
	if l.bell.listen() {
		l.lookInAll()
		if m := l.look(take, 0); m != nil {
			return m
		}
	}
	if rung == 0 {
		return nil
	}
	for _, wait := range []time.Duration{200 * time.Microsecond, 1800 * time.Microsecond, 18 * time.Millisecond, 180 * time.Millisecond} {
		select {
		case <-time.After(wait):
		case <-l.bell.wake:
		case <-take.Done():
			return nil
		}
		rung |= l.bell.take()
		if m := l.look(take, rung); m != nil {
			return m
		}
	}
	return nil
}

// look takes one request, that of the highest priority.
func (l *loop) look(take context.Context, rung rung) *taken {
	for i := range l.queues {
		q := &l.queues[i]
		if q.look = q.look || rung.has(i); !q.look {
			continue
		}
		batch, err := q.consumer.FetchNoWait(1)
		if err == nil {
			for msg := range batch.Messages() {
				if m := l.receive(q, msg); m != nil {
					l.failing = ""
					return m
				}
			}
			err = batch.Error()
		}
		if err != nil {
			l.failed(take, err)
			return nil
		}
		q.look, q.waiting = false, 0
	}
	l.failing = ""
	return nil
}

func (l *loop) receive(q *queue, msg jetstream.Msg) *taken {
	meta, err := msg.Metadata()
	if err != nil {
		l.bus.log.Error().Err(err).Msg("a message without the data of a queue came from a queue")
		return nil
	}
	l.bus.leases.hold(msg)
	q.waiting = meta.NumPending
	// What comes back from a dead executor is not counted there, and no bell rings for it: where one is, there may be more.
	q.look = q.waiting > 0 || meta.NumDelivered > 1
	return &taken{msg, contracts.Delivery{
		Engine: l.engine, Priority: q.priority,
		Seq: meta.Sequence.Stream, Created: l.bus.streams.created, Stored: meta.Timestamp, Delivered: meta.NumDelivered,
		Header: contracts.Header(msg.Headers()), Data: msg.Data(),
	}}
}

// failed deals with a look that got no answer: it logs a new kind of failure once, waits a little, and makes the
// consumer again if somebody removed it.
func (l *loop) failed(take context.Context, err error) {
	if l.bus.nc.IsClosed() || take.Err() != nil {
		return
	}
	if !l.bus.nc.IsConnected() {
		if err := l.bus.await(take); err != nil && take.Err() == nil {
			l.bus.log.Error().Err(err).Msg("the connection to NATS is gone for good")
		}
		return
	}
	err = l.bus.explain(err)
	if l.failing != err.Error() {
		l.failing = err.Error()
		l.bus.log.Warn().Err(err).Str("engine", l.engine).Msg("cannot look into the queue; trying again")
	}
	select {
	case <-time.After(200*time.Millisecond + rand.N(300*time.Millisecond)):
	case <-take.Done():
		return
	}
	if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, nats.ErrNoResponders) {
		ctx, cancel := context.WithTimeout(take, openWait)
		defer cancel()
		if err := l.open(ctx); err != nil {
			l.bus.log.Warn().Err(err).Str("engine", l.engine).Msg("the consumer of the queue has no leader, or is gone and cannot be made again yet")
		}
	}
}

// openWait is how long a loop asks for a consumer that does not answer until it looks into the queue again. Nobody answers
// for one whose leader has just gone, and the next one is there within a second or two.
const openWait = time.Second

// settleWait is how long we try to tell the server what became of a request. If it does not hear it, the request comes
// again one ack-wait later, and is answered by what is stored.
const settleWait = 30 * time.Second

func (l *loop) settle(msg jetstream.Msg, s contracts.Settlement) {
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
					l.bell.ring(contracts.PriorityNormal) // no bell tells of what comes back; it makes others look
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
