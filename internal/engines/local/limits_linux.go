package local

import (
	"os"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// bounds are limits of one run; 0 is none.
type bounds struct {
	memory int64 // bytes
	cpu    int64 // thousandths of a processor
	pids   int64 // processes and threads of the tool
}

func (b bounds) of(controller string) int64 {
	switch controller {
	case memoryController:
		return b.memory
	case cpuController:
		return b.cpu
	}
	return b.pids
}

// boundsOf are the limits of a run: those of its contract, and where that names none the operator's. An ordinary process has
// none; Check refuses contracts that want some.
func (e *Engine) boundsOf(spec *contracts.LocalSpec, see *view) bounds {
	if see == nil {
		return bounds{}
	}
	b := bounds{memory: int64(spec.MemoryLimit), cpu: int64(spec.CPULimit), pids: spec.PidsLimit}
	if b.memory == 0 {
		b.memory = e.config.Sandbox.MemoryLimit
	}
	if b.pids == 0 {
		b.pids = e.config.Sandbox.PidsLimit
	}
	return b
}

// byProcess puts into a plan what limits of processes can enforce, and returns what is left for cgroups.
//
// Processes: since Linux 5.14 RLIMIT_NPROC counts those of one user in one user namespace, which is all of a run and nothing
// else. It costs nothing, while a cgroup has to be made and removed.
//
// Memory: RLIMIT_DATA, only where there is no cgroup for it. It bounds what each process has of its own and may write to, used
// or not; what is reserved without the right to write does not count, as the heaps of Go, Node and Java begin.
func (e *Engine) byProcess(b bounds, plan *sandbox.Plan) (left bounds) {
	left = b
	if b.pids > 0 && e.countsProcesses() {
		plan.Processes, left.pids = b.pids+e.holders(), 0
	}
	if b.memory > 0 && !e.cgroups.has(memoryController) {
		plan.Data, left.memory = b.memory, 0
	}
	if left.pids > 0 && e.view.ready {
		left.pids += e.holders() // with the others only the tool is in the cgroup
	}
	if !e.cgroups.has(pidsController) {
		left.pids = 0 // the operator's, on an old kernel: New has told that nothing can enforce it
	}
	return left
}

// holders are the processes of a sandbox that count like those of the tool and are not the tool's: the first one, and with
// bubblewrap one that waits.
func (e *Engine) holders() int64 {
	if e.tier == TierBubblewrap {
		return 2
	}
	return 1
}

// countsProcesses reports whether RLIMIT_NPROC counts the processes of one run and no others.
func (e *Engine) countsProcesses() bool { return e.config.Sandbox.countsProcesses() && !e.view.inPlace }

// countsProcesses reports whether RLIMIT_NPROC counts the processes of one sandbox and no others.
func (s Sandbox) countsProcesses() bool { return !s.oldKernel && !olderThan5(kernelRelease(), 14) }

// limits reports whether a limit can be enforced for tools in the sandbox.
func (e *Engine) limits(controller string) bool {
	switch {
	case e.view == nil:
		return false
	case controller == memoryController, controller == pidsController && e.countsProcesses():
		return true
	}
	return e.cgroups.has(controller)
}

// limitsOf says what enforces the limits of a run: those of its contract, else those that every tool in a sandbox has. Of two
// kinds it is the weaker.
func limitsOf(g *group, see *view) string {
	switch {
	case see == nil:
		return limitsNone
	case g != nil && len(g.parts) > 0 && see.plan.Data == 0:
		return limitsCgroup
	}
	return limitsRlimit
}

// Limits says what enforces memory_limit, cpu_limit and pids_limit of contracts: for each rlimit, cgroup, or "" where such
// contracts are refused. remedy says what the operator can do to have all of them enforced by cgroups, "" where they are.
func (e *Engine) Limits() (memory, cpu, pids, remedy string) {
	by := func(controller string) string {
		switch {
		case e.cgroups.has(controller) && (controller != pidsController || !e.countsProcesses()):
			return limitsCgroup
		case e.limits(controller):
			return limitsRlimit
		}
		return ""
	}
	if e.view == nil {
		return "", "", "", ""
	}
	memory, cpu, pids = by(memoryController), by(cpuController), by(pidsController)
	if memory != limitsCgroup || cpu == "" || pids == "" {
		remedy = groupsRemedy()
	}
	return memory, cpu, pids, remedy
}

// groupsRemedy says how this executor gets cgroups that it may use.
func groupsRemedy() string {
	switch {
	case inContainer():
		return "limits by cgroups need a container that may write its cgroups, which Docker and Kubernetes give to privileged ones alone; bound the container instead (mem_limit, cpus, pids_limit), or use the docker engine for contracts with limits"
	case !hasUnified("/proc/self/mountinfo") && os.Geteuid() != 0:
		return "limits by cgroups need the right to make some: this machine has version 1 alone, where only root may; run the executor as root (tools will not be), or boot with systemd.unified_cgroup_hierarchy=1 and delegate"
	case os.Geteuid() == 0:
		return "limits by cgroups need one of the executor's own: Delegate=yes in its systemd unit (docs/operations.md has one), or by hand systemd-run --scope -p Delegate=yes executor serve …"
	}
	return "limits by cgroups need one of the executor's own: Delegate=yes in its systemd unit (docs/operations.md has one), or by hand systemd-run --user --scope -p Delegate=yes executor serve …"
}

// hasUnified reports whether cgroups of version 2 are mounted.
func hasUnified(mountinfo string) (yes bool) {
	eachLine(mountinfo, func(line string) {
		_, after, _ := strings.Cut(line, " - ")
		yes = yes || strings.HasPrefix(after, "cgroup2 ")
	})
	return yes
}
