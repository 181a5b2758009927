package dagger

import (
	"io"
	"sync"

	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

// output hands what a tool printed to the writers, each byte once, though it may come twice: while the tool runs by the log
// stream, and at its end all of it. A writer that fails has the rest of its stream dropped.
type output struct {
	writers [2]io.Writer
	written [2]int64
}

func newOutput(stdout, stderr io.Writer) *output {
	return &output{writers: [2]io.Writer{stdout, stderr}}
}

// emit takes data that lies at offset in a stream; what was written before is left out.
func (o *output) emit(stream int, offset int64, data []byte) {
	skip := o.written[stream] - offset
	if skip >= int64(len(data)) {
		return
	}
	data = data[max(0, skip):]
	o.written[stream] += int64(len(data))
	if w := o.writers[stream]; w != nil {
		if _, err := w.Write(data); err != nil {
			o.writers[stream] = nil
		}
	}
}

// live is the part of the output that comes by the log stream.
type live struct {
	from *follower
	over chan struct{} // closed: no more comes this way
	stop func()
	end  *inside.End // valid when it is over
	gap  bool        // as well: something is missing
}

// follow begins to hand on what a follower receives. The caller calls finish before it writes itself.
func (o *output) follow(f *follower) *live {
	done := make(chan struct{})
	l := &live{from: f, over: make(chan struct{}), stop: sync.OnceFunc(func() { close(done) })}
	go func() {
		defer close(l.over)
		l.end, l.gap = o.pump(f, done)
	}()
	return l
}

// finish hands on what has come until now, and ends it. It returns how the tool ended, nil where that has not come, or not in
// order.
func (l *live) finish() *inside.End {
	l.stop()
	<-l.over
	return l.end
}

// pump hands on what a follower receives, until done is closed and nothing is left, or something is missing. It returns how the
// tool ended, nil where that has not come, and whether something is missing.
func (o *output) pump(f *follower, done <-chan struct{}) (end *inside.End, gap bool) {
	var d inside.Decoder
	last := false
	for {
		ok := true
		for stream := range 2 {
			if stream == 1 && !d.More {
				break // what it has comes after all of the other
			}
			var pieces [][]byte
			pieces, ok = f.next(stream)
			if stream == 0 && d.More {
				continue // the end once more
			}
			for _, piece := range pieces {
				if d.Feed(piece, o.emit) != nil {
					return nil, true // what is missing is read at the end
				}
			}
		}
		if d.End != nil {
			return d.End, false
		}
		if !ok || last {
			return nil, !ok
		}
		select {
		case <-f.wake:
		case <-done:
			last = true
		}
	}
}

// whole hands on all that the program beside the tool printed, as far as it was not written before.
func (o *output) whole(d *inside.Decoder, r io.Reader) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.Read(buffer)
		if err := d.Feed(buffer[:n], o.emit); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
