package local

import "github.com/praxis-sdk/executor/internal/contracts"

const (
	memoryController = "memory"
	cpuController    = "cpu"
	pidsController   = "pids"
)

type groups struct{}
type group struct{}

func (g *groups) create(*contracts.LocalSpec) (*group, error) { return nil, nil }
func (g *group) remove()                                      {}
func (g *group) dirs() []string                               { return nil }
func (g *group) outOfMemory() bool                            { return false }
func (e *Engine) limits(string) bool                          { return false }
func (e *Engine) limitsOf(*contracts.LocalSpec, *view) string { return "none" }
