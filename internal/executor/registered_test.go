package executor

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// value is what the bucket has of a contract.
func value(name, version string) string {
	c := `{"name":"` + name + `","engine":"local","engine_spec":{"command":["x"]}`
	if version != "" {
		c += `,"version":"` + version + `"`
	}
	return c + "}"
}

// entries are those of a bucket: pairs of key and value, several of one key the oldest first.
func entries(pairs ...string) map[string][][]byte {
	all := map[string][][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = append(all[pairs[i]], []byte(pairs[i+1]))
	}
	return all
}

func TestRegisteredContracts(t *testing.T) {
	r, log := NewRegistry(), &logs{}
	set := func(want string, pairs ...string) {
		t.Helper()
		r.SetRegistered(entries(pairs...), zerolog.New(log))
		if got := tools(r); got != want {
			t.Errorf("%q, want %q; refused %+v", got, want, r.Refused())
		}
	}
	set("a/1 a/_ b/2", "a/1", value("a", "1"), "a/_", value("a", ""), "b/2", value("b", "2"))
	if c, err := r.Find("a", ""); err != nil || c.Version != "1" {
		t.Errorf("%v, %v", c, err)
	}
	before, _ := r.Find("a", "1")
	set("a/10 a/9 a/1", "a/1", value("a", "1"), "a/9", value("a", "9"), "a/10", value("a", "10"))
	if c, _ := r.Find("a", "1"); c != before {
		t.Error("the same value became another contract")
	}
	// A wrong one: the one before stays, is named once, and can be mended.
	set("a/10 a/9 a/1", "a/1", value("a", "1"), "a/9", value("a", "9"), "a/10", `{"name":"a"}`)
	set("a/10 a/9 a/1", "a/1", value("a", "1"), "a/9", value("a", "9"), "a/10", `{"name":"a"}`)
	if refused := r.Refused(); len(refused) != 1 || refused[0].Name != "a" || refused[0].Version != "10" || refused[0].Where != "a/10" || refused[0].Source != contracts.SourceBucket {
		t.Errorf("%+v", refused)
	}
	if n := strings.Count(log.text(), "a contract is not taken"); n != 1 || !strings.Contains(log.text(), `"where":"a/10"`) {
		t.Errorf("%d times:\n%s", n, log.text())
	}
	set("a/10", "a/10", `{"name":"a"}`, "a/10", "[]", "a/10", "x", "a/10", "y", "a/10", "z") // more wrong ones than are remembered
	set("a/10", "a/10", value("a", "10"))
	if len(r.Refused()) != 0 {
		t.Errorf("%+v", r.Refused())
	}
	// No key, a key of another contract, and one that is gone.
	set("", "a", value("a", ""), "a/b/c", value("a", "1"), "b/1", value("a", "1"))
	if len(r.Refused()) != 3 {
		t.Errorf("%+v", r.Refused())
	}
	set("")
	if len(r.Refused()) != 0 || len(r.Sources()) != 0 {
		t.Errorf("%+v %v", r.Refused(), r.Sources())
	}
}

// An instance that starts after a wrong one was written finds what the others have kept.
func TestRegisteredContractOfAnInstanceThatStarts(t *testing.T) {
	r := NewRegistry()
	r.SetRegistered(entries("a/1", value("a", "1"), "a/1", "wrong", "a/1", `{}`), zerolog.Nop())
	if got := tools(r); got != "a/1" || len(r.Refused()) != 1 {
		t.Errorf("%s, %+v", got, r.Refused())
	}
}

// A name of a directory is the directory's: the bucket has no say in it, neither by the same nor by a newer version.
func TestDirectoryCannotBeShadowed(t *testing.T) {
	dir := writeTree(t, map[string]string{"a.yaml": contract("a", "1.0.0")})
	r, log, _ := watched(t, dir)
	r.SetRegistered(entries("a/1.0.0", value("a", "1.0.0"), "a/9.0.0", value("a", "9.0.0"), "a/_", value("a", ""), "b/1", value("b", "1")), zerolog.New(log))
	if got := tools(r); got != "a/1.0.0 b/1" {
		t.Fatal(got)
	}
	if c, err := r.Find("a", ""); err != nil || c.File == "" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := r.Find("a", "9.0.0"); err == nil || !strings.Contains(err.Error(), "it has 1.0.0") {
		t.Errorf("%v", err)
	}
	if s := r.Sources(); s["a"] != contracts.SourceDirectory || s["b"] != contracts.SourceBucket || len(s) != 2 {
		t.Errorf("%v", s)
	}
	if refused := r.Refused(); len(refused) != 3 || refused[1].Where != "a/9.0.0" || !strings.Contains(refused[1].Reason, `the name "a" belongs to a directory`) {
		t.Errorf("%+v", refused)
	}
	if n := strings.Count(log.text(), "a contract is not taken"); n != 3 {
		t.Errorf("logged %d times:\n%s", n, log.text())
	}
	// A directory takes the name while it is watched, also by a file that becomes wrong later, and gives it back.
	write(t, contract("b", "0.1"), dir, "b.yaml")
	within(t, soon, r, "a/1.0.0 b/0.1")
	write(t, "[", dir, "b.yaml")
	eventually(t, "the file is refused", func() bool { return len(r.Refused()) == 5 })
	if got := tools(r); got != "a/1.0.0 b/0.1" {
		t.Error(got)
	}
	do(t, removeAll(dir, "a.yaml", "b.yaml")...)
	within(t, soon, r, "a/9.0.0 a/1.0.0 a/_ b/1")
}

// Before a tool is unknown, what is on its way is waited for.
func TestOnMiss(t *testing.T) {
	r := NewRegistry()
	calls := 0
	r.OnMiss(func() {
		calls++
		r.SetRegistered(entries("a/1", value("a", "1")), zerolog.Nop())
	})
	for range 3 {
		if c, err := r.Find("a", ""); err != nil || c.Version != "1" {
			t.Errorf("%v, %v", c, err)
		}
	}
	if calls != 1 {
		t.Errorf("asked %d times", calls)
	}
	if _, err := r.Find("a", "2"); err == nil || calls != 2 {
		t.Errorf("%v, asked %d times", err, calls)
	}
}

// instance is a registry that follows the bucket of a server, as the program has it.
type instance struct {
	*Registry
	bus    *bus.Bus
	shared *bus.Registry
	log    *logs
}

func joinRegistry(t *testing.T, url, name, dir string) *instance {
	t.Helper()
	i := &instance{Registry: NewRegistry(), log: &logs{}}
	if dir != "" {
		do(t, i.Load([]string{dir}))
	}
	c := bus.DefaultConfig()
	c.URLs = []string{url}
	c.Streams.QueueBytes, c.Streams.ReplyBytes, c.Streams.ResultBytes, c.Streams.DeadBytes = 16<<20, 16<<20, 16<<20, 16<<20
	log := zerolog.New(i.log)
	var err error
	i.bus, err = bus.Connect(t.Context(), c, name, log)
	do(t, err)
	t.Cleanup(i.bus.Close)
	do(t, i.bus.Declare(t.Context(), nil))
	i.shared = i.bus.Registry(func(all map[string][][]byte) { i.SetRegistered(all, log) })
	do(t, i.shared.Read(t.Context()))
	i.OnMiss(func() { i.shared.CatchUp(context.Background()) })
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { i.shared.Follow(ctx) })
	done.Go(func() { i.Watch(ctx, log) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return i
}

// Three instances and an operator: everywhere the same within a second, what is wrong nowhere.
func TestRegistryIsTheSameEverywhere(t *testing.T) {
	s, err := bus.StartServer(bus.ServerConfig{Port: -1, Dir: t.TempDir(), Log: zerolog.Nop()})
	do(t, err)
	t.Cleanup(s.Stop)
	dir := writeTree(t, map[string]string{"own.yaml": contract("own", "1")})
	var all []*instance
	for _, name := range []string{"one", "two", "three"} {
		all = append(all, joinRegistry(t, s.URL(), name, dir))
	}
	nc, err := nats.Connect(s.URL())
	do(t, err)
	t.Cleanup(nc.Close)
	registrar, err := bus.OpenRegistrar(t.Context(), nc, "")
	do(t, err)
	push := func(name, version string) {
		t.Helper()
		c, err := contracts.DecodeRegistered(contracts.Key(name, version), []byte(value(name, version)))
		do(t, err)
		_, err = registrar.Put(t.Context(), c, false)
		do(t, err)
	}
	everywhere := func(want string) {
		t.Helper()
		begin := time.Now()
		for _, i := range all {
			within(t, 10*time.Second, i.Registry, want)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: took %s", want, took)
		}
	}
	everywhere("own/1")
	push("a", "1")
	// At once: nobody who asks for it is told that there is none.
	for _, i := range all {
		if _, err := i.Find("a", "1"); err != nil {
			t.Error(err)
		}
	}
	everywhere("a/1 own/1")
	push("a", "2")
	push("b", "")
	push("own", "2")
	everywhere("a/2 a/1 b/_ own/1")
	js, err := jetstream.New(nc)
	do(t, err)
	kv, err := js.KeyValue(t.Context(), "TOOLS_CONTRACTS")
	do(t, err)
	_, err = kv.Put(t.Context(), "a/2", []byte(`{"name":"a","version":"2","engine":"locl"}`))
	do(t, err)
	for _, i := range all {
		eventually(t, "the wrong one is named", func() bool { return strings.Contains(i.log.text(), `"where":"a/2"`) })
	}
	everywhere("a/2 a/1 b/_ own/1")
	// Who comes now has the same.
	all = append(all, joinRegistry(t, s.URL(), "four", dir))
	everywhere("a/2 a/1 b/_ own/1")
	do(t, registrar.Remove(t.Context(), "a/2"))
	do(t, registrar.Remove(t.Context(), "b/_"))
	everywhere("a/1 own/1")
	write(t, contract("own", "2"), dir, "own.yaml")
	everywhere("a/1 own/2")
}
