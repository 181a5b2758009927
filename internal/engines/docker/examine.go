package docker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/system"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

var _ engines.Examiner = (*Engine)(nil)

// Examine runs a tool that does nothing, in the image that holds this program, and says what the daemon is and what it cannot
// enforce.
func (e *Engine) Examine(ctx context.Context) (engines.Examination, error) {
	found := engines.Examination{}
	if err := e.Ready(ctx); err != nil {
		return found, err
	}
	info, err := e.daemon.look(ctx, false)
	if err != nil {
		return found, err
	}
	found.About = e.about(info)
	found.Lacks = e.lacks(info)
	spec := &contracts.DockerSpec{}
	spec.Image, spec.Entrypoint = e.anchor.imageName(), contracts.Entrypoint{}
	spec.Command.Argv = []string{boot.Program, boot.Anchor} // ends with its stdin, which is empty
	unbound := e.config
	unbound.Images, unbound.Pull = nil, PullNever // it is ours, and not one that a contract asks for
	c := &contracts.Contract{Name: "doctor", Engine: contracts.EngineDocker, Spec: spec}
	found.Exit, err = e.run(ctx, &engines.Job{
		ID: "doctor", Attempt: 1, Contract: c, Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {},
	}, newImages(e.daemon, unbound), io.Discard, io.Discard)
	return found, err
}

// about is what a daemon is.
func (e *Engine) about(info *system.Info) string {
	parts := []string{
		"Docker " + info.ServerVersion + " at " + e.daemon.host, "API " + e.daemon.ClientVersion(), "cgroup v" + cmp.Or(info.CgroupVersion, "1"),
		"runtime " + cmp.Or(e.config.Runtime, info.DefaultRuntime),
	}
	for _, option := range info.SecurityOptions {
		if name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ","); name != "" {
			parts = append(parts, name)
		}
	}
	return strings.Join(parts, ", ")
}

// lacks is what a daemon cannot enforce, and so what contracts cannot have.
func (e *Engine) lacks(info *system.Info) (list []engines.Lack) {
	lack := func(missing bool, what, mend string, a ...any) {
		if missing {
			list = append(list, engines.Lack{What: what, Mend: fmt.Sprintf(mend, a...)})
		}
	}
	rootless := slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return strings.Contains(o, "rootless") })
	delegate := "give the daemon a kernel with this controller"
	if rootless {
		delegate = "a rootless daemon needs cgroup v2 with delegated controllers: docs.docker.com/engine/security/rootless"
	}
	lack(!info.MemoryLimit, "memory_limit is refused: the daemon has no memory controller", "%s", delegate)
	lack(info.MemoryLimit && !info.SwapLimit, "tools with a memory_limit may use swap beside it: the daemon cannot limit that", "boot with swapaccount=1, use cgroup v2, or have no swap")
	lack(!info.CPUCfsQuota, "cpu_limit is refused: the daemon has no cpu controller", "%s", delegate)
	lack(!info.PidsLimit, "pids_limit is refused, and no container has a bound on its processes: the daemon has no pids controller", "%s", delegate)
	seccomp := slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return strings.Contains(o, "seccomp") && !strings.Contains(o, "unconfined") })
	lack(!seccomp, "system calls are not filtered: the daemon has no seccomp profile", "use a kernel and a daemon with seccomp, and its default profile")
	lack(!e.daemon.local, "mounts are refused: the daemon is on another machine, which has not the files of this one", "use an executor beside the daemon for tools that need them")
	return list
}
