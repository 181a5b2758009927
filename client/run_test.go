package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door plays an executor's front door on a real NATS server. What it answers to tools.stream and tools.follow is written
// down by the test, so that any loss and any disorder can be had. The whole way, with real executors, is tested with the
// program.
type door struct {
	t   *testing.T
	url string
	nc  *nats.Conn

	mu      sync.Mutex
	asked   []string // "stream", or "follow" with what was asked for
	answers [][]string
	dropped atomic.Bool // something of what a client was sent
}

// newDoor answers the first question by the first script, and so on; the last one also answers all later ones.
func newDoor(t *testing.T, answers ...[]string) *door {
	t.Helper()
	s, err := bus.StartServer(bus.ServerConfig{Port: -1, Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	d := &door{t: t, url: s.URL(), answers: answers}
	if d.nc, err = nats.Connect(d.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.nc.Close)
	if len(answers) > 0 {
		d.serve("tools.stream")
		d.serve("tools.follow")
	}
	d.nc.Flush()
	return d
}

func (d *door) serve(subject string) {
	if _, err := d.nc.Subscribe(subject, func(m *nats.Msg) {
		d.mu.Lock()
		defer d.mu.Unlock()
		var question struct {
			ID      string
			From    uint64
			Attempt int
		}
		json.Unmarshal(m.Data, &question)
		asked := strings.TrimPrefix(subject, "tools.")
		if asked == "follow" {
			asked = fmt.Sprintf("follow %d.%d", question.Attempt, question.From)
		}
		script := d.answers[min(len(d.asked), len(d.answers)-1)]
		d.asked = append(d.asked, asked)
		for _, line := range script {
			d.say(m.Reply, question.ID, line)
		}
	}); err != nil {
		d.t.Fatal(err)
	}
}

// say publishes one message: "started 1", "output 1.2 text", "err 1.3 text", "result succeeded 1 BYTES", "end".
func (d *door) say(to, id, line string) {
	word := strings.SplitN(line, " ", 4)
	msg := nats.NewMsg(to)
	set := func(kind, attempt string) {
		msg.Header.Set(contracts.HeaderType, kind)
		msg.Header.Set(contracts.HeaderID, id)
		msg.Header.Set(contracts.HeaderAttempt, attempt)
		msg.Header.Set(contracts.HeaderExecutor, "door")
	}
	switch word[0] {
	case "end":
	case "output", "err":
		attempt, seq, _ := strings.Cut(word[1], ".")
		set(contracts.TypeOutput, attempt)
		msg.Header.Set(contracts.HeaderStream, map[string]string{"output": "stdout", "err": "stderr"}[word[0]])
		msg.Header.Set(contracts.HeaderSeq, seq)
		msg.Data = []byte(word[2])
	case "result":
		set(contracts.TypeResult, word[2])
		attempt, _ := strconv.Atoi(word[2])
		size, _ := strconv.Atoi(word[3])
		msg.Data, _ = json.Marshal(contracts.Result{Type: "result", ID: id, Status: contracts.Status(word[1]), Attempt: attempt, StdoutBytes: int64(size)})
	default:
		set(word[0], word[1])
		attempt, _ := strconv.Atoi(word[1])
		msg.Data, _ = json.Marshal(contracts.Event{Type: word[0], ID: id, Attempt: attempt, Executor: "door", Time: time.Now()})
	}
	if err := d.nc.PublishMsg(msg); err != nil {
		d.t.Error(err)
	}
}

func (d *door) questions() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.asked, ", ")
}

func (d *door) client() *client.Client {
	d.t.Helper()
	nc, err := nats.Connect(d.url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrSlowConsumer) {
			d.dropped.Store(true)
		}
	}))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(nc.Close)
	c, err := client.New(nc)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// events reads a run as "started 1, output a, result".
func events(t *testing.T, run *client.Run) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var seen []string
	for event, err := range run.Events(ctx) {
		switch {
		case err != nil:
			return strings.Join(seen, ", "), err
		case event.Type == client.TypeOutput:
			seen = append(seen, event.Stream[3:]+" "+string(event.Data))
		case event.Type == client.TypeResult:
			kind := "result " + string(event.Result.Status)
			if event.Incomplete {
				kind += " incomplete"
			}
			seen = append(seen, kind)
		default:
			seen = append(seen, fmt.Sprintf("%s %d", event.Type, event.Attempt))
		}
	}
	return strings.Join(seen, ", "), nil
}

func TestEvents(t *testing.T) {
	for name, test := range map[string]struct {
		answers [][]string
		want    string
		asked   string
	}{
		"all goes well": {
			[][]string{{"accepted 0", "started 1", "output 1.1 a", "err 1.2 b", "running 1", "output 1.3 c", "result succeeded 1 3", "end"}},
			"accepted 0, started 1, out a, err b, running 1, out c, result succeeded", "stream"},
		"refused at once": {
			[][]string{{"result rejected 0 0", "end"}},
			"result rejected", "stream"},
		"a chunk is missing: asked again from there": {
			[][]string{{"started 1", "output 1.1 a", "output 1.3 c", "result succeeded 1 3"}, {"started 1", "output 1.2 b", "output 1.3 c", "result succeeded 1 3"}},
			"started 1, out a, out b, out c, result succeeded", "stream, follow 1.2"},
		"the last chunk is missing: the result tells": {
			[][]string{{"started 1", "output 1.1 a", "result succeeded 1 2"}, {"started 1", "output 1.2 b", "result succeeded 1 2"}},
			"started 1, out a, out b, result succeeded", "stream, follow 1.2"},
		"chunks come twice": {
			[][]string{{"started 1", "output 1.1 a", "output 1.1 a", "output 1.2 b", "output 1.1 a", "result succeeded 1 2"}},
			"started 1, out a, out b, result succeeded", "stream"},
		"a new attempt begins anew": {
			[][]string{{"started 1", "output 1.1 a", "output 1.2 b", "started 2", "output 2.1 x", "output 1.3 late", "result succeeded 2 1"}},
			"started 1, out a, out b, started 2, out x, result succeeded", "stream"},
		"the start of a new attempt was missed": {
			[][]string{{"started 1", "output 1.1 a", "output 2.2 y", "result succeeded 2 2"}, {"started 1", "started 2", "output 2.1 x", "output 2.2 y", "result succeeded 2 2"}},
			"started 1, out a, out x, out y, result succeeded", "stream, follow 2.1"},
		"output is not kept any more": {
			[][]string{{"started 1", "output 1.1 a", "result succeeded 1 9"}, {"result succeeded 1 9"}},
			"started 1, out a, result succeeded incomplete", "stream, follow 1.2, follow 1.2"},
		"the first output is not kept any more": {
			[][]string{{"started 1", "output 1.3 c", "output 1.4 d", "result succeeded 1 4"}},
			"started 1, out c, out d, result succeeded incomplete", "stream, follow 1.1, follow 1.1"},
		"a replay loses a chunk on the way": {
			[][]string{{"started 1", "output 1.2 b"}, {"output 1.1 a", "output 1.3 c", "result succeeded 1 3"}, {"output 1.2 b", "output 1.3 c", "result succeeded 1 3"}},
			"started 1, out a, out b, out c, result succeeded", "stream, follow 1.1, follow 1.2"},
		"a replay loses the last chunk on the way": {
			[][]string{{"started 1", "output 1.2 b"}, {"output 1.1 a", "output 1.2 b", "result succeeded 1 3"}, {"output 1.3 c", "result succeeded 1 3"}},
			"started 1, out a, out b, out c, result succeeded", "stream, follow 1.1, follow 1.3"},
		"chunks are stored out of order": {
			[][]string{{"started 1", "output 1.2 b", "output 1.3 c", "output 1.1 a", "result succeeded 1 3"}},
			"started 1, out a, out b, out c, result succeeded", "stream, follow 1.1, follow 1.1"},
		"unknown types are passed on": {
			[][]string{{"started 1", "novelty 1", "result succeeded 1 0"}},
			"started 1, novelty 1, result succeeded", "stream"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, test.answers...)
			run, err := d.client().Start(t.Context(), client.Request{Tool: "x"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := events(t, run)
			if err != nil || got != test.want {
				t.Errorf("%s (%v)\nwant %s", got, err, test.want)
			}
			if d.questions() != test.asked {
				t.Errorf("asked %s, want %s", d.questions(), test.asked)
			}
		})
	}
}

func TestWait(t *testing.T) {
	d := newDoor(t, []string{"started 1", "output 1.1 a", "result failed 1 1"})
	result, err := d.client().Follow("some-id").Wait(t.Context())
	if err != nil || result.Status != contracts.Failed || result.ID != "some-id" {
		t.Errorf("%+v, %v", result, err)
	}
	if d.questions() != "follow 0.1" {
		t.Errorf("asked %s", d.questions())
	}
}

func TestStartTellsThatNobodyIsThere(t *testing.T) {
	d := newDoor(t)
	c := d.client()
	if _, err := c.Start(t.Context(), client.Request{Tool: "x"}); !errors.Is(err, client.ErrNoExecutor) {
		t.Errorf("%v", err)
	}
	if err := c.Cancel(t.Context(), "x"); !errors.Is(err, client.ErrNoExecutor) {
		t.Errorf("%v", err)
	}
	if _, err := c.Discover(t.Context(), ""); !errors.Is(err, client.ErrNoExecutor) {
		t.Errorf("%v", err)
	}
}

// A connection that is lost in the middle is made again, and what was missed is asked for.
func TestEventsOverALostConnection(t *testing.T) {
	d := newDoor(t, []string{"started 1", "output 1.1 a"}, []string{"started 1", "output 1.2 b", "result succeeded 1 2"})
	nc, err := nats.Connect(d.url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c, _ := client.New(nc)
	run, err := c.Start(t.Context(), client.Request{Tool: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for event, err := range run.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, event.Type+string(event.Data))
		if string(event.Data) == "a" {
			nc.ForceReconnect()
		}
	}
	if got := strings.Join(seen, " "); got != "started outputa outputb result" || d.questions() != "stream, follow 1.2" {
		t.Errorf("%s; asked %s", got, d.questions())
	}
}

// A reader that is slower than the executors loses nothing: what was dropped for him is asked for again.
func TestSlowReader(t *testing.T) {
	var lines []string
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf("output 1.%d %s", i+1, strings.Repeat("x", 40_000)))
	}
	end := "result succeeded 1 " + strconv.Itoa(3000*40_000)
	full := append(lines, end)
	d := newDoor(t, append([]string{"started 1"}, full...), nil) // the scripted door is silent when asked again; this one answers
	if _, err := d.nc.Subscribe("tools.follow", func(m *nats.Msg) {
		var question contracts.Follow
		json.Unmarshal(m.Data, &question)
		for _, line := range full[question.From-1:] {
			d.say(m.Reply, question.ID, line)
		}
	}); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{})
	if _, err := d.nc.Subscribe("told", func(*nats.Msg) { close(told) }); err != nil { // comes after what was said before
		t.Fatal(err)
	}
	run, err := d.client().Start(t.Context(), client.Request{Tool: "x"})
	if err != nil {
		t.Fatal(err)
	}
	next, bytes := uint64(1), 0
	var result *client.Result
	for event, err := range run.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == client.TypeOutput {
			if event.Seq != next {
				t.Fatalf("chunk %d after %d", event.Seq, next-1)
			}
			if next++; next == 10 {
				// All of it comes meanwhile, more than is kept for us.
				d.nc.Publish("told", nil)
				<-told
				for deadline := time.Now().Add(20 * time.Second); !d.dropped.Load() && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
			}
			bytes += len(event.Data)
		}
		result = event.Result
	}
	if result == nil || bytes != 3000*40_000 {
		t.Errorf("%d bytes, result %v", bytes, result)
	}
	if !strings.Contains(d.questions(), "follow") {
		t.Error("nothing was dropped, so nothing was tested")
	}
}

func TestEventsEnd(t *testing.T) {
	silent := []string{"accepted 0"}
	d := newDoor(t, silent)
	run, err := d.client().Start(t.Context(), client.Request{Tool: "x"})
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var got error
	for event, err := range run.Events(ctx) {
		if got = err; event.Type == client.TypeAccepted {
			cancel(reason)
		}
	}
	if !errors.Is(got, reason) {
		t.Errorf("%v", got)
	}
	// Who leaves the loop early hears no more, and leaves nothing behind.
	run, err = d.client().Start(t.Context(), client.Request{Tool: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for range run.Events(t.Context()) {
		break
	}
}

func TestStartRefusesReplyTo(t *testing.T) {
	d := newDoor(t, []string{"accepted 0"})
	if _, err := d.client().Start(t.Context(), client.Request{Tool: "x", ReplyTo: "a"}); err == nil {
		t.Error("no error")
	}
}

func TestPrefix(t *testing.T) {
	if _, err := client.New(nil, client.Prefix("a.b")); err == nil {
		t.Error("no error for a prefix of two tokens")
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := client.NewID()
		if err := contracts.CheckID(id); err != nil || seen[id] || len(id) < 20 {
			t.Fatalf("%s: %v", id, err)
		}
		seen[id] = true
	}
}
