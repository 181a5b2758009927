package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// space is where one executor keeps the directories of its runs:
//
//	<data>/runs/<executor>/lock       held while the executor lives
//	<data>/runs/<executor>/<run>/     one run: work (its HOME, and cwd where it names none), tmp, args.json
//	<data>/runs/<executor>/root       empty: where sandboxes mount their root
//	<data>/caches/<name>/             named caches, shared by all runs; caches-<user> where tools have a user of their own,
//	                                  and caches-unsandboxed where there is no sandbox
//
// Making and removing directories is most of what a short run costs on some file systems. They are made ahead, and those
// that a run did not touch at all serve the next one; untouched_linux.go has how that is known.
type space struct {
	dir     string
	caches  string
	lock    *os.File
	keep    bool
	exact   bool   // file times tell any two changes apart
	created bool   // DataDir was not there before
	shared  bool   // the user of tools gets to their directories from outside
	root    string // an empty directory, on which sandboxes mount their root; each sees only its own
	owner   int    // whose the directories of runs and caches are; below 0: the executor's user's
	log     zerolog.Logger

	mu     sync.Mutex
	made   int
	inUse  int
	wanted int // how many runs there were at a time
	ahead  []*workspace
	filler sync.WaitGroup
	closed bool
}

// mostAhead bounds the workspaces that wait for a run.
const mostAhead = 64

const (
	lockName = "lock"
	rootName = "root"
)

func openSpace(config Config, log zerolog.Logger) (*space, error) {
	data, err := filepath.Abs(config.DataDir)
	if err != nil {
		return nil, err
	}
	runs := filepath.Join(data, "runs")
	s := &space{caches: filepath.Join(data, bareCaches), keep: config.KeepFiles, log: log, owner: -1}
	_, err = os.Stat(data)
	s.created = errors.Is(err, os.ErrNotExist)
	for _, dir := range []string{runs, s.caches} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if !s.keep {
		reap(runs, log)
	}
	// The name is not known to anybody before the lock is held: made under another name, then renamed.
	s.dir = filepath.Join(runs, fmt.Sprintf("%d-%s", os.Getpid(), strconv.FormatInt(time.Now().UnixNano(), 36)))
	fresh := filepath.Join(runs, "."+filepath.Base(s.dir))
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = os.OpenFile(filepath.Join(fresh, lockName), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(fresh, s.dir)
	}
	if err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		_ = removeTree(fresh) // the error that counts is the first
		return nil, err
	}
	s.exact = exactTimes(s.dir)
	return s, nil
}

// reap removes what executors left whose lock nobody holds any more.
func reap(runs string, log zerolog.Logger) {
	entries, err := os.ReadDir(runs)
	if err != nil {
		return
	}
	for _, entry := range entries {
		dir := filepath.Join(runs, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			// Half made: by somebody who makes it now, or who died at it. Only age tells.
			if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
				_ = removeTree(dir) // else the next executor removes it
			}
			continue
		}
		lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			defer lock.Close()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			continue // its executor lives
		}
		killThoseOf(dir)
		if err := removeTree(dir); err != nil {
			log.Warn().Err(err).Str("dir", dir).Msg("a dead executor's directory cannot be removed")
		} else {
			log.Info().Str("dir", dir).Msg("removed the directory of a dead executor")
		}
	}
}

// sandboxed makes the directories serve tools in sandboxes, which are that user outside; below 0: the executor's own.
func (s *space) sandboxed(user int) error {
	s.root, s.owner = filepath.Join(s.dir, rootName), user
	caches := "caches"
	if user >= 0 {
		caches = fmt.Sprintf("caches-%d", user) // files of one user are of no use to the other
	}
	s.caches = filepath.Join(filepath.Dir(s.caches), caches)
	if err := os.MkdirAll(s.caches, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(s.root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// ordinary takes back what sandboxed did, with the workspaces that are ready for it.
func (s *space) ordinary() {
	s.filler.Wait()
	s.mu.Lock()
	ready := s.ahead
	s.ahead, s.owner, s.shared, s.caches = nil, -1, false, filepath.Join(filepath.Dir(s.caches), bareCaches)
	s.mu.Unlock()
	for _, w := range ready {
		w.destroy()
	}
}

// give makes a file or directory that of tools.
func (s *space) give(path string) error {
	if s.owner < 0 {
		return nil
	}
	return os.Lchown(path, s.owner, s.owner)
}

// cache is the directory of a named cache.
func (s *space) cache(name string) (string, error) {
	store := filepath.Join(s.caches, name)
	err := os.Mkdir(store, 0o700)
	if errors.Is(err, os.ErrExist) {
		return store, reopen(store)
	}
	if err == nil {
		err = s.give(store)
	}
	return store, err
}

// reopen gives the directory of a cache the mode back that it was made with: where there is no view of files that differs from the
// host's, every tool can change it, because all have one user. What is no directory, as a link that the operator made, stays as it is.
func reopen(store string) error {
	info, err := os.Lstat(store)
	if err != nil || !info.IsDir() || info.Mode().Perm() == 0o700 {
		return err
	}
	fd, err := unix.Open(store, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) // takes no right to read it
	if err != nil {
		return &os.PathError{Op: "open", Path: store, Err: err}
	}
	defer unix.Close(fd)
	if err := os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o700); !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil // it is somebody else's, whose mode no tool can have changed
}

func (s *space) writable() error { return unix.Access(s.dir, unix.W_OK) }

func (s *space) close() {
	s.mu.Lock()
	s.closed = true
	for _, w := range s.ahead {
		w.args.Close()
	}
	s.ahead = nil
	s.mu.Unlock()
	s.filler.Wait()
	if !s.keep {
		if err := removeTree(s.dir); err != nil {
			s.log.Warn().Err(err).Str("dir", s.dir).Msg("the directory for runs cannot be removed")
		}
	}
	s.lock.Close()
}

// workspace is the private directory of one run.
type workspace struct {
	id       string // of the run that has it, or had it last
	space    *space
	root     string
	dir      string // the tool's HOME
	tmp      string // its TMPDIR
	argsFile string
	args     *os.File // opened for writing, which its mode allows nobody later
	looks    [4]look  // of root, dir, tmp and args, when they were given to the run
	spoiled  bool     // not for another run, however it looks: something may still run there, or it could not be filled
}

// create gives a run its directories, the file of its arguments, and the ways to its caches.
func (s *space) create(job *engines.Job) (*workspace, error) {
	w, err := s.take()
	if err == nil {
		w.id = job.ID
		if err = w.fill(job); err != nil {
			w.spoiled = true
			w.remove()
		}
	}
	if err != nil {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "make the directory of the run: %s", err)
	}
	return w, nil
}

// take returns a workspace that was made ahead, or makes one. Tools without a view of files of their own can change modes of those
// that wait.
func (s *space) take() (*workspace, error) {
	s.mu.Lock()
	s.inUse++
	s.wanted = max(s.wanted, s.inUse)
	for len(s.ahead) > 0 { // the last used, of which most is at hand
		n := len(s.ahead)
		w := s.ahead[n-1]
		s.ahead = s.ahead[:n-1]
		s.mu.Unlock()
		if w.untouched() {
			return w, nil
		}
		s.log.Warn().Str("dir", w.root).Msg("a tool changed a directory that waits for another run; it is not used")
		w.destroy()
		s.mu.Lock()
	}
	s.mu.Unlock()
	w, err := s.make()
	if err != nil {
		s.mu.Lock()
		s.inUse--
		s.mu.Unlock()
	}
	return w, err
}

// make makes a workspace for nobody yet.
func (s *space) make() (*workspace, error) {
	s.mu.Lock()
	s.made++
	root := filepath.Join(s.dir, strconv.Itoa(s.made))
	s.mu.Unlock()
	w := &workspace{space: s, root: root, dir: root + "/work", tmp: root + "/tmp", argsFile: root + "/args.json"}
	for _, dir := range []string{w.root, w.dir, w.tmp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			_ = removeTree(root) // else the next executor removes it
			return nil, err
		}
	}
	var err error
	if w.args, err = os.OpenFile(w.argsFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400); err != nil {
		_ = removeTree(root) // else the next executor removes it
		return nil, err
	}
	if s.shared {
		err = s.pass(root)
	}
	for _, path := range []string{w.dir, w.tmp, w.argsFile} {
		if err != nil {
			break
		}
		err = s.give(path)
	}
	if err == nil {
		w.looks, err = w.look()
	}
	if err != nil {
		w.destroy()
		return nil, err
	}
	return w, nil
}

func (w *workspace) fill(job *engines.Job) error {
	text, err := job.ArgsText()
	if err != nil {
		return err
	}
	if err := w.args.Truncate(int64(len(text))); err != nil {
		return err
	}
	if _, err := w.args.WriteAt(text, 0); err != nil {
		return err
	}
	w.looks[3], err = w.lookAtArgs()
	return err
}

// link makes named caches appear below the HOME of a tool without a sandbox.
func (w *workspace) link(caches contracts.CacheMounts) error {
	for _, cache := range caches {
		store, err := w.space.cache(cache.Name)
		if err == nil {
			at := filepath.Join(w.dir, strings.TrimPrefix(cache.Path, "~/"))
			if err = os.MkdirAll(filepath.Dir(at), 0o700); err == nil {
				err = os.Symlink(store, at)
			}
		}
		if err != nil {
			return contracts.Errorf(contracts.EngineUnavailable, "make the directory of the run: cache %s: %s", cache.Name, err)
		}
	}
	return nil
}

// removeAfterDeath is the directory that a shim removes when the executor dies under it; "" for none.
func (w *workspace) removeAfterDeath() string {
	if w.space.keep {
		return ""
	}
	return w.root
}

// remove ends the use of a workspace: its files are removed, or it was not touched and waits for the next run. Nothing of
// the tool runs any more.
func (w *workspace) remove() {
	s := w.space
	if s.keep {
		w.args.Close()
		s.log.Info().Str("id", w.id).Str("dir", w.root).Msg("kept the files of a run")
		return
	}
	// What the run was given is not kept until the next. One byte is, the "{" of all: a file that was once made empty is
	// written to the disk by ext4 when it is closed, which takes longer than the rest of the run.
	untouched := w.untouched() && w.args.Truncate(1) == nil
	if untouched {
		var err error
		w.looks[3], err = w.lookAtArgs()
		untouched = err == nil
	}
	s.mu.Lock()
	s.inUse--
	if untouched && !s.closed && len(s.ahead) < min(s.wanted, mostAhead) {
		s.ahead = append(s.ahead, w)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	w.destroy()
	s.refill()
}

func (w *workspace) destroy() {
	w.args.Close()
	// A tool that left nothing needs four system calls; os.RemoveAll makes a dozen for each directory.
	unix.Unlink(w.argsFile)
	unix.Rmdir(w.dir)
	unix.Rmdir(w.tmp)
	if unix.Rmdir(w.root) == nil {
		return
	}
	if err := removeTree(w.root); err != nil {
		w.space.log.Error().Err(err).Str("id", w.id).Str("dir", w.root).Msg("the files of a run cannot be removed")
	}
}

// refill makes workspaces ahead, as many as there were runs at a time.
func (s *space) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.ahead) >= min(s.wanted, mostAhead) {
		return
	}
	s.filler.Go(func() {
		w, err := s.make()
		if err != nil {
			return // the run that needs it will say so
		}
		s.mu.Lock()
		if s.closed || len(s.ahead) >= min(s.wanted, mostAhead) {
			s.mu.Unlock()
			w.destroy()
			return
		}
		s.ahead = append(s.ahead, w)
		s.mu.Unlock()
	})
}
