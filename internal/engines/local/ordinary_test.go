//go:build linux

package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// unsandboxed is a run of shell text whose contract wants no sandbox.
func unsandboxed(text string) *engines.Job {
	j := shell(text)
	j.Spec.(*contracts.LocalSpec).Sandbox = contracts.SandboxNone
	return j
}

func TestSandboxNone(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	const who = `id -u; grep Seccomp: /proc/self/status; test "$HOME" = /work && echo /work; readlink /proc/self/ns/user /proc/self/ns/mnt`
	user, _ := os.Readlink("/proc/self/ns/user")
	mnt, _ := os.Readlink("/proc/self/ns/mnt")
	want := fmt.Sprintf("%d\nSeccomp:\t0\n%s\n%s\n", os.Geteuid(), user, mnt)
	for range 2 { // also in a directory that was used before
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), unsandboxed(who), &stdout, nil)
		if err != nil || exit.Isolation != (contracts.Isolation{Tier: TierNone, Network: "host", Limits: limitsNone}) || stdout.String() != want {
			t.Errorf("%+v, %v; it printed\n%s", exit, err, stdout.String())
		}
		// The next is in the sandbox again, in a directory that nobody else has.
		exit, err = e.Run(t.Context(), shell("id -u; ls -A $HOME; touch $HOME/x && echo x >$HOME/x"), &stdout, nil)
		if err != nil || exit.Code != 0 || exit.Isolation.Tier != TierNamespaces {
			t.Errorf("%+v, %v", exit, err)
		}
	}
	if e.Tier() != TierNamespaces {
		t.Errorf("the tier of the engine became %s", e.Tier())
	}
	if left := append(files(e), filesOf(e.bare.space)...); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	dirs := []string{e.space.dir, e.bare.space.dir}
	e.Close()
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is there after the end", dir)
		}
	}
}

// What a tool in a sandbox leaves in a cache is not found by one outside of it, which could execute it with more rights.
func TestSandboxNoneSharesNoCache(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	cache := contracts.CacheMounts{{Name: "tools", Path: "~/bin"}}
	in, out := shell("echo in >~/bin/x"), unsandboxed("cat ~/bin/x 2>/dev/null; echo out >~/bin/x")
	in.Spec.Common().CacheMounts, out.Spec.Common().CacheMounts = cache, cache
	run(t, e, in)
	if got := run(t, e, out); got != "" {
		t.Errorf("outside it found %q", got)
	}
	if got := run(t, e, out); got != "out\n" {
		t.Errorf("outside, what was left outside is %q", got)
	}
}

// Asking for less isolation takes nothing else along: what an ordinary process cannot have is refused.
func TestSandboxNoneIsNotMore(t *testing.T) {
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.MountRoots = []string{"/usr"} })
	for what, spec := range map[string]contracts.CommonSpec{
		"network: none": {Network: "none"}, "memory_limit": {MemoryLimit: 1 << 30}, "pids_limit": {PidsLimit: 5}, "cpu_limit": {CPULimit: 1000},
		"mounts": {Mounts: contracts.Mounts{{Source: "/usr", Target: "/x"}}},
	} {
		spec.Command.Argv = []string{"/bin/true"}
		j := jobOf(contracts.LocalSpec{CommonSpec: spec, Sandbox: contracts.SandboxNone})
		if err := e.Check(j.Contract); errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "sandbox: none") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A contract that wants a sandbox is not run without.
func TestSandboxThatThereIsNot(t *testing.T) {
	for _, tier := range contracts.Sandboxes {
		if !slices.Contains(Tiers, tier) {
			t.Errorf("contracts may say sandbox: %s, and there is no such tier", tier)
		}
	}
	j := shell("true")
	j.Spec.(*contracts.LocalSpec).Sandbox = contracts.SandboxNamespaces
	if err := newEngine(t).Check(j.Contract); errorCode(err) != contracts.Unsupported || !strings.Contains(err.Error(), "sandbox: namespaces") {
		t.Errorf("without a sandbox: %v", err)
	}
	e := newEngine(t, sandboxed(t))
	if err := e.Check(j.Contract); err != nil {
		t.Errorf("in the sandbox: %v", err)
	}
	run(t, e, j)
	if err := newEngine(t).Check(unsandboxed("true").Contract); err != nil {
		t.Errorf("sandbox: none where there is none: %v", err)
	}
}

// filesOf is files for one of the engine's directories.
func filesOf(s *space) []string { return files(&Engine{space: s}) }

// A directory for runs without a sandbox that cannot be made is the engine's failure, not the tool's.
func TestSandboxNoneWithoutADirectory(t *testing.T) {
	e := newEngine(t, sandboxed(t))
	caches := filepath.Join(e.config.DataDir, bareCaches)
	if err := errors.Join(os.Remove(caches), os.WriteFile(caches, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Run(t.Context(), unsandboxed("true"), nil, nil); errorCode(err) != contracts.EngineUnavailable {
		t.Errorf("Run returned %v", err)
	}
}
