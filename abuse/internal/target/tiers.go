//go:build linux

package target

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// Bare is the tier to which the others are compared.
const Bare = "bare"

// A Tier is a way to run tools.
type Tier struct {
	Name string
	// Optional: not every machine is expected to offer it.
	Optional bool
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
