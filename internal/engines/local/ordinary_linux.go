package local

import (
	"slices"
	"sync"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// ordinary reports whether a run gets no sandbox: there is none here, or its contract asks for that (sandbox: none), which
// policy has allowed before it comes to an engine.
func (e *Engine) ordinary(spec *contracts.LocalSpec) bool {
	return e.view == nil || spec.Sandbox == contracts.SandboxNone
}

// tooWeak reports whether a contract wants a stronger sandbox than there is here.
func (e *Engine) tooWeak(spec *contracts.LocalSpec) bool {
	return spec.Sandbox != "" && slices.Index(Tiers, e.tier) > slices.Index(Tiers, spec.Sandbox)
}

// bare is where an engine with a sandbox keeps the directories of runs that have none. They share nothing with the others,
// caches neither: what a tool in a sandbox may write, a tool outside of it must not come to execute.
type bare struct {
	mu    sync.Mutex
	space *space
}

// bareCaches is where all runs without a sandbox have their caches, also those of an engine that has none.
const bareCaches = "caches-unsandboxed"

// spaceFor is where the directories of a run are. An error has the code engine_unavailable.
func (e *Engine) spaceFor(spec *contracts.LocalSpec) (*space, error) {
	if e.view == nil || !e.ordinary(spec) {
		return e.space, nil
	}
	e.bare.mu.Lock()
	defer e.bare.mu.Unlock()
	if e.bare.space == nil {
		space, err := openSpace(e.config, e.log)
		if err != nil {
			return nil, contracts.Errorf(contracts.EngineUnavailable, "the directory for runs without a sandbox: %s", err)
		}
		e.bare.space = space
	}
	return e.bare.space, nil
}

func (b *bare) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.space != nil {
		b.space.close()
	}
}
