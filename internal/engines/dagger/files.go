package dagger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// files is a directory of one engine, in which runs have theirs. Its lock says that its executor lives: what others left behind
// that were killed is removed.
type files struct {
	dir  string
	lock *os.File
}

const filesPrefix = "executor-"

// claim makes a directory of our own below parent, and removes those that nobody holds any more.
func claim(parent string) (*files, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	var f *files
	err := errHeld
	for attempt := 0; attempt < 5 && errors.Is(err, errHeld); attempt++ { // somebody may try it just when it is made
		f = &files{dir: filepath.Join(parent, filesPrefix+newTrace().String())}
		f.lock, err = hold(f.dir + ".lock")
	}
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		f.close()
		return nil, err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		f.close()
		return nil, err
	}
	for _, e := range entries {
		name, is := strings.CutSuffix(e.Name(), ".lock")
		if !is || !strings.HasPrefix(name, filesPrefix) || filepath.Join(parent, name) == f.dir {
			continue
		}
		dead := &files{dir: filepath.Join(parent, name)}
		if dead.lock, err = hold(dead.dir + ".lock"); err == nil {
			dead.close()
		} // else it lives, or is of another user, who removes it
	}
	return f, nil
}

// close removes the directory. The lock goes last: who finds it free finds nothing else.
func (f *files) close() {
	_ = os.RemoveAll(f.dir) // what is left, the next executor removes
	_ = os.Remove(f.lock.Name())
	_ = f.lock.Close()
}

var errHeld = errors.New("somebody else holds it")
