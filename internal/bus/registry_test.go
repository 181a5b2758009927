package bus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// told is what an instance was told last.
type told struct {
	mu      sync.Mutex
	entries map[string][][]byte
	times   int
}

func (l *told) hear(entries map[string][][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = entries
	l.times++
}

// last shows keys with their last values, as "a/1=x b/_=y".
func (l *told) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, key := range slices.Sorted(maps.Keys(l.entries)) {
		values := l.entries[key]
		list = append(list, key+"="+string(values[len(values)-1]))
	}
	return strings.Join(list, " ")
}

// of are the values of a key, the oldest first.
func (l *told) of(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%s", l.entries[key])
}

// often is how many times something was told.
func (l *told) often() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times
}

// followRegistry has an instance follow the registry until the test ends.
func followRegistry(t *testing.T, b *Bus) (*Registry, *told) {
	t.Helper()
	l := &told{}
	r := b.Registry(l.hear)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Follow(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return r, l
}

func bucket(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var kv jetstream.KeyValue
	eventually(t, "the bucket is there", func() bool {
		kv, err = js.KeyValue(t.Context(), "TOOLS_CONTRACTS")
		return err == nil
	})
	return kv
}

func put(t *testing.T, kv jetstream.KeyValue, key, value string) {
	t.Helper()
	if _, err := kv.Put(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func isTold(t *testing.T, want string, all ...*told) {
	t.Helper()
	for i, l := range all {
		eventually(t, fmt.Sprintf("%d was told %q", i, want), func() bool { return l.last() == want })
	}
}

func TestRegistryIsTheSameEverywhereSoon(t *testing.T) {
	s := startServer(t)
	_, a := followRegistry(t, connect(t, s.URL()))
	_, b := followRegistry(t, connect(t, s.URL()))
	_, c := followRegistry(t, connect(t, s.URL()))
	isTold(t, "", a, b, c)
	kv := bucket(t, agent(t, s.URL()))
	begin := time.Now()
	put(t, kv, "hello/1.0.0", "one")
	isTold(t, "hello/1.0.0=one", a, b, c)
	put(t, kv, "hello/1.0.0", "two")
	put(t, kv, "hello/_", "none")
	isTold(t, "hello/1.0.0=two hello/_=none", a, b, c)
	if err := kv.Delete(t.Context(), "hello/_"); err != nil {
		t.Fatal(err)
	}
	isTold(t, "hello/1.0.0=two", a, b, c)
	// It takes milliseconds; were changes only seen by looking, three of them would take at least twice as long as this.
	if took := time.Since(begin); took > registryLook {
		t.Errorf("three changes took %s", took)
	}
	// Who comes later is told the same, and what was there before.
	late := &told{}
	if err := connect(t, s.URL()).Registry(late.hear).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if late.last() != "hello/1.0.0=two" || late.of("hello/1.0.0") != "[one two]" {
		t.Errorf("%s, of it %s", late.last(), late.of("hello/1.0.0"))
	}
}

// What is remembered of a key is bounded as in the bucket, and begins anew after a delete.
func TestRegistryRemembers(t *testing.T) {
	s := startServer(t)
	_, l := followRegistry(t, connect(t, s.URL()))
	kv := bucket(t, agent(t, s.URL()))
	for i := range 9 {
		put(t, kv, "a/1", itoa(i))
	}
	isTold(t, "a/1=8", l)
	late := &told{}
	if err := connect(t, s.URL()).Registry(late.hear).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*told{l, late} {
		if got := one.of("a/1"); got != "[4 5 6 7 8]" {
			t.Errorf("%s", got)
		}
	}
	if err := kv.Delete(t.Context(), "a/1"); err != nil {
		t.Fatal(err)
	}
	put(t, kv, "a/1", "new")
	isTold(t, "a/1=new", l)
	if got := l.of("a/1"); got != "[new]" {
		t.Errorf("%s", got)
	}
}

func TestRegistryAfterARestartOfTheServer(t *testing.T) {
	s := startRestartable(t)
	r, l := followRegistry(t, connect(t, s.URL()))
	kv := bucket(t, agent(t, s.URL()))
	put(t, kv, "a/1", "before")
	isTold(t, "a/1=before", l)
	s.Stop()
	r.CatchUp(t.Context()) // returns though nobody answers
	if l.last() != "a/1=before" {
		t.Errorf("while the server is away: %q", l.last())
	}
	s.start()
	eventually(t, "the operator is connected again", func() bool {
		_, err := kv.Put(t.Context(), "b/1", []byte("after"))
		return err == nil
	})
	isTold(t, "a/1=before b/1=after", l)
	put(t, kv, "b/1", "later")
	isTold(t, "a/1=before b/1=later", l)
}

// A connection that breaks for a moment: what was stored meanwhile is told.
func TestRegistryAfterALostConnection(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	_, l := followRegistry(t, connect(t, p.url()))
	kv := bucket(t, agent(t, s.URL()))
	put(t, kv, "a/1", "before")
	isTold(t, "a/1=before", l)
	p.cut(true)
	put(t, kv, "a/1", "meanwhile")
	p.cut(false)
	isTold(t, "a/1=meanwhile", l)
}

// The bucket is removed, and made again by an operator with other contents, in which the first sequences come again.
func TestRegistryThatIsMadeAgain(t *testing.T) {
	t.Parallel() // it waits for looks
	s := startServer(t)
	_, l := followRegistry(t, connect(t, s.URL()))
	nc := agent(t, s.URL())
	kv := bucket(t, nc)
	for i := range 20 {
		put(t, kv, "a/1", itoa(i))
	}
	isTold(t, "a/1=19", l)
	js, _ := jetstream.New(nc)
	if err := js.DeleteKeyValue(t.Context(), "TOOLS_CONTRACTS"); err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "TOOLS_CONTRACTS"})
	if err != nil {
		t.Fatal(err)
	}
	put(t, kv, "b/1", "new")
	isTold(t, "b/1=new", l)
	put(t, kv, "b/1", "newer")
	isTold(t, "b/1=newer", l)

	// Removed for good: an executor makes it, and it is empty.
	if err := js.DeleteKeyValue(t.Context(), "TOOLS_CONTRACTS"); err != nil {
		t.Fatal(err)
	}
	isTold(t, "", l)
	put(t, bucket(t, nc), "c/1", "again")
	isTold(t, "c/1=again", l)

	// Emptied by other means than writing to it.
	stream, err := js.Stream(t.Context(), "KV_TOOLS_CONTRACTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	isTold(t, "", l)
}

// After CatchUp all is told that was stored before it.
func TestRegistryCatchesUp(t *testing.T) {
	before := registryCatchUp
	registryCatchUp = 10 * time.Second // who gave up would not have all of it
	t.Cleanup(func() { registryCatchUp = before })
	s := startServer(t)
	r, l := followRegistry(t, connect(t, s.URL()))
	kv := bucket(t, agent(t, s.URL()))
	for i := range 50 {
		put(t, kv, "a/"+itoa(i), "x")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { r.CatchUp(t.Context()) })
		}
		all.Wait()
		if !strings.Contains(l.last(), "a/"+itoa(i)+"=x") {
			t.Fatalf("%d is not there: %s", i, l.last())
		}
	}
	// There is nothing to wait for.
	begin := time.Now()
	r.CatchUp(t.Context())
	if took := time.Since(begin); took > registryCatchUp/2 {
		t.Errorf("took %s", took)
	}
}

func contract(t *testing.T, text string) *contracts.Contract {
	t.Helper()
	list, err := contracts.ParseContracts("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func TestRegistrar(t *testing.T) {
	s := startServer(t)
	nc := agent(t, s.URL())
	if _, err := OpenRegistrar(t.Context(), nc, ""); err == nil || !strings.Contains(err.Error(), "executor provision") {
		t.Errorf("before there is a bucket: %v", err)
	}
	connect(t, s.URL())
	r, err := OpenRegistrar(t.Context(), nc, "")
	if err != nil {
		t.Fatal(err)
	}
	kv := bucket(t, nc)
	one := contract(t, `{name: hello, version: 1.0.0, engine: local, engine_spec: {command: [echo, "<1>"]}}`)
	two := contract(t, `{name: hello, version: 1.0.0, engine: local, engine_spec: {command: [echo, "2"]}}`)
	none := contract(t, `{name: hello, engine: local, engine_spec: {command: [echo]}}`)
	for i, step := range []struct {
		contract *contracts.Contract
		dry      bool
		want     string
	}{
		{one, true, PutNew}, {one, false, PutNew}, {one, false, PutSame}, {two, true, PutReplaced}, {one, true, PutSame}, {two, false, PutReplaced}, {two, false, PutSame}, {none, false, PutNew},
	} {
		if did, err := r.Put(t.Context(), step.contract, step.dry); did != step.want || err != nil {
			t.Errorf("step %d: %s, %v, want %s", i, did, err, step.want)
		}
	}
	if entry, err := kv.Get(t.Context(), "hello/1.0.0"); err != nil || entry.Revision() != 2 {
		t.Errorf("%v, %v: the same is no write", entry, err)
	}
	// The same in other words.
	put(t, kv, "hello/_", `{ "engine_spec": {"command": ["echo"]}, "engine": "local", "name": "hello"}`)
	if did, err := r.Put(t.Context(), none, false); did != PutSame || err != nil {
		t.Errorf("%s, %v", did, err)
	}
	put(t, kv, "hello/2", "wrong")
	keys, err := r.Keys(t.Context())
	if want := []string{"hello/1.0.0", "hello/2", "hello/_"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("%q, %v", keys, err)
	}
	if err := r.Remove(t.Context(), "hello/1.0.0"); err != nil {
		t.Fatal(err)
	}
	if did, err := r.Put(t.Context(), one, false); did != PutNew || err != nil {
		t.Errorf("after it was removed: %s, %v", did, err)
	}
	for _, key := range []string{"hello/1.0.0", "hello/2", "hello/_"} {
		if err := r.Remove(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := r.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("%q, %v", keys, err)
	}
}

// Two operators at the same time: each write is a whole one, and told as what it was.
func TestRegistrarsTogether(t *testing.T) {
	s := startServer(t)
	connect(t, s.URL())
	var all sync.WaitGroup
	var mu sync.Mutex
	did := map[string]int{}
	for i := range 4 {
		r, err := OpenRegistrar(t.Context(), agent(t, s.URL()), "")
		if err != nil {
			t.Fatal(err)
		}
		c := contract(t, fmt.Sprintf(`{name: hello, engine: local, engine_spec: {command: [echo, "%d"]}}`, i))
		all.Go(func() {
			what, err := r.Put(t.Context(), c, false)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			did[what]++
		})
	}
	all.Wait()
	if did[PutNew] != 1 || did[PutReplaced] != 3 {
		t.Errorf("%v", did)
	}
}

// Who may not write is told so at once, and what he needs.
func TestRegistrarDenied(t *testing.T) {
	url := startLimited(t, user("reader", []string{"$KV.TOOLS_CONTRACTS.>"}, nil), user("blind", []string{"$JS.API.STREAM.INFO.KV_TOOLS_CONTRACTS"}, nil),
		&server.User{Username: "agent", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"tools.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}}})
	admin := connectAs(t, url, "admin")
	if err := admin.Declare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c := contract(t, `{name: hello, engine: local, engine_spec: {command: [echo]}}`)
	for name, opens := range map[string]bool{"reader": true, "blind": false, "agent": false} {
		nc, err := nats.Connect(url, nats.UserInfo(name, "p"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		begin := time.Now()
		r, err := OpenRegistrar(t.Context(), nc, "")
		if opens && err != nil {
			t.Fatal(name, err)
		}
		if opens {
			_, err = r.Put(t.Context(), c, false)
		}
		if err == nil || !strings.Contains(err.Error(), "this user may not do that") || !strings.Contains(err.Error(), "publish to $KV.TOOLS_CONTRACTS.>") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took >= requestTimeout { // not what it would take to wait for an answer in vain
			t.Errorf("%s: took %s", name, took)
		}
		if opens {
			if err := r.Remove(t.Context(), "hello/_"); err == nil || !strings.Contains(err.Error(), "--creds or --context") {
				t.Errorf("%s removes: %v", name, err)
			}
			if keys, err := r.Keys(t.Context()); err != nil || len(keys) != 0 { // may read
				t.Errorf("%s: %q, %v", name, keys, err)
			}
		}
	}
}

// Where an executor may not read the registry it says so, once, and goes on.
func TestRegistryDenied(t *testing.T) {
	t.Parallel() // it waits for answers that do not come
	url := startLimited(t, user("blind", []string{"$JS.API.STREAM.INFO.KV_TOOLS_CONTRACTS"}, nil))
	if err := connectAs(t, url, "admin").Declare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var log logged
	c := testConfig(url)
	c.User, c.Password = "blind", "p"
	b, err := Connect(t.Context(), c, "blind", zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	_, l := followRegistry(t, b)
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "cannot read the registry of contracts") })
	if l.often() != 0 {
		t.Error("something was told")
	}
}
