//go:build linux

package target

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// Container is the tier of the Docker engine.
const Container = "container"

// Bare is the tier to which the others are compared.
const Bare = "bare"

// A Tier is a way to run tools.
type Tier struct {
	Name string
	// Optional: not every machine is expected to offer it.
	Optional bool
	// Root: it is offered to root alone, and by the daemon's leave.
	Root bool
	// Spec makes the spec of its engine from what all engines share; nil: that of the local engine.
	Spec func(contracts.CommonSpec) contracts.Spec
	// New makes its engine. An error is the reason why this machine does not offer it.
	New func(dataDir string) (engines.Engine, error)
}

// Tiers are those that attempts are made against. A new one is a line here, and what is expected of it in the attempts.
var Tiers = []Tier{
	{Name: Bare, New: func(dataDir string) (engines.Engine, error) { return newBare(dataDir) }},
	sandboxed(local.TierNamespaces, false),
	sandboxed(local.TierBubblewrap, true),
	sandboxed(local.TierLandlock, true),
	{Name: local.TierNone, New: func(dataDir string) (engines.Engine, error) { return newLocal(dataDir, func(*local.Config) {}) }},
	{Name: Container, Root: true, New: newContainer, Spec: containerSpec},
}

// sandboxed is a tier of the local engine's sandbox.
func sandboxed(name string, optional bool) Tier {
	return Tier{Name: name, Optional: optional, New: func(dataDir string) (engines.Engine, error) {
		return newLocal(dataDir, func(c *local.Config) {
			c.Sandboxing, c.Sandbox = true, local.DefaultSandbox()
			c.Sandbox.Mode, c.Sandbox.WorkSize = name, 32<<20
		})
	}}
}

func newLocal(dataDir string, change func(*local.Config)) (engines.Engine, error) {
	config := local.Config{DataDir: dataDir, Path: local.DefaultPath, KillGrace: 200 * time.Millisecond}
	change(&config)
	return local.New(config, zerolog.Nop())
}
