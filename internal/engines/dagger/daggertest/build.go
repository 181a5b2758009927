package daggertest

import (
	"testing"

	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// Program builds the program that stands beside tools, as enginetest.Program does, and returns its path.
func Program(tb testing.TB) string {
	tb.Helper()
	return enginetest.Program(tb, "github.com/praxis-sdk/executor/internal/engines/dagger/daggertest/beside")
}
