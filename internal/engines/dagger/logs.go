package dagger

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

type traceKey struct{}

// trace names what is asked for, so that what the engine says about it can be found. It is a W3C trace id.
type trace [16]byte

func newTrace() (t trace) {
	rand.Read(t[:])
	return t
}

// withTrace has queries with this context run under the trace.
func withTrace(ctx context.Context, t trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// traceOf is the header traceparent of a context; "" for none.
func traceOf(ctx context.Context) string {
	t, ok := ctx.Value(traceKey{}).(trace)
	if !ok {
		return ""
	}
	return "00-" + hex.EncodeToString(t[:]) + "-" + hex.EncodeToString(t[8:]) + "-01"
}

// UnmarshalJSON reads an id as the engine writes it, in base64, or as OTLP has it, in hexadecimal digits.
func (t *trace) UnmarshalJSON(text []byte) error {
	text = bytes.Trim(text, `"`)
	decode := func(to, from []byte) (int, error) { return base64.StdEncoding.Decode(to, from) }
	if len(text) == 2*len(t) {
		decode = hex.Decode
	}
	var id [24]byte
	n, err := decode(id[:], text[:min(len(text), 32)])
	if err == nil && n == len(t) {
		copy(t[:], id[:])
	}
	return nil // one that cannot be read is nobody's
}

// logs is the log stream of a session: one for all of its runs.
type logs struct {
	mu        sync.Mutex
	followers map[trace]*follower
	err       error // why there is no stream, or none yet
	seen      string
}

// follow registers a run. It must be called before the run is asked for.
func (l *logs) follow(t trace) *follower {
	f := &follower{trace: t, wake: make(chan struct{}, 1), eof: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		f.lost = true
		return f
	}
	l.followers[t] = f
	return f
}

func (l *logs) forget(f *follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, f.trace)
}

// is says whether there is a stream: nil, or why there is none.
func (l *logs) is(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// errNoStream is an engine that knows no log stream. What else is wrong with one passes.
var errNoStream = errors.New("it has none")

// missing says why there is no stream; nil where there is one.
func (l *logs) missing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// subscribe opens the stream; the caller then calls read. ctx is that of the stream, attempt that of the opening: an engine may
// take the request and never answer.
func (l *logs) subscribe(ctx, attempt context.Context, conn *connection) (_ io.ReadCloser, err error) {
	ctx, cancel := context.WithCancel(ctx)
	opened := context.AfterFunc(attempt, cancel)
	defer func() {
		if err != nil {
			opened()
			cancel()
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dagger/v1/logs", http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	if l.seen != "" {
		r.Header.Set("X-Last-Event-ID", l.seen)
	}
	answer, err := conn.Do(r)
	if err != nil {
		return nil, err
	}
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		answer.Body.Close()
		if err = fmt.Errorf("GET /v1/logs: %s %s", answer.Status, kind); answer.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errNoStream, err)
		}
		return nil, err
	}
	if !opened() {
		answer.Body.Close()
		return nil, context.Cause(attempt)
	}
	return stream{answer.Body, cancel}, nil
}

// stream is the body of an answer, with what ends its request.
type stream struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close ends it.
func (s stream) Close() error {
	s.cancel()
	return s.ReadCloser.Close()
}

// maxEvent bounds an event of the stream, in bytes.
const maxEvent = 64 << 20

// read takes events until the stream ends.
func (l *logs) read(stream io.Reader) error {
	lines := bufio.NewReaderSize(stream, 256<<10)
	var id string
	var data []byte
	for {
		line, err := lines.ReadSlice('\n')
		var long []byte
		for err == bufio.ErrBufferFull { //nolint:errorlint // as bufio returns it
			if long = append(long, line...); len(long) > maxEvent {
				return fmt.Errorf("an event of the log stream is larger than %d bytes", maxEvent)
			}
			line, err = lines.ReadSlice('\n')
		}
		if long != nil {
			line = append(long, line...)
		}
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) == 0:
			if len(data) > 0 {
				l.take(data)
			}
			if id != "" {
				l.seen = id
			}
			id, data = "", data[:0]
		case string(name) == "id":
			id = string(value)
		case string(name) == "data":
			if data = append(data, value...); len(data) > maxEvent {
				return fmt.Errorf("an event of the log stream is larger than %d bytes", maxEvent)
			}
		}
	}
}

// export is an event of the stream, as OTLP has it, as far as it matters here.
type export struct {
	ResourceLogs []struct {
		ScopeLogs []struct {
			LogRecords []record `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type record struct {
	TraceID trace  `json:"traceId"`
	SpanID  string `json:"spanId"`
	Body    struct {
		StringValue string `json:"stringValue"`
	} `json:"body"`
	Attributes []struct {
		Key   string `json:"key"`
		Value struct {
			IntValue  json.Number `json:"intValue"`
			BoolValue bool        `json:"boolValue"`
		} `json:"value"`
	} `json:"attributes"`
}

func (l *logs) take(data []byte) {
	var e export
	if json.Unmarshal(data, &e) != nil {
		return // not an export: the stream began
	}
	for _, r := range e.ResourceLogs {
		for _, s := range r.ScopeLogs {
			for i := range s.LogRecords {
				one := &s.LogRecords[i]
				l.mu.Lock()
				f := l.followers[one.TraceID]
				l.mu.Unlock()
				if f != nil {
					f.record(one)
				}
			}
		}
	}
}

// follower takes what the engine says about one run, and keeps it until that run reads it.
type follower struct {
	trace trace
	wake  chan struct{}
	eof   chan struct{} // closed: both streams of the program have ended

	mu       sync.Mutex
	span     string      // of the program that stands beside the tool; "": not seen yet
	pieces   [2][][]byte // of its standard output, and of its standard error if that goes on there
	more     bool        // it does
	held     int64       // bytes in pieces
	received int64
	last     time.Time // something came
	ends     int
	lost     bool // something was not kept: the rest has to be read at the end
	errors   tail // what that program printed itself
}

// mostHeld bounds what waits for a reader that is slow, in bytes. What does not fit is read at the end of the run.
const mostHeld = 16 << 20

func (f *follower) record(r *record) {
	stream, eof := "", false
	for _, a := range r.Attributes {
		switch a.Key {
		case "stdio.stream":
			stream = a.Value.IntValue.String()
		case "stdio.eof":
			eof = a.Value.BoolValue
		case "dagger.io/logs.verbose":
			return
		}
	}
	if stream == "" {
		return // not of a process
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.span == "" && stream == "1" && strings.HasPrefix(r.Body.StringValue, inside.Hello) {
		f.span = r.SpanID
	}
	if f.span != r.SpanID {
		return
	}
	f.last = time.Now()
	if eof {
		if f.ends++; f.ends == 2 {
			close(f.eof)
		}
	}
	if stream == "2" && strings.HasPrefix(r.Body.StringValue, inside.More) {
		f.more = true
	}
	of := 0
	if stream == "2" {
		of = 1
	}
	switch {
	case len(r.Body.StringValue) == 0:
	case stream == "2" && !f.more:
		_, _ = f.errors.Write([]byte(r.Body.StringValue))
	default:
		f.received += int64(len(r.Body.StringValue))
		if f.held += int64(len(r.Body.StringValue)); f.held > mostHeld {
			f.lost, f.pieces = true, [2][][]byte{}
		}
		if !f.lost {
			f.pieces[of] = append(f.pieces[of], []byte(r.Body.StringValue))
		}
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// next returns what has come of a stream since the last call; ok is false where something is missing from here on.
func (f *follower) next(stream int) (pieces [][]byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pieces, f.pieces[stream] = f.pieces[stream], nil
	for _, one := range pieces {
		f.held -= int64(len(one))
	}
	return pieces, !f.lost
}

// drain waits for the last output of a tool that was stopped. An engine kills its container within some 20 ms and says neither
// that it has nor that its streams have ended, so it waits until nothing has come for a while.
func (f *follower) drain() {
	ticker := time.NewTicker(drainQuiet / 10)
	defer ticker.Stop()
	begun := time.Now()
	for now := begun; now.Sub(begun) < drainTimeout; now = <-ticker.C {
		_, last, _ := f.state()
		if _, over := await(f.eof, 0); over || now.Sub(begun) > drainQuiet && now.Sub(last) > drainQuiet {
			return
		}
	}
}

// state is how many bytes have come, and when the last did.
func (f *follower) state() (received int64, last time.Time, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received, f.last, f.lost
}
