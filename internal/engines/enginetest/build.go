package enginetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// built are the programs that were built for the tests of this process, by their packages.
var built struct {
	mu    sync.Mutex
	dir   string
	files map[string]string
}

const testtool = "github.com/praxis-sdk/executor/internal/engines/enginetest/testtool"

// Build builds the testtool, as Program does.
//
// EXECUTOR_TEST_TOOL names one that is there already, for test binaries that are run where nothing can be built.
func Build(tb testing.TB) string {
	tb.Helper()
	if file := os.Getenv("EXECUTOR_TEST_TOOL"); file != "" {
		return file
	}
	return Program(tb, testtool)
}

// Program builds a program, once for all tests of the process, and returns its path. It is a static program for the system that
// the tests run on. The TestMain of a package that uses it calls Clean at the end.
func Program(tb testing.TB, of string) string {
	tb.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if file := built.files[of]; file != "" {
		return file
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "programs")
		if err == nil {
			err = os.Chmod(dir, 0o755) // everybody may run them: some tests do as another user
		}
		if err != nil {
			tb.Fatal(err)
		}
		built.dir, built.files = dir, map[string]string{}
	}
	dir := filepath.Join(built.dir, filepath.Base(of)) // of its own: who shows one to a tool shows no other
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(dir, filepath.Base(of))
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, of)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %s\n%s", of, err, text)
	}
	built.files[of] = file
	return file
}

// Clean removes what Build and Program made.
func Clean() {
	built.mu.Lock()
	defer built.mu.Unlock()
	os.RemoveAll(built.dir)
	built.dir, built.files = "", nil
}
