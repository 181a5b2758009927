//go:build linux

package dagger

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestMain(m *testing.M) {
	daggertest.CLIMain()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		enginetest.Clean()
		os.Exit(code)
	}))
}
