//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

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
