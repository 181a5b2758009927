package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
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
//	<data>/caches/<name>/             named caches, shared by all runs
type space struct {
	dir    string
	caches string
	lock   *os.File
	keep   bool
	runs   atomic.Uint64
	log    zerolog.Logger
}

const lockName = "lock"

func openSpace(config Config, log zerolog.Logger) (*space, error) {
	data, err := filepath.Abs(config.DataDir)
	if err != nil {
		return nil, err
	}
	runs := filepath.Join(data, "runs")
	s := &space{caches: filepath.Join(data, "caches"), keep: config.KeepFiles, log: log}
	for _, dir := range []string{runs, s.caches} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	reap(runs, log)
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
		os.RemoveAll(fresh)
		return nil, err
	}
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
				os.RemoveAll(dir)
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
		if err := removeTree(dir); err != nil {
			log.Warn().Err(err).Str("dir", dir).Msg("a dead executor's directory cannot be removed")
		} else {
			log.Info().Str("dir", dir).Msg("removed the directory of a dead executor")
		}
	}
}

func (s *space) writable() error { return unix.Access(s.dir, unix.W_OK) }

func (s *space) close() {
	if !s.keep {
		if err := removeTree(s.dir); err != nil {
			s.log.Warn().Err(err).Str("dir", s.dir).Msg("the directory for runs cannot be removed")
		}
	}
	s.lock.Close()
}

// workspace is the private directory of one run.
type workspace struct {
	space    *space
	root     string
	dir      string // the tool's HOME
	tmp      string // its TMPDIR
	argsFile string
}

// create makes the directories of a run, its file of arguments, and the ways to its caches.
func (s *space) create(job *engines.Job) (*workspace, error) {
	root := filepath.Join(s.dir, fmt.Sprintf("%s.%d.%d", job.ID, job.Attempt, s.runs.Add(1)))
	w := &workspace{space: s, root: root, dir: root + "/work", tmp: root + "/tmp", argsFile: root + "/args.json"}
	if err := w.fill(job); err != nil {
		w.remove()
		return nil, contracts.Errorf(contracts.EngineUnavailable, "make the directory of the run: %s", err)
	}
	return w, nil
}

func (w *workspace) fill(job *engines.Job) error {
	for _, dir := range []string{w.root, w.dir, w.tmp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	args := struct {
		Args    map[string]any `json:"args"`
		Context map[string]any `json:"context"`
	}{orEmpty(job.Args), orEmpty(job.Context)}
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.argsFile, text, 0o400); err != nil {
		return err
	}
	for _, cache := range job.Spec.Common().CacheMounts {
		if err := w.link(cache); err != nil {
			return fmt.Errorf("cache %s: %w", cache.Name, err)
		}
	}
	return nil
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// link makes a named cache appear below the tool's HOME.
func (w *workspace) link(cache contracts.CacheMount) error {
	store := filepath.Join(w.space.caches, cache.Name)
	if err := os.MkdirAll(store, 0o700); err != nil {
		return err
	}
	at := filepath.Join(w.dir, strings.TrimPrefix(cache.Path, "~/"))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	return os.Symlink(store, at)
}

// removeAfterDeath is the directory that a shim removes when the executor dies under it; "" for none.
func (w *workspace) removeAfterDeath() string {
	if w.space.keep {
		return ""
	}
	return w.root
}

// remove removes all of the run's files. Nothing of the tool runs any more.
func (w *workspace) remove() {
	if w.space.keep {
		w.space.log.Info().Str("dir", w.root).Msg("kept the files of a run")
		return
	}
	// The usual case, a tool that left nothing, needs four system calls; os.RemoveAll makes a dozen for each directory.
	unix.Unlink(w.argsFile)
	unix.Rmdir(w.dir)
	unix.Rmdir(w.tmp)
	if unix.Rmdir(w.root) == nil {
		return
	}
	if err := removeTree(w.root); err != nil {
		w.space.log.Error().Err(err).Str("dir", w.root).Msg("the files of a run cannot be removed")
	}
}

// removeTree is os.RemoveAll that also removes directories which a tool made unreadable. It follows no links.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	for tries := 0; err != nil && tries < 3; tries++ {
		filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if entry != nil && entry.IsDir() {
				os.Chmod(path, 0o700)
			}
			if err != nil && entry != nil && entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		})
		err = os.RemoveAll(dir)
	}
	return err
}
