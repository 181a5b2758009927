package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// In the tier landlock a tool is an ordinary process of the host, with fewer rights: to files by Landlock, to system calls by a
// filter. It needs no namespaces, and has none: files are where they are, and there is no cover for what lies in a directory
// that is shown; so that is shown in parts.

// HostFiles are what tools see of the host in the tier landlock beside SystemPaths: in the others they are made for them.
var HostFiles = []string{"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/resolv.conf"}

// prepareLandlock makes the engine run tools as ordinary processes that Landlock keeps from most files.
func (e *Engine) prepareLandlock() error {
	abi, err := sandbox.LandlockABI()
	if err != nil {
		return withoutLandlock(err, kernelRelease())
	}
	if abi < sandbox.MinLandlockABI {
		return fmt.Errorf("it needs version %d of Landlock, of Linux 6.2, and this kernel, %s, has version %d", sandbox.MinLandlockABI, kernelRelease(), abi)
	}
	user, err := e.config.Sandbox.userOutside("/proc/self/uid_map", "/proc/self/gid_map")
	if err != nil {
		return err
	}
	if err := e.space.sandboxed(user); err != nil {
		return err
	}
	if err := e.space.share(); err != nil {
		return err
	}
	e.view = systemView(e.config.Sandbox, e.space.root, user)
	e.view.inPlace, e.view.plan.Files = true, nil
	for _, file := range HostFiles {
		if _, err := os.Stat(file); err == nil {
			e.view.plan.Binds = append(e.view.plan.Binds, sandbox.Bind{Source: file})
		}
	}
	if e.cgroups == nil {
		e.cgroups = openGroups(e.log)
	}
	e.detail = fmt.Sprintf("Landlock ABI %d", abi)
	e.lacks = sandbox.Lacking(abi)
	return nil
}

// withoutLandlock says why there is none, and what to do.
func withoutLandlock(err error, release string) error {
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		active, _ := os.ReadFile("/sys/kernel/security/lsm")
		list := "landlock"
		if text := strings.TrimSpace(string(active)); text != "" {
			list += "," + text
		}
		return fmt.Errorf("this kernel has Landlock, but it is not switched on: add lsm=%s to the command line of the kernel (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub), and restart the machine", list)
	case errors.Is(err, syscall.ENOSYS) && olderThan5(release, 13):
		return fmt.Errorf("it needs Linux 6.2 or later, and this is %s", release)
	case errors.Is(err, syscall.ENOSYS) && inContainer():
		return fmt.Errorf("this kernel, %s, has no Landlock (CONFIG_SECURITY_LANDLOCK), or the container's filter of system calls keeps it from us: Docker allows it since 23.0", release)
	case errors.Is(err, syscall.ENOSYS):
		return fmt.Errorf("this kernel, %s, has no Landlock: it needs one that was built with CONFIG_SECURITY_LANDLOCK", release)
	case errors.Is(err, syscall.EPERM):
		return errors.New("a filter of system calls keeps Landlock from us: Docker's allows it since 23.0; for systemd, SystemCallFilter needs @sandbox")
	}
	return fmt.Errorf("ask the kernel for Landlock: %w", err)
}

// landlockRemedy names what keeps tools from being started.
func landlockRemedy(how ended) string {
	if os.Geteuid() == 0 && syscall.Errno(how.Errno) == syscall.EPERM && (strings.HasPrefix(how.Step, "become") || how.Step == "leave all groups") {
		return "root lacks rights: the service needs CAP_SETUID and CAP_SETGID, or run it as an ordinary user"
	}
	return ""
}

// forRunInPlace adds what one run sees where files are where they are. An error says that its contract asks for what it may not
// have.
func (v *view) forRunInPlace(c *contracts.Contract, spec *contracts.LocalSpec, work *workspace, config Sandbox) (*view, error) {
	run := &view{plan: v.plan, user: v.user, inPlace: true, home: work.dir, temp: work.tmp, argsFile: work.argsFile}
	plan := &run.plan
	plan.Binds = slices.Clone(plan.Binds)
	plan.HostNetwork = spec.Network == "host"
	if err := run.showContract(c, spec, config); err != nil {
		return nil, err
	}
	for _, dir := range []string{work.dir, work.tmp} {
		plan.Binds = append(plan.Binds, sandbox.Bind{Source: dir, Write: true})
	}
	plan.Binds = append(plan.Binds, sandbox.Bind{Source: work.argsFile})
	if err := work.link(spec.CacheMounts); err != nil {
		return nil, err
	}
	if len(spec.CacheMounts) > 0 { // links, and the directories that they are in
		err := filepath.WalkDir(work.dir, func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, work.space.give(path)) })
		if err != nil {
			return nil, contracts.Errorf(contracts.EngineUnavailable, "make the directory of the run: %s", err)
		}
	}
	for _, cache := range spec.CacheMounts {
		store, err := work.space.cache(cache.Name)
		if err != nil {
			return nil, contracts.Errorf(contracts.EngineUnavailable, "make the cache %s: %s", cache.Name, err)
		}
		plan.Binds = append(plan.Binds, sandbox.Bind{Source: store, Write: true})
	}
	return run, run.carve(config.Secrets)
}

// mostParts bounds into how many parts what is shown is taken apart.
const mostParts = 2000

// carve takes apart directories that hold secrets: what else is in them is shown, each by itself, and they cannot be listed. A
// tool does not see what is put there later.
func (v *view) carve(secrets []string) error {
	inside := resolvedOf(secrets)
	binds := v.plan.Binds
	v.plan.Binds = nil
	for len(binds) > 0 {
		b := binds[0]
		binds = binds[1:]
		source, err := filepath.EvalSymlinks(b.Source)
		if err != nil || !slices.ContainsFunc(inside, func(secret string) bool { return secret != source && within(source, secret) }) {
			v.plan.Binds = append(v.plan.Binds, b)
			continue
		}
		entries, err := os.ReadDir(source)
		if err != nil || len(entries)+len(binds)+len(v.plan.Binds) > mostParts {
			return contracts.Errorf(contracts.SpawnFailed, "%s holds files of the executor that tools may not see, and cannot be shown in parts; move them, or the tool, elsewhere", b.Source)
		}
		v.parts = append(v.parts, b.At(), source)
		for _, entry := range entries {
			part := filepath.Join(source, entry.Name())
			if entry.Type()&os.ModeSymlink == 0 && !slices.Contains(inside, part) {
				binds = append(binds, sandbox.Bind{Source: part, Write: b.Write, Exact: b.Exact})
			}
		}
	}
	return nil
}

// sameElsewhere reports whether a mount is to be seen elsewhere than where it is.
func sameElsewhere(c *contracts.Contract, m contracts.Mount) bool {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(c.BaseDir, source)
	}
	return filepath.Clean(source) != filepath.Clean(m.Target)
}

// share makes the directories of runs ones that the tool's user can get to: there is no mount that would bring it there. It can
// list none of them, and nobody else gets there, whatever modes a tool gives to what is its own. An error says which directory
// above them is closed.
func (s *space) share() error {
	if s.owner < 0 {
		return nil
	}
	runs := filepath.Dir(s.dir)
	ours := []string{s.dir, runs, s.caches}
	if s.created {
		ours = append(ours, filepath.Dir(runs))
	}
	for _, dir := range ours {
		if err := s.pass(dir); err != nil {
			return err
		}
	}
	s.shared = true
	for dir := runs; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		switch {
		case int(stat.Uid) == s.owner && info.Mode()&0o100 != 0, int(stat.Uid) != s.owner && int(stat.Gid) == s.owner && info.Mode()&0o010 != 0, int(stat.Uid) != s.owner && int(stat.Gid) != s.owner && info.Mode()&0o001 != 0:
		default:
			return fmt.Errorf("the user of tools, %d, cannot get to the directories of runs through %s: run chmod o+x on it (nobody can list it by that), or set executor.data_dir to a directory that all can get to", s.owner, dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

// pass lets the group of the tools' user through a directory, which it cannot change.
func (s *space) pass(dir string) error {
	if err := os.Chown(dir, -1, s.owner); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}
