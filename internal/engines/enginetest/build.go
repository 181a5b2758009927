package enginetest

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
}

// Build builds the testtool, once for all tests of the process, and returns its path. It is a static program for the
// system that the tests run on. The TestMain of a package that uses it calls Clean at the end.
//
// EXECUTOR_TEST_TOOL names one that is there already, for test binaries that are run where nothing can be built.
func Build(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.file = os.Getenv("EXECUTOR_TEST_TOOL"); built.file != "" {
			_, built.err = os.Stat(built.file)
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "testtool"); built.err != nil {
			return
		}
		// Everybody may run it: some tests do as another user.
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		built.file = filepath.Join(built.dir, "testtool")
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built.file, "github.com/praxis-sdk/executor/internal/engines/enginetest/testtool")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := c.CombinedOutput(); err != nil {
			built.err = &buildError{err, text}
		}
	})
	if built.err != nil {
		tb.Fatalf("build the testtool: %s", built.err)
	}
	return built.file
}

type buildError struct {
	err  error
	text []byte
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + string(e.text) }

// Clean removes what Build made.
func Clean() {
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
}
