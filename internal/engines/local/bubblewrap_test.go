//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// withCaches is a job that has named caches.
func withCaches(j *engines.Job, caches ...contracts.CacheMount) *engines.Job {
	j.Spec.Common().CacheMounts = caches
	return j
}

// What bwrap executes is none of the contract's business: not the shell that it put into a cache, and not its libraries.
func TestWhatBubblewrapExecutes(t *testing.T) {
	e := newEngine(t, in(t, TierBubblewrap))
	evil := func(at string) contracts.CacheMount { return contracts.CacheMount{Name: "evil", Path: at} }
	run(t, e, withCaches(shell(`cp -L /bin/sh ~/c/real; printf '#!/usr/bin/real\necho was here >/usr/bin/evidence\necho up\nread _\n' >~/c/sh; chmod +x ~/c/sh`), evil("~/c")))
	for _, at := range []string{"/usr/bin"} {
		var stdout strings.Builder
		if _, err := e.Run(t.Context(), withCaches(job("/usr/bin/real", "-c", "echo ran"), evil(at)), &stdout, nil); err != nil || stdout.String() != "ran\n" {
			t.Errorf("with a cache over %s the tool printed %q, %v", at, stdout.String(), err)
		}
		if got, _ := output(t, e, withCaches(shell("cat ~/c/evidence 2>/dev/null"), evil("~/c"))); got != "" {
			t.Errorf("with a cache over %s the shell of the contract %s", at, got)
		}
	}
	if got := run(t, e, withCaches(tool(t, "out:ran"), contracts.CacheMount{Name: "empty", Path: "/usr"})); got != "ran" {
		t.Errorf("where there is neither a shell nor a library the tool printed %q", got)
	}
}

// Whatever a contract has is mounted as it was looked at, its own directory too: a bwrap that cannot is none.
func TestBubblewrapThatIsTooOld(t *testing.T) {
	config := Config{DataDir: filepath.Join(openDir(t), "data"), Path: DefaultPath}
	in(t, TierBubblewrap)(&config)
	real, err := findBubblewrap(bubblewrapPlaces)
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(openDir(t), "bwrap")
	if err := os.WriteFile(old, []byte("#!/bin/sh\nif [ \"$1\" = --help ]; then "+real+" --help 2>&1 | grep -v bind-fd; else exec "+real+" \"$@\"; fi\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer func(places []string) { bubblewrapPlaces = places }(bubblewrapPlaces)
	bubblewrapPlaces = []string{old}
	e, err := New(config, zerolog.Nop())
	if err == nil {
		e.Close()
	}
	if errorCode(err) != contracts.EngineUnavailable || !strings.Contains(err.Error(), "has no option --bind-fd: it needs bubblewrap 0.10 or later") {
		t.Errorf("New returned %v", err)
	}
}
