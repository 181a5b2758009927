//go:build linux

package local

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// asHelper makes this test binary behave as a program that uses the engine: see helper_test.go.
const asHelper = "EXECUTOR_TEST_HELPER"

// noWait lets processes that were built with the race detector end without the second that it takes.
const noWait = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if ShimInvoked() {
		ShimMain()
	}
	shimEnv = append(shimEnv, noWait)
	if os.Getenv(asHelper) != "" {
		helperMain()
	}
	// A sandbox has a /tmp of its own, in which the directories of tests would be seen.
	os.Setenv("TMPDIR", "/var/tmp")
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		enginetest.Clean()
		os.Exit(code)
	}))
}
