package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/local"
)

// asProgram makes this test binary behave as the program: tests start it as a process of its own.
const asProgram = "EXECUTOR_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if local.ShimInvoked() {
		local.ShimMain()
	}
	if os.Getenv(asProgram) != "" {
		os.Unsetenv(asProgram)
		main()
	}
	if times := os.Getenv(asPrinter); times != "" {
		printTimes(times)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
