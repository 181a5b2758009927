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
)

// Journal publishes the events and output of one attempt: in order, and again when the server did not get them, so that
// the stream has all of it once. What is not stored yet is kept, up to the window; beyond, Output blocks. Its methods
// are for one goroutine at a time, apart from Running.
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

	// Freed is called whenever there is room again. It must not block, nor call the journal.
	freed func()
}

type entry struct {
	msg    *nats.Msg
	future jetstream.PubAckFuture // nil: could not even be sent
	seq    uint64                 // of output; 0 for events
	quiet  bool                   // no copy
	done   func()                 // the bytes of msg are free to be used again
}

// Journal opens the journal of an attempt. When ctx ends, what is not stored then is lost. freed may be nil.
func (b *Bus) Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) *Journal {
	j := &Journal{bus: b, ctx: ctx, id: id, attempt: attempt, copies: copies, freed: freed, last: time.Now()}
	j.changed.L = &j.mu
	return j
}

// Event publishes a status event, and its copy.
func (j *Journal) Event(event contracts.Event) error {
	msg := j.bus.eventMessage(j.bus.subjects.Status(j.id), event, j.copies.Trace)
	msg.Header[nats.MsgIdHdr] = []string{j.id + "." + nuid.Next()}
	// Copies end with the result, which comes before the last event.
	return j.publish(entry{msg: msg, quiet: event.Type == contracts.TypeFinished})
}

// Output publishes a chunk, and its copy. It blocks while the window is full. done is called when the chunk's bytes are
// free to be used again.
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
	return len(j.sent) < aheadMessages || j.err != nil
}

func (j *Journal) publish(e entry) error {
	j.mu.Lock()
	for j.err == nil && (len(j.sent) >= windowMessages || j.bytes >= windowBytes) {
		j.changed.Wait()
	}
	if j.err != nil {
		j.mu.Unlock()
		if e.done != nil {
			e.done()
		}
		return j.err
	}
	j.last = time.Now()
	if !j.keeper {
		j.keeper = true
		go j.keep()
	}
	j.send(&e)
	j.sent = append(j.sent, e)
	j.bytes += len(e.msg.Data)
	j.mu.Unlock()
	j.changed.Broadcast()
	return nil
}

// send publishes a message and its copy. Where that fails at once, keep finds out.
func (j *Journal) send(e *entry) {
	var err error
	if e.future, err = j.bus.js.PublishMsgAsync(e.msg); err != nil {
		e.future = nil
	}
	if !e.quiet && j.copies.Reply != contracts.ReplyResult {
		j.bus.copy(j.copies, e.msg)
	}
}

// keep waits for the answers of the server, in order, while there is something to wait for.
func (j *Journal) keep() {
	for {
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
		if e.done != nil {
			e.done()
		}
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
		if e.done != nil {
			e.done()
		}
	}
	j.sent = nil
	freed := j.freed
	j.mu.Unlock()
	j.changed.Broadcast()
	if freed != nil {
		freed()
	}
}

// again publishes what is not stored once more, in order. It first waits for the answers that are still under way, reads
// how far the stream has come, and leaves out what is there. What was on a lost connection and arrives late all the same
// is recognised by its message id.
func (j *Journal) again(cause error) error {
	j.bus.log.Warn().Err(cause).Str("id", j.id).Msg("events of a run were not stored; publishing them again")
	if err := j.bus.pause(j.ctx); err != nil {
		return err
	}
	stored, err := j.storedOutput()
	if err != nil {
		return nil // not there yet: keep finds the same entry unsent and comes again
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := j.sent[:0:0]
	for _, e := range j.sent {
		if e.seq > 0 && e.seq <= stored {
			j.bytes -= len(e.msg.Data)
			if e.done != nil {
				e.done()
			}
			continue
		}
		j.send(&e)
		kept = append(kept, e)
	}
	j.sent = kept
	return nil
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
	for j.err == nil && len(j.sent) > 0 {
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
