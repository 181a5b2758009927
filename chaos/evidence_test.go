//go:build linux

package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// evidence is what is to be seen from outside, by run.
type evidence struct {
	results map[string][]result
	status  map[string][]event
	chunks  map[string][]chunk // in the order in which they are stored
	dead    map[string]int
	starts  map[string]int // lines that tools wrote
}

type result struct {
	Status       string `json:"status"`
	ExitCode     *int   `json:"exit_code"`
	Error        *struct{ Code, Message string }
	Attempt      int    `json:"attempt"`
	Executor     string `json:"executor"`
	Stdout       string `json:"stdout"`
	Stderr       string `json:"stderr"`
	StdoutBytes  int64  `json:"stdout_bytes"`
	StderrBytes  int64  `json:"stderr_bytes"`
	Truncated    bool   `json:"truncated"`
	DroppedBytes int64  `json:"dropped_bytes"`
}

type event struct {
	Type     string    `json:"type"`
	Attempt  int       `json:"attempt"`
	Executor string    `json:"executor"`
	Time     time.Time `json:"time"`
	Status   string    `json:"status"`
	Code     string    `json:"code"`
}

type chunk struct {
	attempt  int
	executor string
	stream   string
	seq      int
	offset   int64
	data     []byte
}

// collect reads all that there is.
func (f *fleet) collect() (*evidence, error) {
	e := &evidence{results: map[string][]result{}, status: map[string][]event{}, chunks: map[string][]chunk{}, dead: map[string]int{}}
	for _, stream := range []string{"TOOLS_REPLY", "TOOLS_RESULT", "TOOLS_DEAD"} {
		if err := f.read(stream, e.add); err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
	}
	e.starts = f.starts()
	return e, nil
}

// read hands over all messages of a stream. A replica that is behind is asked again.
func (f *fleet) read(stream string, add func(*jetstream.RawStreamMsg) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := f.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	for next, last := uint64(1), s.CachedInfo().State.LastSeq; next <= last && s.CachedInfo().State.Msgs > 0; {
		batch, err := jetstreamext.GetBatch(ctx, f.js, stream, 256, jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(4<<20))
		if err != nil {
			return err
		}
		before := next
		for msg, err := range batch {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				break
			}
			if err != nil {
				return err
			}
			if err := add(msg); err != nil {
				return fmt.Errorf("message %d: %w", msg.Sequence, err)
			}
			next = msg.Sequence + 1
		}
		if next == before {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("nothing from %d on, though %d is the last", next, last)
			}
		}
	}
	return nil
}

// add notes a message, by its subject.
func (e *evidence) add(m *jetstream.RawStreamMsg) error {
	words := strings.Split(m.Subject, ".")
	switch {
	case words[1] == "dead":
		var about struct{ ID string }
		if err := json.Unmarshal([]byte(m.Header.Get("Tools-Dead")), &about); err != nil {
			return err
		}
		e.dead[about.ID]++
	case words[3] == "result":
		var r result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return err
		}
		e.results[words[2]] = append(e.results[words[2]], r)
	case words[3] == "status":
		var ev event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			return err
		}
		e.status[words[2]] = append(e.status[words[2]], ev)
	case words[3] == "output":
		c := chunk{executor: m.Header.Get("Tools-Executor"), stream: m.Header.Get("Tools-Stream"), data: m.Data}
		var errs [3]error
		c.attempt, errs[0] = strconv.Atoi(m.Header.Get("Tools-Attempt"))
		c.seq, errs[1] = strconv.Atoi(m.Header.Get("Tools-Seq"))
		c.offset, errs[2] = strconv.ParseInt(m.Header.Get("Tools-Offset"), 10, 64)
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		e.chunks[words[2]] = append(e.chunks[words[2]], c)
	}
	return nil
}

// starts counts the lines that tools wrote when they were started.
func (f *fleet) starts() map[string]int {
	text, err := os.ReadFile(filepath.Join(f.dir, "starts"))
	if err != nil {
		f.t.Error(err)
	}
	starts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		id, _, _ := strings.Cut(line, " ")
		starts[id]++
	}
	return starts
}

func (f *fleet) wasStarted(id string) bool {
	text, _ := os.ReadFile(filepath.Join(f.dir, "starts"))
	return bytes.Contains(text, []byte(id+" "))
}

// settled reports whether the queue is empty, with nothing under way, and there are n results.
func (f *fleet) settled(n int) (bool, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	results, err := f.js.Stream(ctx, "TOOLS_RESULT")
	if err != nil {
		return false, err.Error()
	}
	queue, err := f.js.Stream(ctx, "TOOLS_EXEC")
	if err != nil {
		return false, err.Error()
	}
	pending := 0
	consumers := queue.ListConsumers(ctx)
	for c := range consumers.Info() {
		pending += c.NumAckPending
	}
	if err := consumers.Err(); err != nil {
		return false, err.Error()
	}
	have, waiting := results.CachedInfo().State.Msgs, queue.CachedInfo().State.Msgs
	return have >= uint64(n) && waiting == 0 && pending == 0,
		fmt.Sprintf("%d of %d results, %d requests in the queue, %d of them given out", have, n, waiting, pending)
}

// strangers are the consumers that nobody should have left.
func (f *fleet) strangers() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var found []string
	streams := f.js.ListStreams(ctx)
	for s := range streams.Info() {
		stream, err := f.js.Stream(ctx, s.Config.Name)
		if err != nil {
			return []string{err.Error()}
		}
		watchers := 0
		names := stream.ConsumerNames(ctx)
		for name := range names.Name() {
			if s.Config.Name == "KV_TOOLS_CONTRACTS" { // each executor watches the registry
				watchers++
				continue
			}
			if s.Config.Name != "TOOLS_EXEC" || !slices.Contains([]string{"local", "local-high", "local-low"}, name) {
				found = append(found, s.Config.Name+" has the consumer "+name)
			}
		}
		if err := names.Err(); err != nil {
			return []string{err.Error()}
		}
		// A cluster may need minutes to forget the consumer of a watcher that has lost its server and made another one.
		if watchers > len(f.seats) && len(f.servers) == 1 {
			found = append(found, fmt.Sprintf("%s has %d consumers for %d executors", s.Config.Name, watchers, len(f.seats)))
		}
	}
	if err := streams.Err(); err != nil {
		return []string{err.Error()}
	}
	return found
}

// processes are those that tools have started, and what they are; of the executor with that data directory, or of all.
func (f *fleet) processes(data string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err == nil && bytes.Contains(environment, []byte(markVariable+"="+f.mark+"\x00")) && bytes.Contains(environment, []byte("HOME="+data)) {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// directories are what executors left in their data directories, apart from the empty ones that they always have.
func (f *fleet) directories() []string {
	var found []string
	for _, s := range f.seats {
		for _, below := range []string{"runs/*", "runs/.*", "spill-*"} {
			files, _ := filepath.Glob(filepath.Join(s.data, below))
			found = append(found, files...)
		}
	}
	return slices.DeleteFunc(found, func(name string) bool { base := filepath.Base(name); return base == "." || base == ".." })
}
