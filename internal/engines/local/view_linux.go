package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// view is what a tool sees of the host. nil is all of it: there is no sandbox.
type view struct {
	plan sandbox.Plan
	user int // whom the tool is outside; below 0: the executor's user

	covered []string // files and directories outside that lie in what is shown, and are not

	ready                bool     // its sandboxes are made ahead, with the file of arguments
	inPlace              bool     // files are where they are on the host
	parts                []string // directories of which not all is seen, and which cannot be listed
	home, temp, argsFile string   // where a run has them, as it sees them
}

// systemView is what all tools see.
func systemView(config Sandbox, root string, user int) *view {
	v := &view{user: user, plan: sandbox.Plan{
		Root: root, User: user, WorkSize: config.WorkSize, TempSize: config.TempSize, SharedSize: config.SharedSize, FileSize: config.FileSize, OpenFiles: config.OpenFiles,
		Files: []sandbox.File{
			{Path: "/etc/passwd", Text: fmt.Sprintf("root:x:0:0:root:/:/usr/sbin/nologin\ntool:x:%d:%d:tool:%s:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n", sandbox.ID, sandbox.ID, sandbox.Home)},
			{Path: "/etc/group", Text: fmt.Sprintf("root:x:0:\ntool:x:%d:\nnogroup:x:65534:\n", sandbox.ID)},
			{Path: "/etc/nsswitch.conf", Text: "passwd: files\ngroup: files\nhosts: files dns\n"},
		},
	}}
	for _, pattern := range append(slices.Clone(SystemPaths), config.Paths...) {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue // a name that is no pattern, and is not there
		}
		for _, path := range paths {
			if engines.WithinSecret(config.Secrets, path) == "" {
				v.showSystem(path)
			}
		}
	}
	return v
}

func (v *view) showSystem(path string) {
	info, err := os.Lstat(path)
	if err != nil {
		return
	}
	if _, visible := v.outside(path); visible {
		return
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		v.plan.Binds = append(v.plan.Binds, sandbox.Bind{Source: path})
	} else if text, err := os.Readlink(path); err == nil {
		v.plan.Links = append(v.plan.Links, sandbox.Link{Path: path, Text: text})
	}
}

// hosts is the file of a sandbox with a network of its own.
const hosts = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n"

// forRun adds what one run sees; work is its directory, nil where all of that is made with the sandbox. An error says that its
// contract asks for what it may not have.
func (v *view) forRun(c *contracts.Contract, spec *contracts.LocalSpec, space *space, work *workspace, config Sandbox) (*view, error) {
	run := &view{plan: v.plan, user: v.user, ready: v.ready, home: sandbox.Home, temp: sandbox.Temp, argsFile: sandbox.ArgsFile}
	plan := &run.plan
	plan.Binds, plan.Files = slices.Clone(plan.Binds), slices.Clone(plan.Files)
	plan.HostNetwork = spec.Network == "host"
	show := func(b sandbox.Bind) { plan.Binds = append(plan.Binds, b) }
	if plan.HostNetwork {
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			if _, err := os.Stat(file); err == nil {
				show(sandbox.Bind{Source: file})
			}
		}
	} else {
		plan.Files = append(plan.Files, sandbox.File{Path: "/etc/hosts", Text: hosts})
	}
	if err := run.showContract(c, spec, config); err != nil {
		return nil, err
	}
	if plan.WorkSize == 0 {
		show(sandbox.Bind{Source: work.dir, Target: sandbox.Home, Write: true})
	}
	if !v.ready {
		show(sandbox.Bind{Source: work.argsFile, Target: sandbox.ArgsFile})
	}
	for _, cache := range spec.CacheMounts {
		at := cache.Path
		if below, home := strings.CutPrefix(at, "~/"); home {
			at = filepath.Join(sandbox.Home, below)
		}
		if err := run.free("cache_mounts", at); err != nil {
			return nil, err
		}
		store, err := space.cache(cache.Name)
		if err != nil {
			return nil, contracts.Errorf(contracts.EngineUnavailable, "make the cache %s: %s", cache.Name, err)
		}
		show(sandbox.Bind{Source: store, Target: run.follow(at), Write: true})
	}
	run.cover(config.Secrets, plan.Root)
	return run, nil
}

// showContract adds what a contract wants to be seen: its mounts and directories.
func (v *view) showContract(c *contracts.Contract, spec *contracts.LocalSpec, config Sandbox) error {
	for _, m := range spec.Mounts {
		source, writable, err := v.mountSource(c, m, config.MountRoots, config.Secrets)
		if err != nil {
			return err
		}
		v.plan.Binds = append(v.plan.Binds, sandbox.Bind{Source: source, Target: v.follow(m.Target), Write: writable, Exact: true})
	}
	dirs := []string{c.BaseDir}
	if spec.Cwd != "" && filepath.IsAbs(spec.Cwd) {
		dirs = append(dirs, spec.Cwd)
	}
	for _, dir := range dirs {
		if dir = filepath.Clean(dir); dir == "." {
			continue
		}
		if _, visible := v.outside(dir); visible {
			continue
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue // who needs it will say so
		}
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue // it went away meanwhile
		}
		if err := v.showable(c, dir, resolved, config.MountRoots, config.Secrets); err != nil {
			if c.File == "" && filepath.Clean(spec.Cwd) != dir && !startsBelow(c.BaseDir, spec) {
				continue // `executor run FILE` names the file's directory, whether the tool has anything there or not
			}
			return err
		}
		v.plan.Binds = append(v.plan.Binds, sandbox.Bind{Source: resolved, Target: v.follow(dir), Exact: true})
	}
	return nil
}

// startsBelow reports whether a tool needs the directory of its contract: something relative begins there, or it is named.
func startsBelow(base string, spec *contracts.LocalSpec) bool {
	if spec.Cwd != "" && !filepath.IsAbs(spec.Cwd) {
		return true
	}
	if argv := spec.Command.Argv; len(argv) > 0 && !spec.Shell && spec.Cwd == "" && !filepath.IsAbs(argv[0]) && strings.ContainsAny(argv[0], "/{") {
		return true // or may be, once its placeholder has a value
	}
	if strings.Contains(spec.Command.Text(), base) {
		return true
	}
	for _, value := range spec.Env {
		if strings.Contains(value, base) {
			return true
		}
	}
	return false
}

// look tells whether what is shown, and what is covered, is what it was: files are often replaced by others of the same name. A
// sandbox that was made before has the old one, or no cover over the new one.
func (v *view) look() string {
	var all []byte
	paths := slices.Clone(v.covered)
	for _, b := range v.plan.Binds {
		paths = append(paths, b.Source)
	}
	for _, path := range paths {
		// The number of a file that was removed is given to another one; the time of its birth is not.
		var s unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &s); err == nil {
			for _, n := range []uint64{uint64(s.Dev_major)<<32 | uint64(s.Dev_minor), s.Ino, uint64(s.Btime.Sec), uint64(s.Btime.Nsec)} {
				all = binary.NativeEndian.AppendUint64(all, n)
			}
		}
		all = append(all, ' ')
	}
	return string(all)
}

// reserved are directories of the sandbox that are not the host's, unless files are where they are there.
var reserved = []string{"/", "/proc", "/dev", "/run", "/etc", sandbox.Home, sandbox.Temp}

// showable says whether a contract's directory can be shown as it is called outside.
func (v *view) showable(c *contracts.Contract, dir, resolved string, roots, secrets []string) error {
	taken := slices.Contains(reserved, dir) || isKept(dir)
	switch {
	case taken && v.inPlace && dir != sandbox.Home: // else "cwd: /" would show everything
		return contracts.Errorf(contracts.SpawnFailed, "the directory %s of the contract holds more of the host than a tool in a sandbox is to see; keep tools in a directory of their own", dir)
	case taken && !v.inPlace:
		return contracts.Errorf(contracts.SpawnFailed, "the directory %s of the contract cannot be shown to a tool in a sandbox, where %s is another one; keep tools in a directory of their own", dir, dir)
	}
	if secret := engines.WithinSecret(secrets, resolved); secret != "" {
		return engines.SecretError("the directory "+dir+" of the contract", secret)
	}
	if c.File != "" { // the operator's own
		return nil
	}
	if engines.BelowRoots(roots, resolved, false) {
		return nil
	}
	return contracts.Errorf(contracts.PolicyDenied, "%s, the directory of a contract that came over the bus, is not among those that tools see on this executor; its operator can allow it by policy.mounts or execution.local.sandbox.paths", dir)
}

// mountSource is engines.MountSource, of a mount that has a place in the sandbox.
func (v *view) mountSource(c *contracts.Contract, m contracts.Mount, roots, secrets []string) (source string, writable bool, err error) {
	if source, writable, err = engines.MountSource(c, m, roots); err != nil {
		return "", false, err
	}
	if writable {
		err = engines.SecretInMount(secrets, m.Source, source, true)
	} else if secret := engines.WithinSecret(secrets, source); secret != "" {
		err = engines.SecretError("mounts: "+m.Source, secret)
	}
	if err != nil {
		return "", false, err
	}
	return source, writable, v.free("mounts", m.Target)
}

// isKept reports whether a place is in what a sandbox has of its own: the kernel's directories, in which paths lead out of all
// that is mounted, and ours.
func isKept(at string) bool {
	return within("/proc", at) || within("/dev", at) || within(sandbox.Ours, at) || within(sandbox.ArgsFile, at)
}

// free says whether something of a contract can be at a place in the sandbox.
func (v *view) free(what, target string) error {
	at := v.follow(target)
	if !v.inPlace && (slices.Contains(reserved, at) && at != sandbox.Temp || isKept(at)) {
		return contracts.Errorf(contracts.SpawnFailed, "%s: %s is in the place of something that every sandbox has; name another one, as a directory in %s, /opt or /srv", what, target, sandbox.Home)
	}
	return nil
}

// outside is where a path that the tool sees is outside. Links that the sandbox has itself are followed, others are not.
func (v *view) outside(path string) (string, bool) {
	if v == nil {
		return path, true
	}
	path = filepath.Clean(path)
	if slices.Contains(v.parts, path) {
		return path, true
	}
	path = v.follow(path)
	best, found := sandbox.Bind{}, false
	for _, b := range v.plan.Binds {
		if within(b.At(), path) && (!found || len(b.At()) >= len(best.At())) {
			best, found = b, true
		}
	}
	if !found {
		return "", false
	}
	rest, _ := filepath.Rel(best.At(), path)
	return filepath.Join(best.Source, rest), true
}

// follow is where a path leads by a link that the sandbox has itself.
func (v *view) follow(path string) string {
	for _, l := range v.plan.Links {
		if rest, ok := strings.CutPrefix(path+"/", l.Path+"/"); ok {
			text := l.Text
			if !filepath.IsAbs(text) {
				text = filepath.Join(filepath.Dir(l.Path), text)
			}
			return filepath.Join(text, rest)
		}
	}
	return path
}

func within(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// shows reports whether a file of the host is in what the tool sees.
func (v *view) shows(resolved string) bool {
	return v == nil || slices.Contains(v.parts, resolved) || slices.ContainsFunc(v.plan.Binds, func(b sandbox.Bind) bool {
		source, err := filepath.EvalSymlinks(b.Source)
		return err == nil && within(source, resolved)
	})
}

// stat looks at a file as the tool sees it, and says where it is outside.
func (v *view) stat(path string) (fs.FileInfo, string, error) {
	file, visible := v.outside(path)
	if !visible {
		if _, err := os.Stat(path); err == nil {
			return nil, "", v.unseen(path)
		}
		return nil, "", &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	info, err := os.Stat(file)
	if err == nil && v != nil {
		resolved, failed := filepath.EvalSymlinks(file)
		if failed != nil || !v.shows(resolved) {
			return nil, "", v.unseen(resolved)
		}
	}
	return info, file, err
}

var errUnseen = errors.New("tools in the sandbox do not see it; the operator can show it to them by execution.local.sandbox.paths, or a contract by mounts")

func (v *view) unseen(path string) error {
	return fmt.Errorf("%s is on this executor, but %w", path, errUnseen)
}

// mayExecute reports whether the tool's user may execute a file.
func (v *view) mayExecute(file string, info fs.FileInfo) bool {
	if v == nil || v.user < 0 {
		return unix.Access(file, unix.X_OK) == nil
	}
	return info.Mode()&0o001 != 0
}
