package bus

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer starts a NATS server of its own for a test.
func startServer(t testing.TB) *Server {
	t.Helper()
	s, err := StartServer(ServerConfig{Port: -1, Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// restartable is a server that comes back at the same place with the same files.
type restartable struct {
	t    testing.TB
	dir  string
	port int
	*Server
}

func startRestartable(t testing.TB) *restartable {
	t.Helper()
	r := &restartable{t: t, dir: t.TempDir(), port: -1}
	r.start()
	r.port = r.Port()
	t.Cleanup(func() { r.Stop() })
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	r.Server = startServerAt(r.t, r.port, r.dir)
}

// startServerAt starts a server at a port that was free a moment ago. A test of another package may have it now, for as long
// as that takes.
func startServerAt(t testing.TB, port int, dir string) (s *Server) {
	t.Helper()
	eventually(t, "the port is free", func() bool {
		var err error
		if s, err = StartServer(ServerConfig{Port: port, Dir: dir, Log: zerolog.Nop()}); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		return err == nil
	})
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// testConfig is small and quick.
func testConfig(url string) Config {
	c := DefaultConfig()
	c.URLs = []string{url}
	c.ConnectWait = contracts.Seconds(5)
	c.AckWait = contracts.Seconds(2)
	c.Streams.QueueBytes, c.Streams.ReplyBytes, c.Streams.ResultBytes, c.Streams.DeadBytes = 64<<20, 256<<20, 64<<20, 16<<20
	return c
}

var instances struct {
	sync.Mutex
	n int
}

// connect makes an instance that serves the local engine's queues.
func connect(t testing.TB, url string, change ...func(*Config)) *Bus {
	t.Helper()
	c := testConfig(url)
	for _, f := range change {
		f(&c)
	}
	instances.Lock()
	instances.n++
	name := "test-" + strconv.Itoa(instances.n)
	instances.Unlock()
	b, err := Connect(t.Context(), c, name, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Declare(t.Context(), []string{contracts.EngineLocal}); err != nil {
		t.Fatal(err)
	}
	return b
}

// agent is a plain NATS client, as users have it.
func agent(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// publish puts a request into a queue and returns its place.
func publish(t testing.TB, nc *nats.Conn, subject, data string) uint64 {
	t.Helper()
	reply, err := nc.Request(subject, []byte(data), 5*time.Second)
	if err != nil {
		t.Fatalf("publish to %s: %v", subject, err)
	}
	var ack struct {
		Seq   uint64
		Error any
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Error != nil {
		t.Fatalf("publish to %s: %s", subject, reply.Data)
	}
	return ack.Seq
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logged collects log lines.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// consume runs the loop of an instance until the test ends, or the returned function is called.
func consume(t testing.TB, b *Bus, slots int, handle func(context.Context, contracts.Delivery) contracts.Settlement) (stop func()) {
	t.Helper()
	take, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(take, context.Background(), Intake{Engines: []EngineIntake{{Engine: contracts.EngineLocal}}, Slots: NewSlots(slots), Handle: handle})
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("consume: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func event(b *Bus, kind, id string, attempt int) contracts.Event {
	return contracts.Event{Type: kind, ID: id, Attempt: attempt, Executor: b.name, Time: time.Now().UTC(), ExecSeq: 1}
}

func result(b *Bus, id string, attempt int) *contracts.Result {
	return &contracts.Result{Type: contracts.TypeResult, ID: id, Status: contracts.Succeeded, Executor: b.name, Attempt: attempt, Time: time.Now().UTC()}
}

func itoa(n int) string { return strconv.Itoa(n) }

// next returns the first message of the reply stream at or after seq, nil where there is none.
func (b *Bus) next(ctx context.Context, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
	msg, err := b.streams.reply.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return msg, err
}
