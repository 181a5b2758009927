package main

import (
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// tiered is an engine that says how it keeps tools apart.
type tiered struct {
	engines.Engine
	by            string
	lacks, weaker []string
}

func (e tiered) TierDetail() (by string, lacks, weaker []string) { return e.by, e.lacks, e.weaker }

func TestDoctorTellsOfIsolation(t *testing.T) {
	is := contracts.Isolation{Tier: "landlock", Network: "none", Limits: "rlimit"}
	for _, c := range []struct {
		engine      engines.Engine
		state, text string
	}{
		{tiered{}, findingOK, "isolation landlock, network none, limits rlimit"},
		{tiered{by: "Landlock ABI 7"}, findingOK, "isolation landlock (Landlock ABI 7), network none, limits rlimit"},
		{tiered{by: "Landlock ABI 4", lacks: []string{"no bound on signals"}}, findingWarn, "isolation landlock (Landlock ABI 4; no bound on signals), network none, limits rlimit"},
		{tiered{by: "Landlock ABI 7", weaker: []string{"the sandbox namespaces does not work here: mend it"}}, findingWarn,
			"isolation landlock (Landlock ABI 7), network none, limits rlimit; the sandbox namespaces does not work here: mend it"},
		{struct{ engines.Engine }{}, findingOK, "isolation landlock, network none, limits rlimit"},
	} {
		if state, text := isolation(c.engine, is); state != c.state || text != c.text {
			t.Errorf("%s: %s\nbut this is right\n%s: %s", state, text, c.state, c.text)
		}
	}
}
