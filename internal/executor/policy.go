package executor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// ownVariables are given to every tool by its engine; a contract that passes them through gets those, not the
// executor's.
var ownVariables = []string{"PATH", "HOME", "TMPDIR", "LANG"}

// CheckReplyTo reports whether answers may go to a subject: below the configured prefixes, and never into an executor's
// own inbox. An error has the code policy_denied.
func (p Policy) CheckReplyTo(subject, ownInbox string) error {
	prefixes := p.ReplyPrefixes
	if len(prefixes) == 0 {
		prefixes = DefaultReplyPrefixes
	}
	if err := contracts.CheckSubject(subject); err != nil {
		return contracts.Errorf(contracts.PolicyDenied, "reply_to: %s", err)
	}
	if ownInbox != "" && (subject == ownInbox || strings.HasPrefix(subject, strings.TrimSuffix(ownInbox, ".")+".")) {
		return contracts.Errorf(contracts.PolicyDenied, "reply_to: %q is an inbox of executors", subject)
	}
	if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(subject, prefix) }) {
		return contracts.Errorf(contracts.PolicyDenied, "reply_to: %q is not below %s; reply into an inbox of your own", subject, strings.Join(prefixes, " or "))
	}
	return nil
}

// CheckContract reports whether a contract may run here. inline is one that came with its request. An error has the code
// policy_denied and names the setting that would allow it.
func (p Policy) CheckContract(c *contracts.Contract, spec contracts.Spec, inline bool) error {
	denied := func(what, setting string) error {
		return contracts.Errorf(contracts.PolicyDenied, "%s is not allowed on this executor; its operator can allow it by %s", what, setting)
	}
	common := spec.Common()
	if local, ok := spec.(*contracts.LocalSpec); ok {
		switch {
		case local.Shell && inline && !p.Shell:
			return denied("shell: true in a contract that came with its request", "policy.shell")
		case local.Sandbox == contracts.SandboxNone && !p.Local.Unsandboxed:
			return denied("sandbox: none, an ordinary process with all rights of the executor's user,", "policy.local.unsandboxed: true; or leave it out of the contract, and the tool runs in the sandbox of the executor")
		}
	}
	if n := common.Network; n != "" && n != "none" && !slices.Contains(p.Network, n) {
		return denied("network: "+n, "policy.network")
	}
	if container := containerOf(spec); container != nil && container.Privileged && !p.Privileged {
		return denied("privileged: true", "policy.privileged")
	}
	if container := containerOf(spec); container != nil && container.GPUs != "" && !p.GPUs {
		return denied("gpus: "+string(container.GPUs), "policy.gpus")
	}
	for _, m := range common.Mounts {
		if err := p.checkMount(c, m); err != nil {
			return err
		}
	}
	for _, name := range common.EnvPassthrough {
		if _, set := os.LookupEnv(name); set && !slices.Contains(p.EnvPassthrough, name) && !slices.Contains(ownVariables, name) {
			return denied("env_passthrough: "+name, "policy.env_passthrough")
		}
	}
	return nil
}

func containerOf(spec contracts.Spec) *contracts.ContainerSpec {
	switch s := spec.(type) {
	case *contracts.DockerSpec:
		return &s.ContainerSpec
	case *contracts.DaggerSpec:
		return &s.ContainerSpec
	}
	return nil
}

// checkMount resolves the source of a mount, links included, and looks whether it lies below an allowed root.
func (p Policy) checkMount(c *contracts.Contract, m contracts.Mount) error {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(c.BaseDir, source)
	}
	resolved, err := filepath.EvalSymlinks(source)
	if err == nil && strings.HasSuffix(resolved, "/docker.sock") && p.DockerSocket {
		return nil
	}
	switch {
	case err != nil && (c.File != "" || belowAny(p.Mounts, source)): // else who asks would learn what this machine has
		return contracts.Errorf(contracts.PolicyDenied, "mounts: %s: it must be there before it can be mounted (%s)", m.Source, err)
	case err != nil || !engines.BelowRoots(p.Mounts, resolved, false):
		return contracts.Errorf(contracts.PolicyDenied, "mounts: %s is not below a directory that this executor may mount; its operator can allow it by policy.mounts", m.Source)
	case m.Mode == "rw" && !engines.BelowRoots(p.Mounts, resolved, true):
		return contracts.Errorf(contracts.PolicyDenied, "mounts: %s may be read only on this executor; its operator can allow writing by policy.mounts: [%s:rw]", m.Source, source)
	}
	return nil
}

// belowAny reports whether a path is named as one below the roots, which are as policy.mounts has them, whether it is there or not.
func belowAny(roots []string, path string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		below, err := filepath.Rel(strings.TrimSuffix(root, ":rw"), path)
		return err == nil && filepath.IsLocal(below)
	})
}

// passthrough are the variables that a contract passes on, as far as they are set.
func (p Policy) passthrough(spec *contracts.CommonSpec) map[string]string {
	values := map[string]string{}
	for _, name := range spec.EnvPassthrough {
		if value, set := os.LookupEnv(name); set && slices.Contains(p.EnvPassthrough, name) {
			values[name] = value
		}
	}
	return values
}
