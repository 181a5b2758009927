package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// tier is one way to keep tools apart from the host.
type tier struct {
	name string
	// prepare makes the engine ready to run tools so; an error says why that cannot be.
	prepare func(*Engine) error
	// remedy says what the operator can do about a sandbox that could not be made, "" where nothing is known.
	remedy func(ended) string
}

// tiers are all that there are, the strongest first. A new one is an entry here and in Tiers.
var tiers = []tier{
	{TierNamespaces, (*Engine).prepareNamespaces, namespacesRemedy},
	{TierBubblewrap, (*Engine).prepareBubblewrap, bubblewrapRemedy},
	{TierLandlock, (*Engine).prepareLandlock, landlockRemedy},
	{TierNone, func(*Engine) error { return nil }, func(ended) string { return "" }},
}

// allowed are the tiers that the configuration admits, the strongest first.
func (c Config) allowed() (list []tier) {
	switch {
	case !c.Sandboxing:
		return tiers[len(tiers)-1:]
	case c.Sandbox.Mode != ModeAuto:
		for _, t := range tiers {
			if t.name == c.Sandbox.Mode {
				return []tier{t}
			}
		}
		return nil
	}
	for _, t := range tiers {
		list = append(list, t)
		if t.name == c.Sandbox.MinTier {
			return list
		}
	}
	return list
}

// choose takes the strongest tier that is allowed and works. An error says for each why it does not, and how to mend that.
func (e *Engine) choose() error {
	var reasons []string
	tiers := e.config.allowed()
	if len(tiers) == 0 {
		return contracts.Errorf(contracts.EngineUnavailable, "execution.local.sandbox.mode: there is no such tier as %q; there are %s", e.config.Sandbox.Mode, strings.Join(Tiers, ", "))
	}
	e.probing = true
	defer func() { e.probing = false }()
	for _, t := range tiers {
		e.tier = t.name
		err := t.prepare(e)
		if err == nil && t.name != TierNone {
			err = e.probe(t)
		}
		if err == nil {
			e.weaker = reasons
			switch {
			case t.name == TierNone && e.config.Sandboxing:
				e.log.Warn().Strs("reasons", reasons).Msg("tools of the local engine run without a sandbox, as execution.local.sandbox allows")
			case len(reasons) > 0:
				e.log.Warn().Str("tier", t.name).Strs("reasons", reasons).Msg("tools of the local engine run in a weaker sandbox, as execution.local.sandbox allows")
			}
			return nil
		}
		e.tier, e.view, e.detail, e.lacks = "", nil, "", nil
		e.space.ordinary()
		reasons = append(reasons, fmt.Sprintf("the sandbox %s does not work here: %s", t.name, err))
	}
	return contracts.Errorf(contracts.EngineUnavailable, "%s; execution.enable_sandboxing: false would run tools without one, with all rights of this user", strings.Join(reasons, "; "))
}

// probeTime bounds how long a tool that does nothing may take.
const probeTime = 30 * time.Second

// probeFile is this program in a sandbox, where there is no other that does nothing. Called so, it ends at once.
const probeFile = "/run/executor-true"

// probe runs a program that does nothing in the tier.
func (e *Engine) probe(t tier) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), probeTime, fmt.Errorf("a program that does nothing did not end within %s", probeTime))
	defer cancel()
	argv := []string{"/bin/true"}
	if _, _, err := e.view.stat(argv[0]); err != nil { // an image with nothing in it
		self, err := os.Executable()
		if err != nil {
			return err
		}
		argv = []string{probeFile}
		show := sandbox.Bind{Source: self, Target: probeFile}
		if e.view.inPlace {
			argv, show.Target = []string{self, probeFile}, ""
		}
		e.view.plan.Binds = append(e.view.plan.Binds, show)
		defer func() { e.view.plan.Binds = e.view.plan.Binds[:len(e.view.plan.Binds)-1] }()
	}
	spec := &contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: argv}}}
	exit, err := e.Run(ctx, &engines.Job{
		ID: "probe", Attempt: 1, Spec: spec, Contract: &contracts.Contract{Name: "probe", Engine: contracts.EngineLocal, Spec: spec},
		Starting: func() error { return nil }, Progress: func(string, string, float64) {},
	}, nil, nil)
	if err == nil && (exit.Code != 0 || exit.Signal != "") {
		err = fmt.Errorf("a program that does nothing ended with code %d %s", exit.Code, exit.Signal)
		if exit.Signal == "SIGSYS" {
			err = fmt.Errorf("a filter of system calls ended it; it needs those of @mount and @privileged: leave SystemCallFilter out of the systemd unit (docs/operations.md)")
		}
	}
	if err == nil {
		return nil
	}
	reason := contracts.AsError(err).Message
	var failed *startError
	if errors.As(err, &failed) {
		reason = failed.cause.Message
		if remedy := t.remedy(failed.ended); remedy != "" {
			reason += "; " + remedy
		}
	}
	return fmt.Errorf("%s", reason)
}

// namespacesRemedy names what keeps namespaces from being made. user_namespaces(7), and for AppArmor
// https://gitlab.com/apparmor/apparmor/-/wikis/unprivileged_userns_restriction.
func namespacesRemedy(how ended) string {
	step, errno := how.Step, syscall.Errno(how.Errno)
	if release := kernelRelease(); release != "" && olderThan5(release, 12) {
		return "it needs Linux 5.12 or later, and this is " + release
	}
	root := os.Geteuid() == 0
	switch {
	case setting("user/max_user_namespaces") == "0":
		return "run sysctl -w user.max_user_namespaces=15000, and keep it in /etc/sysctl.d"
	case !root && setting("kernel/unprivileged_userns_clone") == "0":
		return "run sysctl -w kernel.unprivileged_userns_clone=1, and keep it in /etc/sysctl.d"
	case inContainer() && step == "mount /proc":
		return "the container's /proc is covered in part: start the container with --security-opt systempaths=unconfined (compose: security_opt: [systempaths=unconfined], Kubernetes: procMount: Unmasked)"
	case inContainer():
		return "containers are kept from making namespaces: start this one with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, and apparmor=unconfined where the host has AppArmor (compose: security_opt), or use the docker engine for what is not trusted"
	case !root && setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor keeps unprivileged programs from user namespaces: give the executor a profile with \"userns,\" (docs/troubleshooting.md has one), or run sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	case errno == syscall.ENOSPC:
		return "there are too many user namespaces: raise user.max_user_namespaces"
	case !root && errno == syscall.EPERM:
		return "something forbids namespaces to this service: leave RestrictNamespaces and SystemCallFilter out of its systemd unit (docs/operations.md), or see what security module the machine has"
	case root && (errno == syscall.EPERM || errno == syscall.EACCES):
		return "root lacks rights: the service needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID (systemd: CapabilityBoundingSet, RestrictNamespaces=no, no SystemCallFilter without @mount), or run it as an ordinary user"
	}
	return ""
}

// setting is a setting of the kernel, "" where it has none of that name.
func setting(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// userOutside is whom tools are outside of their sandbox: the configured user where the executor is root, else, as -1, its own
// user. Root of a user namespace that does not have the configured one is an ordinary user of the host.
func (s Sandbox) userOutside(maps ...string) (int, error) {
	if os.Geteuid() != 0 {
		return -1, nil
	}
	for _, file := range maps {
		mapped, hostRoot := false, false
		eachLine(file, func(line string) {
			var inside, outside, size int
			if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 {
				mapped = mapped || s.User >= inside && s.User-inside < size
				hostRoot = hostRoot || outside == 0
			}
		})
		if mapped {
			continue
		}
		if hostRoot {
			return 0, fmt.Errorf("this user namespace has no user and group %d for tools; set execution.local.sandbox.user to one that it has", s.User)
		}
		return -1, nil
	}
	return s.User, nil
}

func inContainer() bool {
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return os.Getenv("KUBERNETES_SERVICE_HOST") != ""
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// olderThan5 reports whether a release of Linux is older than 5.minor.
func olderThan5(release string, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a < 5 || a == 5 && b < minor
}
