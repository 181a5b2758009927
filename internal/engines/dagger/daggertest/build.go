package daggertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var built struct {
	once sync.Once
	dir  string
	file string
	err  error
	text []byte
}

// Program builds the program that stands beside tools, once for all tests of the process, and returns its path. The TestMain of
// a package that uses it calls Clean at the end.
func Program(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "beside"); built.err != nil {
			return
		}
		built.file = filepath.Join(built.dir, "beside")
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built.file, "github.com/praxis-sdk/executor/internal/engines/dagger/daggertest/beside")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		built.text, built.err = c.CombinedOutput()
	})
	if built.err != nil {
		tb.Fatalf("build the program that stands beside tools: %s\n%s", built.err, built.text)
	}
	return built.file
}

// Clean removes what Program made.
func Clean() {
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
}
