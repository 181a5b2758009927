package bus

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Window of a journal: what is published and not yet known to be stored.
const (
	windowMessages = 64
	windowBytes    = 4 << 20
	// aheadMessages is how many unstored messages allow one more that is not full. It makes small output wait and grow
	// while the server is busy with what came before, and lets it go at once when it is not.
	aheadMessages = 2
	// patience is how long the oldest message may wait to be stored until the server counts as away, though there is a
	// connection.
	patience = requestTimeout
	// lookAgain is how often a writer that found the spool full tries it again: other runs end, and disks are cleaned up.
	lookAgain = time.Second
)

// onePublish has the library leave it to us to publish again what found no stream: it would do so message by message, each
// on its own clock, and so in any order.
var onePublish = jetstream.WithRetryAttempts(0)

// Journal publishes the events and output of one attempt: in order, and again when the server did not get them, so that
// the stream has all of it once. What is not stored yet is kept in memory, up to the window. Beyond, a server that is
// slow makes Output block, so that the tool prints as fast as its output is stored. One that is away does not: what
// comes is kept in a file (the spool), and published from there once the window is. Output blocks again when that is
// full. The methods are for one goroutine at a time, apart from Running.
type Journal struct {
	bus     *Bus
	ctx     context.Context
	id      string
	attempt int
	copies  contracts.Copies

	mu      sync.Mutex
	changed sync.Cond
	sent    []entry // published, in order, not known to be stored
	bytes   int
	keeper  bool  // a goroutine waits for the answers
	err     error // for ever: the server will never take it, or ctx has ended
	last    time.Time
	held    bool   // a message before is not on its way: nothing is sent until again has sent all, in order
	suspect bool   // a message may have been sent before one that is not stored
	epoch   uint64 // of the connection on which all in sent were sent
	away    bool   // the server, so that the spool is written
	spool   spool  // what comes after sent
	spilled int    // messages that are in it, or on their way from there to sent
	credit  int64  // bytes that may go to the spool while it is published
	full    bool   // it was told that the spool is

	// Freed is called whenever there is room again. It must not block, nor call the journal.
	freed func()
}

type entry struct {
	msg    *nats.Msg
	future jetstream.PubAckFuture // nil: could not even be sent
	first  time.Time              // when it was sent first
	seq    uint64                 // of output; 0 for events
	quiet  bool                   // no copy
	done   func()                 // the bytes of msg are free to be used again; may be nil
}

// free gives the bytes of the message back.
func (e *entry) free() {
	if e.done != nil {
		e.done()
	}
}

// Journal opens the journal of an attempt. When ctx ends, what is not stored then is lost. freed may be nil.
func (b *Bus) Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) *Journal {
	j := &Journal{bus: b, ctx: ctx, id: id, attempt: attempt, copies: copies, freed: freed, last: time.Now()}
	j.changed.L = &j.mu
	j.spool.shared = b.spill
	return j
}

// Event publishes a status event, and its copy.
func (j *Journal) Event(event contracts.Event) error {
	msg := j.bus.eventMessage(j.bus.subjects.Status(j.id), event, j.copies.Trace)
	msg.Header[nats.MsgIdHdr] = []string{j.id + "." + nuid.Next()}
	// Copies end with the result, which comes before the last event.
	return j.publish(entry{msg: msg, quiet: event.Type == contracts.TypeFinished})
}

// Output publishes a chunk, and its copy. It blocks while the window is full and, if the server is away, the spool as
// well. done is called when the chunk's bytes are free to be used again.
func (j *Journal) Output(c contracts.Chunk, done func()) error {
	seq := strconv.FormatUint(c.Seq, 10)
	msg := j.bus.message(j.bus.subjects.Output(j.id), contracts.TypeOutput, j.id, j.attempt, j.bus.name, j.copies.Trace)
	msg.Header[contracts.HeaderStream] = []string{c.Stream}
	msg.Header[contracts.HeaderSeq] = []string{seq}
	msg.Header[contracts.HeaderOffset] = []string{strconv.FormatInt(c.Offset, 10)}
	msg.Header[nats.MsgIdHdr] = []string{j.id + "." + strconv.Itoa(j.attempt) + "." + seq}
	msg.Data = c.Data
	return j.publish(entry{msg: msg, seq: c.Seq, done: done})
}

// Ahead reports whether a chunk that is not full should go now.
func (j *Journal) Ahead() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.sent) < aheadMessages && j.spilled == 0 || j.err != nil
}

// room reports whether the window takes one more message.
func (j *Journal) room() bool { return len(j.sent) < windowMessages && j.bytes < windowBytes }

// spills reports whether a message that has no place in the window goes to the spool. While that is being published
// again only half as much goes in as came out, so that it becomes empty and the tool goes on meanwhile.
func (j *Journal) spills() bool {
	return j.spool.shared != nil && (j.away || j.spilled > 0 && j.credit > 0)
}

func (j *Journal) publish(e entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for full := false; j.err == nil && (j.spilled > 0 || !j.room()); {
		switch {
		case full:
			full = false
			j.wait(lookAgain)
		case !j.spills():
			j.changed.Wait()
		default:
			spilled, err := j.append(&e)
			if spilled {
				return nil
			}
			full = err != nil
		}
	}
	if j.err != nil {
		e.free()
		return j.err
	}
	if j.inOrder() {
		j.send(&e)
	}
	j.sent = append(j.sent, e)
	j.bytes += len(e.msg.Data)
	j.added()
	return nil
}

// inOrder reports whether a message may be sent now: all before it are stored, or on their way on this connection. After
// a reconnect they may be lost, which keep hears a little later, and a message on the new connection would be stored before
// them.
func (j *Journal) inOrder() bool {
	epoch := j.bus.epoch()
	if len(j.sent) == 0 {
		j.held, j.epoch = false, epoch
	}
	j.held = j.held || j.epoch != epoch
	return !j.held
}

// added is called with the lock after a message was added.
func (j *Journal) added() {
	j.last = time.Now()
	if !j.keeper {
		j.keeper = true
		go j.keep()
	}
	j.changed.Broadcast()
}

// wait waits for a change, but not for ever.
func (j *Journal) wait(most time.Duration) {
	timer := time.AfterFunc(most, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.changed.Broadcast()
	})
	j.changed.Wait()
	timer.Stop()
}

// append puts a message into the spool. An error means that the spool cannot take it now; that it is false without one,
// that the journal has failed meanwhile. The lock is not held during the write: a disk can be slow, and Running must not
// wait for it.
func (j *Journal) append(e *entry) (bool, error) {
	j.mu.Unlock()
	err := j.spool.append(e)
	j.mu.Lock()
	if j.err != nil {
		return false, nil //nolint:nilerr // the writer reads j.err
	}
	if err != nil {
		if !j.full {
			j.full = true
			j.bus.log.Warn().Err(err).Str("id", j.id).Msg("no more output of a run can be kept on disk; the tool waits on its write")
		}
		return false, err
	}
	if j.spilled == 0 {
		j.bus.log.Info().Str("id", j.id).Msg("NATS is away; keeping output of a run on disk")
	}
	j.spilled++
	if !j.away {
		j.credit -= int64(len(e.msg.Data))
	}
	e.free()
	j.added()
	return true, nil
}

// refill moves messages from the spool to the window, as far as that has room, and publishes them.
func (j *Journal) refill() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.err == nil && !j.away && j.spilled > 0 && j.room() && j.inOrder() {
		j.mu.Unlock()
		e, err := j.spool.next()
		j.mu.Lock()
		if err != nil || j.err != nil {
			if e != nil {
				e.free()
			}
			return err
		}
		e.msg.Subject = j.bus.subjects.Status(j.id)
		if e.seq > 0 {
			e.msg.Subject = j.bus.subjects.Output(j.id)
		}
		j.send(e)
		j.sent = append(j.sent, *e)
		j.bytes += len(e.msg.Data)
		j.credit += int64(len(e.msg.Data)) / 2
		if j.spilled--; j.spilled == 0 {
			j.full = false
			j.bus.log.Info().Str("id", j.id).Msg("what was kept on disk of a run is published")
		}
		j.changed.Broadcast()
	}
	return nil
}

// send publishes a message and its copy. Where that fails at once, keep finds out.
func (j *Journal) send(e *entry) {
	if e.first.IsZero() {
		e.first = time.Now()
	}
	var err error
	if e.future, err = j.bus.js.PublishMsgAsync(e.msg, onePublish); err != nil {
		e.future, j.held = nil, true
	}
	if j.bus.epoch() != j.epoch { // lost in that moment; on which connection did it go?
		j.held, j.suspect = true, true
	}
	if !e.quiet && j.copies.Reply != contracts.ReplyResult {
		_ = j.bus.copy(j.copies, e.msg) // what is stored is the truth
	}
}

// keep waits for the answers of the server, in order, while there is something to wait for, and publishes what the spool
// has as they come.
func (j *Journal) keep() {
	for {
		if err := j.refill(); err != nil {
			j.fail(err)
		}
		j.mu.Lock()
		if len(j.sent) == 0 || j.err != nil {
			j.keeper = false
			j.mu.Unlock()
			j.changed.Broadcast()
			return
		}
		future := j.sent[0].future
		j.sent[0].future = nil // its answer comes once
		j.mu.Unlock()

		err := errors.New("not sent")
		if future != nil {
			select {
			case <-future.Ok():
				err = nil
			case err = <-future.Err():
			case <-j.ctx.Done():
				j.fail(context.Cause(j.ctx))
				continue
			}
		}
		if err == nil {
			j.forget(1)
			continue
		}
		if !transient(err) {
			j.fail(j.bus.explain(err))
			continue
		}
		if err := j.again(err); err != nil {
			j.fail(err)
		}
	}
}

// forget drops the first n messages: they are stored.
func (j *Journal) forget(n int) {
	j.mu.Lock()
	for _, e := range j.sent[:n] {
		j.bytes -= len(e.msg.Data)
		e.free()
	}
	clear(j.sent[:n])
	j.sent = j.sent[n:]
	freed := j.freed
	j.mu.Unlock()
	j.changed.Broadcast()
	if freed != nil {
		freed()
	}
}

func (j *Journal) fail(err error) {
	j.mu.Lock()
	j.err = err
	for _, e := range j.sent {
		e.free()
	}
	j.sent, j.spilled = nil, 0
	j.spool.close()
	freed := j.freed
	j.mu.Unlock()
	j.changed.Broadcast()
	if freed != nil {
		freed()
	}
}

// again publishes what is not stored once more, in order. It first waits for a connection and reads how far the stream
// has come. What is there all the same, or was on a lost connection and arrives late, is recognised by its message id;
// only what is too old for that is taken to be there if a later chunk is.
func (j *Journal) again(cause error) error {
	j.bus.log.Warn().Err(cause).Str("id", j.id).Msg("events of a run were not stored; publishing them again")
	select {
	case <-time.After(50 * time.Millisecond): // answers may be under way, and a server that refuses is not asked without end
	case <-j.ctx.Done():
		return context.Cause(j.ctx)
	}
	for !j.look() {
		if err := j.bus.await(j.ctx); err != nil {
			return err
		}
	}
	stored, err := j.storedOutput()
	if err != nil {
		return nil // not there yet: keep finds the same entry unsent and comes again
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := j.sent[:0:0]
	trusted := !j.suspect
	j.held, j.suspect, j.epoch = false, false, j.bus.epoch()
	for _, e := range j.sent {
		if e.seq > 0 && e.seq <= stored {
			if time.Since(e.first) > replyDuplicates/2 && trusted {
				j.bytes -= len(e.msg.Data)
				e.free()
				continue
			}
			e.quiet = true // its copy was sent
		}
		if e.future = nil; !j.held { // else the connection is away again, and the rest is sent the next time
			j.send(&e)
		}
		kept = append(kept, e)
	}
	j.sent = kept
	j.away, j.credit = false, 0
	j.changed.Broadcast()
	return nil
}

// look finds out whether the server is away, and returns false if there is no connection. Nobody may wait for one without
// having looked before: the writer would wait as well.
func (j *Journal) look() bool {
	connected := j.bus.Connected()
	j.mu.Lock()
	j.away = !connected || time.Since(j.sent[0].first) >= j.bus.patience
	j.mu.Unlock()
	j.changed.Broadcast()
	return connected
}

// storedOutput is the last chunk of this attempt that the stream has; 0: none.
func (j *Journal) storedOutput() (uint64, error) {
	msg, err := last(j.ctx, j.bus.streams.reply, j.bus.subjects.Output(j.id))
	if msg == nil {
		return 0, err
	}
	if msg.Header.Get(contracts.HeaderAttempt) != strconv.Itoa(j.attempt) || msg.Header.Get(contracts.HeaderExecutor) != j.bus.name {
		return 0, nil
	}
	return strconv.ParseUint(msg.Header.Get(contracts.HeaderSeq), 10, 64)
}

// Flush returns when all is stored, or with the reason why it never will be.
func (j *Journal) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.err == nil && len(j.sent)+j.spilled > 0 {
		j.changed.Wait()
	}
	return j.err
}

// Running tells reply_to that the run goes on, if nothing was said for as long as silence.
func (j *Journal) Running(event contracts.Event, silence time.Duration) {
	if j.copies.Subject == "" || j.copies.Reply == contracts.ReplyResult {
		return
	}
	j.mu.Lock()
	quiet := time.Since(j.last) >= silence
	if quiet {
		j.last = time.Now()
	}
	j.mu.Unlock()
	if quiet {
		j.bus.CopyEvent(j.copies, event)
	}
}
