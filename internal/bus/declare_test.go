package bus

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestDeclareMakesWhatTheDesignNames(t *testing.T) {
	s := startServer(t)
	b := connect(t, s.URL())
	js, _ := jetstream.New(agent(t, s.URL()))
	for name, check := range map[string]func(jetstream.StreamConfig) bool{
		"TOOLS_EXEC": func(c jetstream.StreamConfig) bool {
			return c.Retention == jetstream.WorkQueuePolicy && c.Discard == jetstream.DiscardNew && c.DiscardNewPerSubject && c.RePublish != nil && c.RePublish.HeadersOnly &&
				strings.Join(c.Subjects, " ") == "tools.exec.* tools.exec.*.high tools.exec.*.low" && int64(c.MaxMsgSize) == contracts.MaxRequest(1<<20)+republished
		},
		"TOOLS_REPLY": func(c jetstream.StreamConfig) bool {
			return strings.Join(c.Subjects, " ") == "tools.reply.*.status tools.reply.*.output" && c.AllowDirect && c.Discard == jetstream.DiscardOld
		},
		"TOOLS_RESULT": func(c jetstream.StreamConfig) bool {
			return strings.Join(c.Subjects, " ") == "tools.reply.*.result" && c.AllowDirect
		},
		"TOOLS_CANCEL": func(c jetstream.StreamConfig) bool {
			return c.MaxMsgsPerSubject == 1 && c.Subjects[0] == "tools.cancel.*"
		},
		"TOOLS_DEAD":         func(c jetstream.StreamConfig) bool { return c.Subjects[0] == "tools.dead.*" },
		"TOOLS_LIMITS":       func(c jetstream.StreamConfig) bool { return c.MaxMsgsPerSubject == 1 && c.AllowMsgTTL },
		"KV_TOOLS_EXECUTORS": func(c jetstream.StreamConfig) bool { return c.Storage == jetstream.MemoryStorage && c.AllowMsgTTL },
		"KV_TOOLS_CONTRACTS": func(c jetstream.StreamConfig) bool {
			return c.Storage == jetstream.FileStorage && c.MaxMsgsPerSubject == 5 && c.AllowDirect
		},
	} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c := stream.CachedInfo().Config; !check(c) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for _, name := range []string{"local", "local-high", "local-low"} {
		consumer, err := js.Consumer(t.Context(), "TOOLS_EXEC", name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c := consumer.CachedInfo().Config; c.MaxAckPending != -1 || c.MaxDeliver != -1 || c.AckWait.Seconds() != 2 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if err := b.Declare(t.Context(), []string{contracts.EngineLocal}); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// Executors of two versions must not fight: only Provision changes what is there.
func TestDeclareChangesNothing(t *testing.T) {
	s := startServer(t)
	connect(t, s.URL())
	other := connect(t, s.URL(), func(c *Config) { c.Streams.ResultBytes = 32 << 20 })
	size := func() int64 {
		stream, err := other.js.Stream(t.Context(), "TOOLS_RESULT")
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().Config.MaxBytes
	}
	if size() != 64<<20 {
		t.Fatalf("declare changed a stream: %d", size())
	}
	if _, err := other.Provision(t.Context(), []string{contracts.EngineLocal}); err != nil {
		t.Fatal(err)
	}
	if size() != 32<<20 {
		t.Errorf("provision did not change the stream: %d", size())
	}
}

// Inspect changes nothing and tells what Provision would do; a second Provision has nothing to do.
func TestInspectAndProvision(t *testing.T) {
	s := startServer(t)
	c := testConfig(s.URL())
	engines := []string{contracts.EngineLocal}
	first, err := Connect(t.Context(), c, "first", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	count := func(list []Declared, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for _, d := range list {
			found[d.Did]++
		}
		return fmt.Sprint(found)
	}
	if got := count(first.Inspect(t.Context(), engines)); got != "map[missing:11]" {
		t.Errorf("before: %s", got)
	}
	if got := count(first.Provision(t.Context(), engines)); got != "map[made:11]" {
		t.Errorf("the first provision: %s", got)
	}
	if got := count(first.Provision(t.Context(), engines)); got != "map[ok:11]" {
		t.Errorf("a second provision: %s", got)
	}
	c.Streams.ResultAge, c.AckWait = contracts.Seconds(3600), contracts.Seconds(7)
	other, err := Connect(t.Context(), c, "other", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	list, err := other.Inspect(t.Context(), engines)
	if got := count(list, err); got != "map[differs:4 ok:7]" {
		t.Errorf("with another configuration: %s", got)
	}
	if list[2].Name != "TOOLS_RESULT" || !strings.Contains(list[2].What, "max_age is ") || !strings.HasSuffix(list[2].What, "configured is 1h0m0s") {
		t.Errorf("%+v", list[2])
	}
	if got := count(other.Provision(t.Context(), engines)); got != "map[ok:7 updated:4]" {
		t.Errorf("provision with another configuration: %s", got)
	}
	if got := count(other.Inspect(t.Context(), engines)); got != "map[ok:11]" {
		t.Errorf("after: %s", got)
	}
}

func TestDeclareRefusesWhatIsNotOurs(t *testing.T) {
	s := startServer(t)
	js, _ := jetstream.New(agent(t, s.URL()))
	for name, test := range map[string]struct {
		foreign jetstream.StreamConfig
		prefix  string
		change  func(*Config)
		want    string
	}{
		"the same name, other subjects": {jetstream.StreamConfig{Name: "A_EXEC", Subjects: []string{"mine.>"}}, "a", nil, "it is not ours: it has the subjects mine.>"},
		"our subjects, another name":    {jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"b.exec.>"}}, "b", nil, "another stream of this account has our subjects"},
		"replicas on one server":        {jetstream.StreamConfig{Name: "X1", Subjects: []string{"x1"}}, "c", func(c *Config) { c.Replicas = 3 }, "nats.replicas to 1"},
		"more than the server has":      {jetstream.StreamConfig{Name: "X2", Subjects: []string{"x2"}}, "d", func(c *Config) { c.Streams.ReplyBytes = 1 << 60 }, "nats.streams"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := js.CreateStream(t.Context(), test.foreign); err != nil {
				t.Fatal(err)
			}
			c := testConfig(s.URL())
			c.SubjectPrefix = test.prefix
			if test.change != nil {
				test.change(&c)
			}
			b, err := Connect(t.Context(), c, "x", zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			err = b.Declare(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			stream, _ := js.Stream(t.Context(), test.foreign.Name)
			if is := stream.CachedInfo().Config.Subjects; strings.Join(is, " ") != strings.Join(test.foreign.Subjects, " ") {
				t.Errorf("the foreign stream was changed: %v", is)
			}
		})
	}
}

func TestTwoFleetsInOneAccount(t *testing.T) {
	s := startServer(t)
	a := connect(t, s.URL())
	b := connect(t, s.URL(), func(c *Config) { c.SubjectPrefix = "second" })
	nc := agent(t, s.URL())
	publish(t, nc, "second.exec.local", "{}")
	for _, one := range []struct {
		bus  *Bus
		want uint64
	}{{a, 0}, {b, 1}} {
		info, err := one.bus.streams.exec.Info(t.Context())
		if err != nil || info.State.Msgs != one.want {
			t.Errorf("%s has %d requests, want %d (%v)", info.Config.Name, info.State.Msgs, one.want, err)
		}
	}
}

// A server that goes away while an instance starts is waited for, as one that is not there yet.
func TestDeclareWaitsForAServerThatGoesAway(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	told := make(chan struct{})
	log := zerolog.New(io.Discard).Hook(zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, message string) {
		if strings.HasPrefix(message, "NATS cannot do now what the start needs") {
			close(told)
		}
	}))
	b, err := Connect(t.Context(), testConfig(p.url()), "early", log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	p.cut(true)
	eventually(t, "it has lost its server", func() bool { return !b.Connected() })
	declared := make(chan error)
	go func() { declared <- b.Declare(t.Context(), []string{contracts.EngineLocal}) }()
	select {
	case <-told:
	case err := <-declared:
		t.Fatalf("it did not wait: %v", err)
	}
	p.cut(false)
	if err := <-declared; err != nil {
		t.Error(err)
	}
}
