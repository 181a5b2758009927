package daggertest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// copyTree copies a directory or file, links as links.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(from, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		return copyOne(path, filepath.Join(to, below), info)
	})
}

func copyOne(from, to string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, info.Mode().Perm()))
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case info.Mode().IsRegular():
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o600), os.Chmod(to, info.Mode().Perm()))
	}
	return nil // an engine keeps others too; tests do not need them
}

// difference lists what is in after and not the same in before, and what is gone.
func difference(before, after string) (changed, removed []string, err error) {
	err = filepath.WalkDir(after, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(after, path)
		if below != "." && !same(filepath.Join(before, below), path) {
			changed = append(changed, below)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = filepath.WalkDir(before, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(before, path)
		if _, err := os.Lstat(filepath.Join(after, below)); errors.Is(err, fs.ErrNotExist) {
			if d.IsDir() {
				removed = append(removed, below+"/")
				return fs.SkipDir
			}
			removed = append(removed, below)
		}
		return nil
	})
	slices.Sort(changed)
	return changed, removed, err
}

func same(a, b string) bool {
	one, err := os.Lstat(a)
	if err != nil {
		return false
	}
	other, err := os.Lstat(b)
	if err != nil || one.Mode() != other.Mode() {
		return false
	}
	switch {
	case one.IsDir():
		return true
	case one.Mode()&fs.ModeSymlink != 0:
		x, _ := os.Readlink(a)
		y, _ := os.Readlink(b)
		return x == y
	}
	x, errX := os.ReadFile(a)
	y, errY := os.ReadFile(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
