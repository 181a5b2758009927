package executor

import (
	"io"
	"sync"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// chunkSize is the most that one message of output holds.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// output takes what a tool prints, on both streams, and publishes it in chunks: full ones at once, a smaller one when
// nothing that went before is still on its way. So a line that is printed alone goes at once, and lines that come fast
// travel together. What the bus cannot take yet makes the tool wait; memory does not grow.
type output struct {
	limit   int64  // bytes to publish
	onLimit func() // called once, when the tool prints more; may be nil

	mu        sync.Mutex
	journal   Journal
	published int64
	dropped   int64
	limited   bool
	seq       uint64
	streams   [2]stream
	chunk     *[]byte // the chunk being filled; nil: none
	filled    int
	of        int // the stream of it: index into streams
	failed    bool

	wake    chan struct{} // the bus has room again
	over    chan struct{} // closed: no more output
	pumping bool
	pumped  sync.WaitGroup
}

// stream is stdout or stderr.
type stream struct {
	name    string
	written int64 // all that the tool wrote
	offset  int64 // what was published of it
	rest    []byte
	capture capture
}

func newOutput(limit int64, inline int) *output {
	o := &output{limit: limit, wake: make(chan struct{}, 1), over: make(chan struct{})}
	o.streams[0] = stream{name: contracts.Stdout, capture: capture{most: inline}}
	o.streams[1] = stream{name: contracts.Stderr, capture: capture{most: inline}}
	return o
}

// open gives the journal: what was claimed may print.
func (o *output) open(journal Journal) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.journal = journal
}

// writer is what an engine writes a stream to.
func (o *output) writer(name string) io.Writer {
	if name == contracts.Stdout {
		return streamWriter{o, 0}
	}
	return streamWriter{o, 1}
}

type streamWriter struct {
	output *output
	of     int
}

// Write takes all of p. It fails only where the run's output can never be stored.
func (w streamWriter) Write(p []byte) (int, error) { return w.output.write(w.of, p) }

func (o *output) write(of int, p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &o.streams[of]
	s.written += int64(len(p))
	s.capture.add(p)
	take := min(int64(len(p)), o.limit-o.published)
	o.published += take
	if over := int64(len(p)) - take; over > 0 {
		o.dropped += over
		if !o.limited {
			o.limited = true
			if o.onLimit != nil {
				o.onLimit()
			}
		}
	}
	if o.failed || o.journal == nil {
		return len(p), nil
	}
	for rest := p[:take]; len(rest) > 0; {
		if o.chunk != nil && o.of != of {
			o.flush(false)
		}
		if o.chunk == nil {
			o.chunk, o.of = chunks.Get().(*[]byte), of
			o.filled = copy(*o.chunk, s.rest)
			s.rest = nil
		}
		n := copy((*o.chunk)[o.filled:], rest)
		o.filled += n
		rest = rest[n:]
		if o.filled == chunkSize {
			o.flush(false)
		}
	}
	if o.filled > 0 && o.journal.Ahead() {
		o.flush(false)
	}
	if o.filled > 0 && !o.pumping {
		o.pumping = true
		o.pumped.Go(o.pump)
		o.poke() // room may have come in between
	}
	return len(p), nil
}

// flush publishes the chunk being filled. The bytes of a character that is not whole yet wait for the rest of it, unless
// nothing more will come.
func (o *output) flush(last bool) {
	s := &o.streams[o.of]
	chunk, size := o.chunk, o.filled
	o.chunk, o.filled = nil, 0
	if !last {
		if cut := incompleteRune((*chunk)[:size]); cut > 0 {
			s.rest = append([]byte(nil), (*chunk)[size-cut:size]...)
			size -= cut
		}
	}
	if size == 0 || o.failed {
		chunks.Put(chunk)
		return
	}
	o.seq++
	c := contracts.Chunk{Stream: s.name, Seq: o.seq, Offset: s.offset, Data: (*chunk)[:size]}
	s.offset += int64(size)
	if err := o.journal.Output(c, func() { chunks.Put(chunk) }); err != nil {
		o.failed = true
	}
}

// incompleteRune is how many bytes at the end of b begin a UTF-8 character that is not whole.
func incompleteRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// poke says that the bus has room again.
func (o *output) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// pump publishes a chunk that is not full when the bus has room. It is another goroutine than the one that tells of the
// room, because publishing may wait for more of it.
func (o *output) pump() {
	for {
		select {
		case <-o.wake:
		case <-o.over:
			return
		}
		o.mu.Lock()
		if o.filled > 0 && o.journal.Ahead() {
			o.flush(false)
		}
		o.mu.Unlock()
	}
}

// close publishes what is left. The tool is gone, and nobody writes any more.
func (o *output) close() {
	o.mu.Lock()
	if o.filled > 0 {
		o.flush(true)
	}
	for i := range o.streams {
		if s := &o.streams[i]; len(s.rest) > 0 && o.journal != nil {
			o.chunk, o.of = chunks.Get().(*[]byte), i
			o.filled = copy(*o.chunk, s.rest)
			s.rest = nil
			o.flush(true)
		}
	}
	o.mu.Unlock()
	close(o.over)
	o.pumped.Wait()
}
