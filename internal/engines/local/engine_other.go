//go:build !linux

package local

import (
	"context"
	"io"
	"runtime"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// Engine is the local engine, which needs Linux: there is no way elsewhere to end a tool with all that it started.
type Engine struct{}

var _ engines.Engine = (*Engine)(nil)

func unavailable() error {
	return contracts.Errorf(contracts.EngineUnavailable, "the local engine needs Linux and this is %s; run the executor on Linux, in a container for example, and use this program as its client", runtime.GOOS)
}

// New says that the engine needs Linux.
func New(Config, zerolog.Logger) (*Engine, error) { return nil, unavailable() }

// Close does nothing.
func (*Engine) Close() error { return nil }

// Check says that the engine needs Linux.
func (*Engine) Check(*contracts.Contract) error { return unavailable() }

// Ready says that the engine needs Linux.
func (*Engine) Ready(context.Context) error { return unavailable() }

// Run says that the engine needs Linux.
func (*Engine) Run(context.Context, *engines.Job, io.Writer, io.Writer) (engines.Exit, error) {
	return engines.Exit{}, unavailable()
}

// Tier says nothing.
func (*Engine) Tier() string { return "" }

// Limits says nothing.
func (*Engine) Limits() (memory, cpu, pids, remedy string) { return "", "", "", "" }

// ShimInvoked reports false: no shim runs here.
func ShimInvoked() bool { return false }

// ShimMain does nothing.
func ShimMain() {}
