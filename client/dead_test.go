package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// bury stores a letter as executors do, and returns its number.
func bury(t *testing.T, f *fleet, engine, id string, code contracts.Code, request string) uint64 {
	t.Helper()
	now := time.Now().UTC()
	about, err := contracts.DeadLetter{ID: id, Tool: "play", Engine: engine, Seq: 7, Stored: now, Executor: "fleet", Time: now, Error: contracts.Errorf(code, "no")}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return letter(t, f, "tools.dead."+engine, request, contracts.HeaderDead, string(about), contracts.HeaderType, contracts.TypeDead, "X-Mine", "1")
}

// letter publishes to the stream of dead letters.
func letter(t *testing.T, f *fleet, subject, data string, headers ...string) uint64 {
	t.Helper()
	js, err := f.nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	msg := nats.NewMsg(subject)
	msg.Data = []byte(data)
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	ack, err := js.PublishMsg(msg)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// numbers are those of letters, as "1 2 3".
func numbers(list []client.DeadLetter) string {
	var all []string
	for _, l := range list {
		all = append(all, fmt.Sprint(l.Letter))
	}
	return strings.Join(all, " ")
}

func TestDeadLettersAreChosen(t *testing.T) {
	f := newFleet(t, 1)
	list := func(want string, filter client.DeadFilter) []client.DeadLetter {
		t.Helper()
		letters, err := f.client.DeadLetters(t.Context(), filter)
		if err != nil || letters == nil || numbers(letters) != want {
			t.Errorf("%+v: %s, %v\nwant %s", filter, numbers(letters), err, want)
		}
		return letters
	}
	list("", client.DeadFilter{})
	// As executors really make them.
	if _, err := f.nc.Request("tools.exec.local", []byte(`{"id":"wrong","tool":"play","agrs":{}}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if letters, err := f.client.DeadLetters(t.Context(), client.DeadFilter{}); err == nil && len(letters) == 1 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%v, %v", letters, err)
		}
	}
	one := list("1", client.DeadFilter{})[0]
	if one.ID != "wrong" || one.Tool != "play" || one.Engine != "local" || one.Priority != "normal" || one.Error.Code != contracts.InvalidRequest ||
		one.Kept.IsZero() || one.Data != nil || one.Header != nil || one.Executor != "fleet" || one.Seq != 1 {
		t.Errorf("%+v", one)
	}

	bury(t, f, "docker", "b", contracts.UnknownTool, "{}")
	middle := time.Now()
	bury(t, f, "local", "c", contracts.UnknownTool, "{}")
	letter(t, f, "tools.dead.local", "a stranger's")
	list("1 2 3 4", client.DeadFilter{})
	list("1 3 4", client.DeadFilter{Engine: "local"})
	list("2", client.DeadFilter{Engine: "docker"})
	list("", client.DeadFilter{Engine: "dagger"})
	list("2 3", client.DeadFilter{Code: contracts.UnknownTool})
	list("3", client.DeadFilter{Code: contracts.UnknownTool, Engine: "local"})
	list("3 4", client.DeadFilter{Since: middle})
	list("1 2", client.DeadFilter{Before: middle})
	list("", client.DeadFilter{Since: time.Now().Add(time.Hour)})
	list("3 4", client.DeadFilter{Newest: 2})
	list("1", client.DeadFilter{Newest: 1, Code: contracts.InvalidRequest})
	list("1 2 3 4", client.DeadFilter{Newest: 9})
	if l := list("4", client.DeadFilter{Newest: 1})[0]; l.Error.Code != contracts.Internal || !strings.Contains(l.Error.Message, "no dead letter of an executor") || l.Engine != "local" {
		t.Errorf("%+v", l)
	}
}

// More letters than one question gives, with gaps, the wanted ones far back.
func TestManyDeadLetters(t *testing.T) {
	f := newFleet(t, 1)
	const many = 300
	for i := range many {
		engine := "local"
		if i < 3 {
			engine = "docker"
		}
		bury(t, f, engine, fmt.Sprint("run-", i), contracts.UnknownTool, strings.Repeat("x", 1000))
	}
	for _, gone := range []uint64{1, 2, many, 150} {
		if err := f.client.RemoveDeadLetter(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	all, err := f.client.DeadLetters(t.Context(), client.DeadFilter{})
	if err != nil || len(all) != many-4 || all[0].Letter != 3 || all[len(all)-1].Letter != many-1 {
		t.Fatalf("%d letters, %v", len(all), err)
	}
	for i := range all[1:] {
		if all[i].Letter >= all[i+1].Letter {
			t.Fatalf("%d is before %d", all[i].Letter, all[i+1].Letter)
		}
	}
	if found, err := f.client.DeadLetters(t.Context(), client.DeadFilter{Engine: "docker", Newest: 5}); err != nil || numbers(found) != "3" {
		t.Errorf("%s, %v", numbers(found), err)
	}
	if found, err := f.client.DeadLetters(t.Context(), client.DeadFilter{Newest: 100}); err != nil || len(found) != 100 || found[99].Letter != many-1 {
		t.Errorf("%s, %v", numbers(found), err)
	}
}

func TestOneDeadLetter(t *testing.T) {
	f := newFleet(t, 1)
	n := bury(t, f, "docker", "run", contracts.UnknownTool, `{"tool":"play"}`)
	l, err := f.client.DeadLetter(t.Context(), n)
	if err != nil || string(l.Data) != `{"tool":"play"}` || len(l.Header) != 1 || l.Header["X-Mine"][0] != "1" || l.ID != "run" || l.Engine != "docker" || l.Letter != n {
		t.Errorf("%+v, %v", l, err)
	}
	for _, number := range []uint64{0, n + 1, 1 << 63} {
		if l, err := f.client.DeadLetter(t.Context(), number); !errors.Is(err, client.ErrNoDeadLetter) {
			t.Errorf("%d: %+v, %v", number, l, err)
		}
		if err := f.client.RemoveDeadLetter(t.Context(), number); !errors.Is(err, client.ErrNoDeadLetter) {
			t.Errorf("remove %d: %v", number, err)
		}
	}
	if err := f.client.RemoveDeadLetter(t.Context(), n); err != nil {
		t.Error(err)
	}
	if _, err := f.client.DeadLetter(t.Context(), n); !errors.Is(err, client.ErrNoDeadLetter) {
		t.Errorf("%v", err)
	}
	if err := f.client.RemoveDeadLetter(t.Context(), n); !errors.Is(err, client.ErrNoDeadLetter) {
		t.Errorf("%v", err)
	}
}

// Those that came after the question was asked stay.
func TestRemoveDeadLetters(t *testing.T) {
	f := newFleet(t, 1)
	for i := range 6 {
		bury(t, f, []string{"local", "docker"}[i%2], "run", contracts.UnknownTool, "{}")
	}
	for _, step := range []struct {
		engine  string
		through uint64
		left    string
	}{{"docker", 1, "1 2 3 4 5 6"}, {"docker", 4, "1 3 5 6"}, {"", 3, "5 6"}, {"local", 99, "6"}, {"", 6, ""}, {"", 6, ""}} {
		if err := f.client.RemoveDeadLetters(t.Context(), step.engine, step.through); err != nil {
			t.Fatal(err)
		}
		left, err := f.client.DeadLetters(t.Context(), client.DeadFilter{})
		if err != nil || numbers(left) != step.left {
			t.Errorf("%+v: %s, %v", step, numbers(left), err)
		}
	}
}

// Without the stream, and without the server, the error says which.
func TestDeadLettersThatCannotBeReached(t *testing.T) {
	f := newFleet(t, 1)
	others, err := client.New(f.nc, client.Prefix("others"))
	if err != nil {
		t.Fatal(err)
	}
	calls := func(ctx context.Context, c *client.Client) []error {
		_, one := c.DeadLetters(ctx, client.DeadFilter{})
		_, two := c.DeadLetter(ctx, 1)
		return []error{one, two, c.RemoveDeadLetter(ctx, 1), c.RemoveDeadLetters(ctx, "", 1)}
	}
	for _, err := range calls(t.Context(), others) {
		if err == nil || !strings.Contains(err.Error(), "there is no stream OTHERS_DEAD") {
			t.Errorf("%v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range calls(ended, f.client) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	f.nc.Close()
	for _, err := range calls(t.Context(), f.client) {
		if !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("%v", err)
		}
	}
}

// The rights that docs/troubleshooting.md names are enough, and without them the error says what may be missing.
func TestDeadLettersNeedTheRightsOfAnOperator(t *testing.T) {
	rights := []string{"$JS.API.STREAM.INFO.TOOLS_DEAD", "$JS.API.STREAM.MSG.DELETE.TOOLS_DEAD", "$JS.API.STREAM.PURGE.TOOLS_DEAD", "$JS.API.DIRECT.GET.TOOLS_DEAD",
		"$JS.API.CONSUMER.CREATE.TOOLS_DEAD.>", "$JS.API.CONSUMER.MSG.NEXT.TOOLS_DEAD.>", "$JS.API.CONSUMER.DELETE.TOOLS_DEAD.>"}
	user := func(name string, publish ...string) *server.User {
		return &server.User{Username: name, Password: name, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{user("all", ">"), user("operator", rights...), user("agent", "tools.stream.>")}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	as := func(name string) *fleet {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(name, name), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		c, err := client.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return &fleet{nc: nc, client: c}
	}
	all := as("all")
	js, err := all.nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "TOOLS_DEAD", Subjects: []string{"tools.dead.*"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		bury(t, all, "local", "run", contracts.UnknownTool, "{}")
	}
	c := as("operator").client
	if letters, err := c.DeadLetters(t.Context(), client.DeadFilter{}); err != nil || len(letters) != 3 {
		t.Errorf("%s, %v", numbers(letters), err)
	}
	if l, err := c.DeadLetter(t.Context(), 2); err != nil || string(l.Data) != "{}" {
		t.Errorf("%+v, %v", l, err)
	}
	if err := c.RemoveDeadLetter(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if err := c.RemoveDeadLetters(t.Context(), "local", 3); err != nil {
		t.Error(err)
	}
	if letters, err := c.DeadLetters(t.Context(), client.DeadFilter{}); err != nil || len(letters) != 0 {
		t.Errorf("%s, %v", numbers(letters), err)
	}
	if _, err := as("agent").client.DeadLetters(t.Context(), client.DeadFilter{}); err == nil || !strings.Contains(err.Error(), "does this user have the right to read the streams?") {
		t.Errorf("%v", err)
	}
}

// OnEngine says in which queue a request goes, and a name that is none goes nowhere.
func TestSubmitOnEngine(t *testing.T) {
	f := newFleet(t, 1)
	accepted, err := f.client.Submit(t.Context(), play("one", "out:a"), client.OnEngine("local"))
	if err != nil || accepted.Stream != "TOOLS_EXEC" {
		t.Errorf("%+v, %v", accepted, err)
	}
	var refusal *client.Error
	if _, err := f.client.Submit(t.Context(), play("two", "out:a"), client.OnEngine("dokcer")); !errors.As(err, &refusal) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"a.b", ">", "*", "a b", "\x00"} {
		if _, err := f.client.Start(t.Context(), play("three", "out:a"), client.OnEngine(name)); err == nil || !strings.Contains(err.Error(), "is not the name of an engine") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
