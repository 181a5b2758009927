package dagger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dagger/querybuilder"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// mount is one of a contract, resolved.
type mount struct {
	source   string // on the host, links followed
	target   string
	writable bool
	file     bool // not a directory
	socket   bool

	// root is the directory as it was when it was allowed, of a file the one that it lies in, name. Paths say nothing about later: a
	// tool can put a link in place of a directory on the way.
	root *os.Root
	name string
}

// mountsOf resolves the mounts of a contract. An error has the code policy_denied, or says why one cannot be copied.
// What it returns is held until closeMounts, also with an error.
func (e *Engine) mountsOf(c *contracts.Contract, spec *contracts.DaggerSpec) (list []mount, err error) {
	for _, m := range spec.Mounts {
		if source, is := e.daemon(c, m); is {
			if err := engines.SecretInMount(e.secrets, m.Source, source, false); err != nil {
				return list, err
			}
			list = append(list, mount{source: source, target: m.Target, socket: true})
			continue
		}
		source, writable, err := engines.MountSource(c, m, e.config.MountRoots)
		if err != nil {
			return list, err
		}
		if err := engines.SecretInMount(e.secrets, m.Source, source, writable); err != nil {
			return list, err
		}
		one := mount{source: source, target: m.Target, writable: writable}
		if err := one.hold(e.config.MountRoots, m.Source); err != nil {
			return list, err
		}
		list = append(list, one)
	}
	return list, nil
}

// hold opens what is mounted by way of the directory that allows it, which no link leads out of.
func (m *mount) hold(roots []string, named string) error {
	denied := func(err error) error {
		return contracts.Errorf(contracts.PolicyDenied, "mounts: %s: %s; it must be there, below a directory of policy.mounts, and stay there while the tool runs", named, rootOf(err))
	}
	for _, text := range roots {
		if !engines.BelowRoots([]string{text}, m.source, m.writable) {
			continue
		}
		dir, err := filepath.EvalSymlinks(strings.TrimSuffix(text, ":rw"))
		if err != nil {
			return denied(err)
		}
		if info, err := os.Stat(dir); err == nil && !info.IsDir() { // a file alone is allowed
			dir = filepath.Dir(dir)
		}
		below, err := filepath.Rel(dir, m.source)
		if err != nil {
			return denied(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return denied(err)
		}
		defer root.Close()
		info, err := root.Stat(below)
		switch {
		case err != nil:
			return denied(err)
		case !info.IsDir() && !info.Mode().IsRegular():
			return contracts.Errorf(contracts.Unsupported, "mounts: %s is neither a directory nor a file, and the dagger engine copies nothing else into a container", named)
		case !info.IsDir():
			m.file, m.name, below = true, filepath.Base(below), filepath.Dir(below)
		}
		if m.root, err = root.OpenRoot(below); err != nil {
			return denied(err)
		}
		return nil
	}
	return denied(errors.New("it is not below any"))
}

// moved reports whether the path of a mount leads elsewhere now. An engine takes paths, not what is held: it is asked before and
// after it has copied the files in.
func (m *mount) moved() error {
	if m.root == nil {
		return nil
	}
	dir := m.source
	if m.file {
		dir = filepath.Dir(dir)
	}
	held, err := m.root.Stat(".")
	if err != nil {
		return err
	}
	resolved, err := filepath.EvalSymlinks(m.source)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if resolved != m.source || !os.SameFile(held, info) {
		return fmt.Errorf("%s was put in place of another while the run was prepared", m.source)
	}
	return nil
}

func closeMounts(list []mount) {
	for _, m := range list {
		if m.root != nil {
			m.root.Close()
		}
	}
}

// daemon reports whether a mount is the socket of the Docker daemon, where contracts may mount that.
func (e *Engine) daemon(c *contracts.Contract, m contracts.Mount) (string, bool) {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(c.BaseDir, source)
	}
	source, err := filepath.EvalSymlinks(source)
	return source, err == nil && e.config.AllowDockerSocket && strings.HasSuffix(source, "/docker.sock") && socketThere(source)
}

// bringBack writes to the host what a tool changed in its writable mounts, and notes what cannot be written there. Where changes are
// not brought back that should have been, a tool that else succeeded has not: the error has the code internal. When ctx is done the
// error is its cause.
func (s *session) bringBack(ctx context.Context, c *container, r *ready, after, dataDir string, exit *engines.Exit) error {
	var failed []string
	for _, m := range c.mounts {
		if !m.writable {
			continue
		}
		skipped, err := s.bringBackOne(ctx, m, r, after, dataDir, c.below(m.target))
		switch {
		case err != nil:
			failed = append(failed, fmt.Sprintf("what the tool changed in %s was not or not wholly brought back to %s: %s", m.target, m.source, short(err)))
		case len(skipped) > 0:
			exit.Notes = append(exit.Notes, fmt.Sprintf("mounts: of what the tool changed in %s, these were not brought back, as they are neither files, directories nor links: %s", m.target, strings.Join(skipped[:min(5, len(skipped))], ", ")))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	text := "mounts: " + strings.Join(failed, "; ")
	if ctx.Err() == nil && exit.Code == 0 && exit.Signal == "" {
		return contracts.Errorf(contracts.Internal, "%s; see that the executor's user may write there, and that there is room", text)
	}
	exit.Notes = append(exit.Notes, text)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// bringBackOne has the engine write the changes into a fresh directory, and moves them from there to their place. The engine
// alone would follow links on the host, which a tool can make: through one, the next run would write anywhere.
func (s *session) bringBackOne(ctx context.Context, m mount, r *ready, after, dataDir string, below []string) (skipped []string, err error) {
	stage, err := os.MkdirTemp(dataDir, "dagger-changes-")
	if err != nil {
		return nil, err
	}
	defer discard(stage)
	if m.file {
		return nil, s.bringBackFile(ctx, m, r, after, filepath.Join(stage, "file"))
	}
	var before string // as it was given to the user: what has another owner counts as changed
	if err := r.box.Select("directory").Arg("path", m.target).Select("id").Bind(&before).Execute(ctx); err != nil {
		return nil, err
	}
	changes := s.inContainer(after).Select("directory").Arg("path", m.target).Select("changes").Arg("from", before)
	var what struct {
		RemovedPaths []string
		IsEmpty      bool
	}
	if err := changes.SelectFields("removedPaths", "isEmpty").Bind(&what).Execute(ctx); err != nil {
		return nil, err
	}
	if what.IsEmpty {
		return nil, nil
	}
	if err := changes.Select("layer").Select("export").Arg("path", stage).Bind(new(string)).Execute(ctx); err != nil {
		return nil, err
	}
	modes, err := loosen(stage)
	if err != nil {
		return nil, err
	}
	staged, err := os.OpenRoot(stage) // the tool's links lie in it
	if err != nil {
		return nil, err
	}
	defer staged.Close()
	for _, path := range below { // the places of other mounts, which the engine made, not the tool
		for ; path != "."; path = filepath.Dir(path) {
			if _, err := m.root.Lstat(path); err == nil || staged.Remove(path) != nil {
				break // it was there, or the tool put something into it
			}
		}
	}
	return apply(m.root, stage, modes, what.RemovedPaths)
}

// loosen lets its owner, who need not be root, read and remove all of a stage, whatever modes the tool gave. It returns those that it
// changed.
func loosen(stage string) (modes map[string]fs.FileMode, err error) {
	modes = map[string]fs.FileMode{}
	err = filepath.WalkDir(stage, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		least := fs.FileMode(0o400)
		switch {
		case d.IsDir():
			least = 0o700
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&least != least {
			modes[file] = mode
			return os.Chmod(file, mode|least) // of a directory before what is in it is read
		}
		return nil
	})
	return modes, err
}

// discard removes a stage.
func discard(stage string) {
	if os.RemoveAll(stage) != nil {
		_, _ = loosen(stage)
		_ = os.RemoveAll(stage) // what is left, the next executor removes
	}
}

// bringBackFile brings back a file that is mounted alone. One that the tool left as it was stays as it is now: somebody may have
// changed it meanwhile.
func (s *session) bringBackFile(ctx context.Context, m mount, r *ready, after, staged string) error {
	var sums [2]string
	file := s.inContainer(after).Select("file").Arg("path", m.target)
	for i, one := range []*querybuilder.Selection{r.box.Select("file").Arg("path", m.target), file} {
		if err := one.Select("digest").Arg("excludeMetadata", true).Bind(&sums[i]).Execute(ctx); err != nil {
			return err
		}
	}
	if sums[0] == sums[1] {
		return nil
	}
	if err := file.Select("export").Arg("path", staged).Bind(new(string)).Execute(ctx); err != nil {
		return err
	}
	if _, err := loosen(staged); err != nil {
		return err
	}
	return replaceFile(m.root, m.name, staged)
}

// below lists what else is mounted below a place, relative to it.
func (c *container) below(target string) (paths []string) {
	add := func(path string) {
		if rest, is := strings.CutPrefix(path, target+"/"); is {
			paths = append(paths, rest)
		}
	}
	for _, m := range c.mounts {
		add(m.target)
	}
	for _, cache := range c.spec.CacheMounts {
		add(home(cache.Path))
	}
	for path := range c.spec.Tmpfs {
		add(path)
	}
	return paths
}

// inContainer begins a query about a container that is there.
func (s *session) inContainer(id string) *querybuilder.Selection {
	return s.root().Select("node").Arg("id", id).InlineFragment("Container")
}

// apply makes a directory of the host as the changes say. It never leaves the directory, whatever links there are. What is removed
// goes last: where something cannot be written, as on a full disk, nothing is lost. Modes of directories come after all that is written
// into them, which they may forbid. modes are those that loosen returned.
func apply(root *os.Root, stage string, modes map[string]fs.FileMode, removed []string) (skipped []string, err error) {
	type mode struct {
		path string
		mode fs.FileMode
	}
	var dirs []mode // each before those in it
	err = filepath.WalkDir(stage, func(file string, d fs.DirEntry, err error) error {
		path, relErr := filepath.Rel(stage, file)
		if err = errors.Join(err, relErr); err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		perm, is := modes[file]
		if !is {
			perm = info.Mode().Perm()
		}
		there, err := root.Lstat(path)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err == nil && (there.Mode().Type() != info.Mode().Type() || info.Mode()&fs.ModeSymlink != 0):
			if err := removeIn(root, path); err != nil {
				return err
			}
			there = nil
		case err != nil:
			there = nil
		}
		switch {
		case info.IsDir():
			if there == nil {
				if err := root.Mkdir(path, 0o700); err != nil {
					return err
				}
			}
			dirs = append(dirs, mode{path, perm})
			return nil
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return root.Symlink(to, path)
		case info.Mode().IsRegular():
			return replaceIn(root, path, file, perm)
		}
		skipped = append(skipped, path)
		return nil
	})
	if err != nil {
		return skipped, err
	}
	for _, path := range removed {
		path = filepath.Clean(strings.Trim(path, "/"))
		if path == "." || replaced(stage, path) {
			continue
		}
		if err := removeIn(root, path); err != nil {
			return skipped, err
		}
	}
	for _, dir := range slices.Backward(dirs) {
		there, err := root.Lstat(dir.path)
		if err != nil {
			return skipped, err
		}
		if there.Mode().Perm() == dir.mode {
			continue // who may write into a directory need not own it
		}
		kept := there.Mode() & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky) // the host's, which no tool is asked about
		if err := root.Chmod(dir.path, dir.mode|kept); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// replaced reports whether something else was put in place of a removed path, or of a directory that it was in: then it is gone
// already, and what lies there now is to stay.
func replaced(stage, path string) bool {
	if _, err := os.Lstat(filepath.Join(stage, path)); err == nil {
		return true
	}
	for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
		if info, err := os.Lstat(filepath.Join(stage, dir)); err == nil && !info.IsDir() {
			return true
		}
	}
	return false
}

// removeIn removes what is there, if anything.
func removeIn(root *os.Root, path string) error {
	err := root.RemoveAll(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replaceIn puts a file in its place, whole at once.
func replaceIn(root *os.Root, path, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	next := filepath.Join(filepath.Dir(path), ".executor-"+newTrace().String())
	out, err := root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(mode)
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = root.Rename(next, path)
	}
	if err != nil {
		_ = root.Remove(next) // the first error is what counts
	}
	return err
}

// replaceFile puts a file in place of another.
func replaceFile(root *os.Root, name, from string) error {
	info, err := root.Stat(name)
	if err != nil {
		return err
	}
	return replaceIn(root, name, from, info.Mode().Perm())
}
