package docker

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// tests are all tests, and then the end of what they share.
type tests struct{ *testing.M }

func (t tests) Run() int {
	defer removeWorld()
	return t.M.Run()
}

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		helperMain()
	}
	goleak.VerifyTestMain(tests{m}, goleak.Cleanup(func(code int) {
		enginetest.Clean()
		os.Exit(code)
	}))
}
