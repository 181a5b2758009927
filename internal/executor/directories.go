package executor

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// directory is one that the operator named, and what was read there.
type directory struct {
	path  string
	files []*contractFile // in the order in which they are read
	inner []string        // directories in it that hold or may hold contracts, itself first
	err   error           // it cannot be read now; files are those that it had before
}

// contractFile is a file of contracts as it was read last.
type contractFile struct {
	path string
	info fs.FileInfo
	at   time.Time // when it was read
	sum  [sha256.Size]byte
	list []*contracts.Contract // of the last reading that was right
	err  error                 // of the last reading

	missed time.Time // since when it is not found; zero: it is there
}

// loaded is what a file gives to the registry; a directory that cannot be read is one without contracts.
type loaded struct {
	path   string
	list   []*contracts.Contract
	err    error
	absent bool // the file is not found now
}

// settled is the age from which on a file with the same time and size is taken to be the same: file systems count time in
// steps, some in steps of 2 s, and a second change within one step cannot be seen.
const settled = 3 * time.Second

// vanished is how long a file must be missing until it is taken to be deleted: some editors, and some who copy directories,
// take the old one away before they put the new one there.
const vanished = 500 * time.Millisecond

// scan reads what has changed in the directories. It reports whether anything has, and whether it has to be called soon
// again. reading is held.
func (r *Registry) scan() (changed, soon bool) {
	var found, absent []loaded
	for _, d := range r.directories {
		c, s := d.scan()
		changed, soon = changed || c, soon || s
		if d.err != nil {
			found = append(found, loaded{path: d.path, err: d.err})
		}
		for _, f := range d.files {
			if f.missed.IsZero() {
				found = append(found, loaded{path: f.path, list: f.list, err: f.err})
			} else {
				absent = append(absent, loaded{path: f.path, list: f.list, absent: true})
			}
		}
	}
	r.mu.Lock()
	r.loaded = slices.Concat(found, absent) // what was only moved is found first
	r.mu.Unlock()
	return changed, soon
}

func (d *directory) scan() (changed, soon bool) {
	known := map[string]*contractFile{}
	for _, f := range d.files {
		known[f.path] = f
	}
	paths, inner, err := walk(d.path)
	changed = fmt.Sprint(err) != fmt.Sprint(d.err)
	d.err, d.inner = err, inner
	var files []*contractFile
	for _, path := range paths {
		f := known[path]
		if f == nil {
			f = &contractFile{path: path}
		}
		was, missed := fmt.Sprint(f.err), f.missed
		again, gone := f.read()
		if gone {
			continue
		}
		changed = changed || again || was != fmt.Sprint(f.err) || known[path] == nil || !missed.IsZero()
		f.missed = time.Time{}
		delete(known, path)
		files = append(files, f)
	}
	for _, f := range d.files {
		if known[f.path] == nil {
			continue
		}
		if f.missed.IsZero() {
			f.missed = time.Now()
			changed = true
		}
		switch {
		case err != nil: // it may be there
			f.missed = time.Now()
			files = append(files, f)
		case time.Since(f.missed) < vanished:
			soon = true
			files = append(files, f)
		default:
			changed = true
		}
	}
	d.files = files
	return changed, soon
}

// read reads a file again if it may have changed. It reports whether its contracts are others now, and whether the file is
// not there. What was read before stays where the file is wrong.
func (f *contractFile) read() (changed, gone bool) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
			return false, true
		}
	}
	if err != nil {
		f.info, f.err = nil, fmt.Errorf("%s: %w", f.path, err)
		return false, false
	}
	if f.info != nil && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) && os.SameFile(f.info, info) && f.at.Sub(info.ModTime()) > settled {
		return false, false
	}
	if !info.Mode().IsRegular() { // to read a pipe takes until somebody writes
		f.info, f.err = nil, fmt.Errorf("%s: is no file", f.path)
		return false, false
	}
	now := time.Now()
	text, err := os.ReadFile(f.path)
	if err != nil {
		f.info, f.err = nil, err
		return false, false
	}
	sum := sha256.Sum256(text)
	if f.info != nil && sum == f.sum {
		f.info, f.at = info, now
		return false, false
	}
	f.info, f.at, f.sum = info, now, sum
	list, err := contracts.ParseFile(f.path, text)
	if f.err = err; err != nil {
		return false, false
	}
	f.list = list
	return true, false
}

// ContractFiles lists the files of a directory that hold contracts: every .yaml, .yml and .json file in the directory
// itself, and below it those named contract.yaml or ending in .contract.yaml (.yml, .json alike), because the folder of
// a tool has other files as well. Names that begin with a dot are passed over, and links to directories followed where
// they lead to a place in the directory.
func ContractFiles(dir string) ([]string, error) {
	files, _, err := walk(dir)
	return files, err
}

// walk lists the files that count as contracts, and the directories in which there may be some.
func walk(root string) (files, inner []string, err error) {
	resolved, err := filepath.EvalSymlinks(root)
	w := walker{root: root, resolved: resolved, seen: map[string]bool{}}
	if err == nil {
		err = w.walk(root, resolved)
	}
	// Links last: a directory that is there by its own name as well is known by that.
	for len(w.links) > 0 && err == nil {
		link := w.links[0]
		w.links = w.links[1:]
		err = w.walk(link.path, link.resolved)
	}
	if err != nil {
		err = fmt.Errorf("read the contracts in %s: %w", root, err)
	}
	return w.files, w.inner, err
}

type walker struct {
	root, resolved string
	seen           map[string]bool // directories, by their names without links
	links          []link
	files, inner   []string
}

type link struct{ path, resolved string }

func (w *walker) walk(dir, resolved string) error {
	if w.seen[resolved] {
		return nil
	}
	w.seen[resolved] = true
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != w.root {
		return nil // it has just been removed
	}
	if err != nil {
		return err
	}
	w.inner = append(w.inner, dir)
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		isDir := entry.IsDir()
		if entry.Type()&fs.ModeSymlink != 0 {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				isDir = true
			}
		}
		switch {
		case isDir && strings.HasPrefix(entry.Name(), "."):
		case entry.IsDir():
			if err := w.walk(path, filepath.Join(resolved, entry.Name())); err != nil {
				return err
			}
		case isDir:
			// A link that leads elsewhere could lead to all of the file system.
			to, err := filepath.EvalSymlinks(path)
			if err != nil {
				continue
			}
			if below, err := filepath.Rel(w.resolved, to); err == nil && filepath.IsLocal(below) {
				w.links = append(w.links, link{path, to})
			}
		case w.isContract(path):
			w.files = append(w.files, path)
		}
	}
	return nil
}

func (w *walker) isContract(path string) bool {
	if !contractExtension(path) {
		return false
	}
	stem := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	return filepath.Dir(path) == filepath.Clean(w.root) || stem == "contract" || strings.HasSuffix(stem, ".contract")
}

func contractExtension(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".yaml" || ext == ".yml" || ext == ".json"
}
