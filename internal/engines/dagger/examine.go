package dagger

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

var _ engines.Examiner = (*Engine)(nil)

// Examine waits until the attempt to connect that is under way has come to its end. Then it runs a program of ours that does
// nothing, in a container that holds nothing else, so that no image is pulled for it.
func (e *Engine) Examine(ctx context.Context) (engines.Examination, error) {
	s, err := e.sessions.get(ctx, time.Hour)
	if err != nil {
		return engines.Examination{}, err
	}
	defer s.release()
	found := engines.Examination{
		About: fmt.Sprintf("Dagger engine %s, output while a tool runs", s.version),
		Exit:  engines.Exit{Isolation: isolation},
		Lacks: []engines.Lack{{What: "cannot enforce limits of memory, cpu and processes, nor network: none", Mend: "contracts that ask for them go to the docker engine where that is served; best_effort: true lets them run here without"}},
	}
	if !slices.Contains(e.config.Networks, "bridge") {
		found.Lacks = append(found.Lacks, engines.Lack{What: "takes no contract: all of its containers have a network, which policy.network does not allow", Mend: "add bridge to policy.network, or disable execution.dagger"})
	}
	if err := s.logs.missing(); err != nil {
		found.About = fmt.Sprintf("Dagger engine %s, output at the end of a run", s.version)
		found.Lacks = append(found.Lacks, engines.Lack{What: "has no log stream: " + short(err), Mend: "use a newer Dagger engine and CLI"})
	}
	if s.program == "" {
		found.About = fmt.Sprintf("Dagger engine %s, output as text at the end of a run", s.version)
		found.Lacks = append(found.Lacks, engines.Lack{What: "our program cannot stand beside tools: " + s.why, Mend: "use an executor that was built for the engine's platform, with CGO_ENABLED=0"})
		return found, s.ask(ctx) // there is nothing that could be run without an image
	}
	spec := &contracts.DaggerSpec{}
	spec.Command.Argv = []string{inside.Program} // which finds nothing to start, and ends
	contract := &contracts.Contract{Name: "doctor", Engine: contracts.EngineDagger, Spec: spec}
	found.Exit, err = e.run(ctx, &engines.Job{
		ID: "doctor", Attempt: 1, Contract: contract, Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {},
	}, spec, "", found.Exit, io.Discard, io.Discard)
	return found, err
}
