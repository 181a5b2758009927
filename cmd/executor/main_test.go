package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// asProgram makes this test binary behave as the program: tests start it as a process of its own.
const asProgram = "EXECUTOR_TEST_PROGRAM"

// withFake names an engine that the program is to have as well, one without processes.
const withFake = "EXECUTOR_TEST_FAKE"

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
		if name := os.Getenv(withFake); name != "" {
			engineTable = append(engineTable, engineEntry{name, func(configs.Config) bool { return true },
				func(configs.Config, string, zerolog.Logger) (engines.Engine, error) {
					return enginetest.NewFake(name), nil
				}})
		}
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
