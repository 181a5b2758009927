package dagger

import (
	"fmt"
	"maps"
	posix "path"
	"slices"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

// specOf is the spec with which a contract runs here, nil where it has none.
func specOf(c *contracts.Contract) *contracts.DaggerSpec {
	spec, _ := c.SpecFor(contracts.EngineDagger).(*contracts.DaggerSpec)
	return spec
}

// unenforced lists what of a contract an engine of Dagger does not enforce: there is no bound of memory, processors or processes
// in its interface, and every container has a network.
func unenforced(c *contracts.Contract, spec *contracts.DaggerSpec) (list []string) {
	for _, limit := range []struct {
		name  string
		asked bool
	}{
		{"memory_limit", spec.MemoryLimit != 0}, {"cpu_limit", spec.CPULimit != 0}, {"pids_limit", spec.PidsLimit != 0},
		{"read_only: true", spec.ReadOnly != nil && *spec.ReadOnly}, {"shm_size", spec.ShmSize != 0}, {"ulimits", len(spec.Ulimits) > 0},
	} {
		if limit.asked {
			list = append(list, limit.name)
		}
	}
	switch {
	case spec.Network == "none":
		list = append(list, "network: none")
	case spec.Network == "" && !chosen(c):
		list = append(list, "network: none, which the contract has on "+c.Engine+" as it names no network")
	}
	return list
}

// chosen reports whether the author of a contract named this engine. Who did knows that its containers have a network; who named
// another one, and no network, relies on there being none.
func chosen(c *contracts.Contract) bool {
	return c.Engine == contracts.EngineDagger || slices.ContainsFunc(c.Fallback, func(f contracts.Fallback) bool { return f.Engine == contracts.EngineDagger })
}

// networked is nil where a container may have the network that every one of Dagger has, though its contract does not ask for it by
// name: what does ask is checked against policy.network before it comes here.
func (e *Engine) networked(spec *contracts.DaggerSpec) error {
	if spec.Network == "bridge" || slices.Contains(e.config.Networks, "bridge") {
		return nil
	}
	what := "network: none"
	if spec.Network == "" {
		what = "no network"
	}
	return contracts.Errorf(contracts.Unsupported, "the contract has %s, all containers of the dagger engine have one with a way out, and policy.network does not allow it; use the docker engine, or have the operator add bridge to policy.network", what)
}

// taken are places of a container that no contract may have, nor anything in them: ours and the kernel's.
var taken = []string{inside.Program, inside.Dir, inside.Output, "/proc", "/sys"}

// placed is nil where all that a contract puts into its container has a place of its own. Of two at one place an engine keeps the last.
func placed(spec *contracts.DaggerSpec) error {
	there := map[string]bool{}
	place := func(what, at string) error {
		if at == "/" || at == "/dev" || slices.ContainsFunc(taken, func(dir string) bool { return under(at, dir) }) {
			return contracts.Errorf(contracts.Unsupported, "%s: %s has its place in each container of the dagger engine already; choose another", what, at)
		}
		if there[at] {
			return contracts.Errorf(contracts.Unsupported, "%s: there is something else of the contract at %s; choose another place", what, at)
		}
		there[at] = true
		return nil
	}
	for _, m := range spec.Mounts {
		if err := place("mounts", posix.Clean(m.Target)); err != nil {
			return err
		}
	}
	for _, cache := range spec.CacheMounts {
		if err := place("cache_mounts", posix.Clean(home(cache.Path))); err != nil {
			return err
		}
	}
	copied := slices.Collect(maps.Keys(there))
	for path := range spec.Tmpfs {
		path = posix.Clean(path)
		for _, at := range copied {
			if at != path && under(at, path) {
				return contracts.Errorf(contracts.Unsupported, "tmpfs: in the dagger engine one at %s would lie over %s, which the contract has as well; choose another place", path, at)
			}
		}
		if err := place("tmpfs", path); err != nil {
			return err
		}
	}
	return nil
}

// Check refuses what an engine of Dagger cannot do.
func (e *Engine) Check(c *contracts.Contract) error {
	spec := specOf(c)
	if spec == nil {
		return contracts.Errorf(contracts.Unsupported, "the contract of %s has no engine_spec for the dagger engine", c.Name)
	}
	if spec.Image == "" && e.config.DefaultImage == "" {
		return contracts.Errorf(contracts.Unsupported, "the contract of %s names no image, and this executor has no execution.dagger.default_image", c.Name)
	}
	if n := spec.Network; n != "" && n != "none" && n != "bridge" {
		return contracts.Errorf(contracts.Unsupported, "the dagger engine has no network %q for tools; write network: bridge, or use the docker engine", n)
	}
	if spec.GPUs != "" {
		return contracts.Errorf(contracts.Unsupported, "the dagger engine gives no gpus to tools; use the docker engine")
	}
	if err := placed(spec); err != nil {
		return err
	}
	if list := unenforced(c, spec); len(list) > 0 && !spec.BestEffort {
		return contracts.Errorf(contracts.Unsupported, "the dagger engine cannot enforce %s; use the docker engine, or let it run without by best_effort: true", strings.Join(list, ", "))
	}
	return e.networked(spec)
}

// notesOf says what a run goes without.
func notesOf(c *contracts.Contract, spec *contracts.DaggerSpec) (notes []string) {
	if list := unenforced(c, spec); len(list) > 0 {
		notes = append(notes, fmt.Sprintf("not enforced by the dagger engine (best_effort): %s", strings.Join(list, ", ")))
	}
	return notes
}
