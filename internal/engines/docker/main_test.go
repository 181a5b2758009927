package docker

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeWorld()
		enginetest.Clean()
		os.Exit(code)
	}))
}
