package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// look is all about a file or directory that a run could change and the next would find, but for the content of the file
// of arguments, which is written anew for each.
//
// Anything done in a directory or to it, a change of its attributes included, changes its ctime, which nobody can set.
// Kernels before 6.13 count that in ticks of some milliseconds, in which much can happen; there the rest is compared, too.
type look struct {
	inode   uint64
	changed unix.Timespec

	mode, uid, gid uint32
	links          uint64
	extended       int // bytes of the names of extended attributes
	flags          int // as chattr sets them
	entries        int // of a directory
}

// untouched reports whether a workspace is as it was given to its run, so that nothing of that can reach the next.
func (w *workspace) untouched() bool {
	now, err := w.look()
	return err == nil && now == w.looks && !w.spoiled
}

// look looks at all that a workspace is made of.
func (w *workspace) look() (all [4]look, err error) {
	for i, dir := range []string{w.root, w.dir, w.tmp} {
		if all[i], err = lookAt(dir, w.space.exact); err != nil {
			return all, err
		}
	}
	all[3], err = w.lookAtArgs()
	return all, err
}

func (w *workspace) lookAtArgs() (look, error) {
	l, err := lookAt(w.argsFile, w.space.exact)
	if !w.space.exact {
		l.changed = unix.Timespec{} // it is written just before the run
	}
	return l, err
}

func lookAt(path string, exact bool) (l look, err error) {
	var stat unix.Stat_t
	if exact {
		err = unix.Lstat(path, &stat)
		return look{inode: stat.Ino, changed: stat.Ctim}, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return l, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Fstat(fd, &stat); err != nil {
		return l, err
	}
	l = look{inode: stat.Ino, changed: stat.Ctim, mode: stat.Mode, uid: stat.Uid, gid: stat.Gid, links: uint64(stat.Nlink)} //nolint:unconvert // 32 bits wide on arm64
	// A file system that does not know one of the next has none that could be changed.
	l.extended, _ = unix.Flistxattr(fd, nil)
	l.flags, _ = unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		names, err := f.Readdirnames(8) // more than there are
		if err != nil && len(names) > 0 {
			return l, err
		}
		l.entries = len(names)
	}
	return l, nil
}

// exactTimes finds out whether the times of files tell two changes apart that follow each other at once.
func exactTimes(dir string) bool {
	for range 3 {
		before, err := lookAt(dir, true)
		if err != nil || os.Chmod(dir, 0o700) != nil {
			return false
		}
		if after, err := lookAt(dir, true); err != nil || after == before {
			return false
		}
	}
	return true
}
