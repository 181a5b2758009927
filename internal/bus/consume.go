package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Handler handles one delivery and says what becomes of it. It holds a slot and the lease until it returns. Its context
// ends when running work has to stop, not when taking new work has.
type Handler func(context.Context, contracts.Delivery) contracts.Settlement

// Slots are the right to handle that many deliveries at a time, shared by the engines of an instance or of one engine.
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

func (s *Slots) wait(ctx context.Context) bool {
	select {
	case <-s.free:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Slots) give() { s.free <- struct{}{} }

// Intake says what an instance takes from the queues, how much at a time, and who handles it.
type Intake struct {
	Engines []EngineIntake
	Slots   *Slots
	Weights Weights
	Handle  Handler
}

// EngineIntake is an engine whose queues are taken from.
type EngineIntake struct {
	Engine string
	Slots  *Slots      // beside those of all engines; nil: only those
	Open   func() bool // whether it takes requests now; asked again at every look. nil: always
}

// Consume takes requests until take ends, and returns when all that was taken is handled. Handlers run in work, which the
// caller ends when he has waited long enough.
func (b *Bus) Consume(take, work context.Context, in Intake) error {
	loops := make([]*loop, len(in.Engines))
	for i, engine := range in.Engines {
		l := &loop{bus: b, engine: engine.Engine, own: engine.Slots, shared: in.Slots, isOpen: engine.Open, weights: in.Weights, work: work, handle: in.Handle, running: &sync.WaitGroup{}}
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
	bus     *Bus
	engine  string
	own     *Slots // nil: none
	shared  *Slots
	isOpen  func() bool // nil: always
	weights Weights
	work    context.Context
	handle  Handler

	queues  []queue // by priority, the first first
	turn    float64 // of the queue that was taken from last
	bell    *bell
	running *sync.WaitGroup // handlers
	waiting atomic.Int64    // deliveries that have given their slot back
	failing string          // the last error of a look, to log it once
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
		queues = append(queues, queue{priority: priority, consumer: consumer, look: true, share: l.weights.share(priority)})
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
	for take.Err() == nil {
		if l.isOpen != nil && !l.isOpen() {
			l.deaf()
			l.bell.wait(take) // for a tick: nothing is heard
			continue
		}
		if !l.takeSlot(take) {
			return
		}
		m := l.find(take)
		if m == nil {
			l.giveSlot()
			if l.bell.wait(take) {
				l.lookInAll()
			}
			continue
		}
		l.start(take, m)
	}
}

// takeSlot waits for a slot; false where take ended.
func (l *loop) takeSlot(take context.Context) bool {
	for i, slots := range []*Slots{l.own, l.shared} {
		if slots == nil || slots.take() {
			continue
		}
		l.deaf()
		if !slots.wait(take) {
			if i == 1 && l.own != nil {
				l.own.give()
			}
			return false
		}
	}
	return true
}

func (l *loop) giveSlot() {
	l.shared.give()
	if l.own != nil {
		l.own.give()
	}
}

// start handles a request in a goroutine that has the slot.
func (l *loop) start(take context.Context, m *taken) {
	l.running.Go(func() {
		holds := true
		defer func() {
			if holds {
				l.giveSlot()
			}
		}()
		m.delivery.Yield = func(ctx context.Context, wait func(context.Context) error) error {
			if l.waiting.Add(1) > maxWaiting {
				l.waiting.Add(-1)
				return contracts.ErrCrowded
			}
			l.giveSlot()
			holds = false
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			defer context.AfterFunc(take, func() { cancel(contracts.ErrStopping) })()
			defer l.waiting.Add(-1)
			if err := wait(ctx); err != nil {
				return err
			}
			// What it waited for is not kept from others for a slot that is not free.
			soon, cancelSoon := context.WithTimeout(ctx, slotWait)
			defer cancelSoon()
			if holds = l.waitSlot(soon); !holds && ctx.Err() != nil {
				return context.Cause(ctx)
			} else if !holds {
				return contracts.ErrBusy
			}
			return nil
		}
		l.settle(m, l.handle(l.work, m.delivery))
		l.bus.leases.drop(m.msg)
	})
}

// waitSlot is takeSlot for a delivery that has waited; the bell is the loop's business.
func (l *loop) waitSlot(ctx context.Context) bool {
	if l.own != nil && !l.own.wait(ctx) {
		return false
	}
	if l.shared.wait(ctx) {
		return true
	}
	if l.own != nil {
		l.own.give()
	}
	return false
}

// slotWait is how long a delivery that has waited for something else may wait for a slot as well.
const slotWait = 100 * time.Millisecond

// maxWaiting is how many deliveries of an engine may wait in an instance without a slot.
const maxWaiting = 128

// deaf stops hearing the bell, because who cannot take must not hear: it rings for one instance of the fleet alone. What
// was heard, or seen waiting, is passed on.
func (l *loop) deaf() {
	l.bell.ignore()
	l.passOn()
}

func (l *loop) lookInAll() {
	for i := range l.queues {
		l.expect(&l.queues[i])
	}
}

// passOn rings for others what was heard or seen here. From now on nothing is heard, so nothing is known to be empty.
func (l *loop) passOn() {
	rung := l.bell.take()
	for i := range l.queues {
		if q := &l.queues[i]; rung.has(i) || q.waiting > 0 {
			l.bell.ring(q.priority)
			q.waiting = 0 // rung once
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

// look takes one request, of the queue whose turn it is.
func (l *loop) look(take context.Context, rung rung) *taken {
	for i := range l.queues {
		if rung.has(i) {
			l.expect(&l.queues[i])
		}
	}
	for q := l.next(); q != nil && take.Err() == nil; q = l.next() {
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
	l.took(q)
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
