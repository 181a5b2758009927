package docker

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"

	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// frame is what the first process says between the tool's output.
type frame struct {
	kind    byte
	payload []byte
}

// splitter takes one stream of a container and tells the tool's output and the frames of the first process apart. Write is called
// by one goroutine; the rest may be by others.
type splitter struct {
	box *box

	mu   sync.Mutex
	mark []byte
	out  io.Writer // nil: dropped
	said []byte    // the first that came before there was anybody to take it: a failure of the first process

	held []byte      // the beginning of a frame, or what looks like it
	last atomic.Bool // the last frame was there
}

const mostSaid = 4 << 10

func (s *splitter) ended() bool { return s.last.Load() }

func (s *splitter) expect(mark []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark = mark
}

func (s *splitter) to(out io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

func (s *splitter) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(bytes.TrimSpace(s.said))
}

// Write takes what the container printed. It never fails.
func (s *splitter) Write(p []byte) (int, error) {
	n := len(p)
	s.mu.Lock()
	mark := s.mark
	s.mu.Unlock()
	if len(s.held) > 0 {
		p = append(s.held, p...)
		s.held = nil
	}
	s.box.moved.Add(1)
	for len(p) > 0 && !s.ended() {
		at := -1
		if mark != nil {
			at = bytes.Index(p, mark)
		}
		if at < 0 {
			keep := begun(p, mark)
			s.pass(p[:len(p)-keep])
			s.hold(p[len(p)-keep:])
			break
		}
		s.pass(p[:at])
		p = p[at:]
		if len(p) < boot.HeadSize {
			s.hold(p)
			break
		}
		size := int(binary.BigEndian.Uint32(p[boot.MarkSize+1:]))
		if len(p) < boot.HeadSize+size {
			s.hold(p)
			break
		}
		f := frame{p[boot.MarkSize], bytes.Clone(p[boot.HeadSize : boot.HeadSize+size])}
		p = p[boot.HeadSize+size:]
		s.last.Store(f.kind == boot.Ended)
		s.box.frames <- f
	}
	return n, nil
}

// close passes on what looked like the beginning of a frame and was none.
func (s *splitter) close() {
	s.pass(s.held)
	s.held = nil
}

func (s *splitter) hold(p []byte) { s.held = append([]byte(nil), p...) }

// begun is how many bytes at the end of p may be the beginning of a mark.
func begun(p, mark []byte) int {
	if mark == nil {
		return 0
	}
	for keep := min(len(p), len(mark)-1); keep > 0; keep-- {
		if p[len(p)-keep] == mark[0] && bytes.HasPrefix(mark, p[len(p)-keep:]) {
			return keep
		}
	}
	return 0
}

func (s *splitter) pass(p []byte) {
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	out := s.out
	if out == nil && len(s.said) < mostSaid {
		s.said = append(s.said, p[:min(len(p), mostSaid-len(s.said))]...)
	}
	s.mu.Unlock()
	if out == nil {
		return
	}
	s.box.writing.Add(1)
	defer s.box.writing.Add(-1)
	if _, err := out.Write(p); err != nil {
		s.to(io.Discard) // the rest is read and dropped, so that the tool does not hang
	}
}
