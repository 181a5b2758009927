package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/local"
)

// asProgram makes this test binary behave as the program: tests start it as a process of its own.
const asProgram = "EXECUTOR_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if local.ShimInvoked() {
		local.ShimMain()
	}
	if times := os.Getenv(asPrinter); times != "" {
		printTimes(times)
		os.Exit(0)
	}
	if os.Getenv(asProgram) != "" {
		os.Unsetenv(asProgram)
		main()
	}
	testscript.Main(leakChecked{m}, map[string]func(){"executor": main})
}

// leakChecked is testing.M with a look for goroutines that tests left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}
