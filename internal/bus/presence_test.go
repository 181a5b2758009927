package bus

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func announce(t *testing.T, b *Bus) (stop func()) {
	t.Helper()
	p := b.Presence(func() contracts.Presence {
		return contracts.Presence{Name: b.name, Slots: 3, Engines: map[string]contracts.EnginePresence{"local": {Ready: true}}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { p.Announce(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func names(t *testing.T, p *Presence) map[string]bool {
	t.Helper()
	fleet, err := p.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is := map[string]bool{}
	for _, one := range fleet {
		is[one.Name] = true
	}
	return is
}

func TestPresence(t *testing.T) {
	s := startServer(t)
	a, b, c := connect(t, s.URL()), connect(t, s.URL()), connect(t, s.URL())
	stopA := announce(t, a)
	announce(t, b)
	watcher := c.Presence(nil)
	eventually(t, "both are there", func() bool { n := names(t, watcher); return n[a.name] && n[b.name] })
	stopA()
	eventually(t, "who leaves is gone at once", func() bool { n := names(t, watcher); return !n[a.name] && n[b.name] })
	b.nc.Close() // as after kill -9
	begin := time.Now()
	eventually(t, "who dies is gone in time", func() bool { return !names(t, watcher)[b.name] })
	if took := time.Since(begin); took > presenceTTL+5*time.Second {
		t.Errorf("took %s", took)
	}
}

// Who has told the fleet of itself knows itself at once: the first tools.discover after the start names it.
func TestPresenceKnowsItself(t *testing.T) {
	b := connect(t, startServer(t).URL())
	p := b.Presence(func() contracts.Presence { return contracts.Presence{Name: b.name} })
	if n := names(t, p); len(n) != 0 {
		t.Fatalf("before it told: %v", n)
	}
	if err := p.put(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := names(t, p); !n[b.name] {
		t.Errorf("just after it told: %v", n)
	}
}

// The bucket is in memory: a restart of the server forgets it, and whoever is there makes it again.
func TestPresenceAfterARestartOfTheServer(t *testing.T) {
	dir := t.TempDir()
	s, err := StartServer(ServerConfig{Port: -1, Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b := connect(t, s.URL())
	announce(t, b)
	watcher := b.Presence(nil)
	eventually(t, "it is there", func() bool { return names(t, watcher)[b.name] })
	port := s.Port()
	s.Stop()
	if s, err = StartServer(ServerConfig{Port: port, Dir: dir, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	eventually(t, "it is there again", func() bool {
		fleet, err := watcher.Fleet(t.Context())
		return err == nil && len(fleet) == 1 && fleet[0].Started.IsZero()
	})
}

// A crowd of instances refreshes less often, so that presence does not become the load.
func TestPresenceInACrowd(t *testing.T) {
	b := connect(t, startServer(t).URL())
	p := b.Presence(nil)
	if p.stretch(presenceEvery) != presenceEvery {
		t.Error("a lonely instance takes its time")
	}
	p.many = true
	if p.stretch(presenceEvery) != 10*presenceEvery || p.stretch(presenceTTL) != 10*presenceTTL {
		t.Error("a crowded one does not")
	}
}

// What is known is at most a second old, and not asked for each time.
func TestPresenceIsCached(t *testing.T) {
	b := connect(t, startServer(t).URL())
	p := b.Presence(nil)
	names(t, p)
	p.last.fleet = []contracts.Presence{{Name: "cached"}}
	if !names(t, p)["cached"] {
		t.Error("asked again at once")
	}
	p.last.read = time.Now().Add(-presenceCache)
	if names(t, p)["cached"] {
		t.Error("not asked again")
	}
}

// Who asks while the presence ends, or after it, leaves no read behind that nobody waits for.
func TestPresenceEnds(t *testing.T) {
	b := connect(t, startServer(t).URL())
	p := b.Presence(func() contracts.Presence { return contracts.Presence{Name: b.name} })
	ask := func() error {
		p.mu.Lock()
		p.last = nil // as if what was read were too old
		p.mu.Unlock()
		_, err := p.Fleet(t.Context())
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 5 {
				if ask() != nil {
					return
				}
			}
			cancel()
			for ask() == nil {
			}
		})
	}
	p.Announce(ctx)
	asking.Wait()
	if err := ask(); err == nil {
		t.Error("a read after the end")
	}
}
