package local

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeTree removes a directory with all in it, whatever a tool left there. os.RemoveAll does not get into directories
// that their owner may not read or write, and holds a descriptor for each level: a chain of directories as deep as the
// limit of open files stops it, and every other run with it. It follows no links. What can be removed is; an error is the
// first one.
func removeTree(dir string) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer unix.Close(parent)
	var r remover
	r.remove(parent, filepath.Base(dir), 0)
	if r.failed != nil {
		return &os.PathError{Op: "remove", Path: dir, Err: r.failed}
	}
	return nil
}

// deepest is how many levels removeTree goes down. What lies deeper is moved up first.
const deepest = 100

type remover struct {
	top    int // descriptor of the directory that is removed
	moved  int
	failed error
}

func (r *remover) fail(err error) {
	if r.failed == nil {
		r.failed = err
	}
}

// remove removes one entry of a directory, and reports whether it is gone from there.
func (r *remover) remove(parent int, name string, depth int) bool {
	switch err := unix.Unlinkat(parent, name, 0); err {
	case nil, unix.ENOENT:
		return true
	case unix.EISDIR:
	default:
		r.fail(err)
		return false
	}
	if unix.Unlinkat(parent, name, unix.AT_REMOVEDIR) == nil {
		return true
	}
	// To look into a directory, to empty it and to move it takes all rights of its owner.
	err := unix.Fchmodat(parent, name, 0o700, 0)
	if err == nil && depth == deepest {
		if err = r.moveUp(parent, name); err == nil {
			return true
		}
	}
	fd := -1
	if err == nil {
		fd, err = unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		if depth == 0 {
			r.top = fd
		}
		r.empty(fd, depth+1)
		err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		r.fail(err)
	}
	return err == nil
}

// moveUp moves a directory to the top, where it will be found later.
func (r *remover) moveUp(parent int, name string) error {
	for {
		r.moved++
		err := unix.Renameat(parent, name, r.top, ".to-be-removed-"+strconv.Itoa(r.moved))
		switch err {
		case unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST: // the tool was so kind as to use that name
		default:
			return err
		}
	}
}

// empty removes all entries of a directory, and closes it.
func (r *remover) empty(fd, depth int) {
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	for progress := true; progress; {
		// A part at a time: there may be millions. It begins anew each time, because file systems differ in what a
		// position means after entries were removed.
		progress = false
		_, err := dir.Seek(0, io.SeekStart)
		if err != nil {
			r.fail(err)
			return
		}
		names, err := dir.Readdirnames(1024)
		if err != nil && !errors.Is(err, io.EOF) {
			r.fail(err)
		}
		for _, name := range names {
			progress = r.remove(fd, name, depth) || progress
		}
	}
}
