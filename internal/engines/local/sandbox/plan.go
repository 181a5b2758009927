//go:build linux

// Package sandbox starts programs in namespaces of their own, without any other program and without cgo.
//
//	plan.go       what a sandbox is like, and how that crosses to the process that makes it
//	calls.go      a list of system calls, and the process that makes them
//	room.go       memory by which it gets more of them later
//	namespaces.go the list that makes a sandbox
//	seccomp.go    the filter of system calls that tools live with
//	start.go      starts a sandbox, and hears from it
//	limits.go     what bounds each process of a tool
//	spawn.go      starts a tool that has no first process of ours above it:
//	enter.go      in namespaces that another program has made
//	hold.go       what that program executes in them
//	landlock.go   in those of the host, with fewer rights
//
// A sandbox is a process that was forked and never executes another program: it makes the system calls of a list that was
// written before the fork, is then the first process of its pid namespace, starts the tool and collects orphans. No helper
// has to be executed, which would cost more than all of the rest, and nothing of Go's runtime is used in it.
package sandbox

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Where tools find what is made for them.
const (
	Home     = "/work"          // HOME, and the working directory of a tool whose contract names none
	Temp     = "/tmp"           // TMPDIR
	ArgsFile = "/run/args.json" // ARGS_FILE
	ID       = 1000             // user and group, as the tool sees them
)

// Plan is what one sandbox is like.
type Plan struct {
	Root        string // an empty directory outside, on which the root is mounted; nobody else sees that
	HostNetwork bool   // the network of the host, not one of its own with nothing but lo
	User        int    // whom the tool is outside, user and group; below 0: whoever starts it, which takes no rights

	Binds []Bind
	Links []Link
	Files []File

	WorkSize   int64 // bytes of /work, which is empty; 0: it is a bind
	TempSize   int64 // bytes of /tmp
	SharedSize int64 // bytes of /dev/shm
	FileSize   int64 // bytes of the largest file; 0: no bound
	OpenFiles  int64 // descriptors of a process
	Processes  int64 // processes and threads, the first one included; 0: no bound
	Data       int64 // bytes that a process may have of its own and write to; 0: no bound
}

// Bind makes a file or directory from outside visible.
type Bind struct {
	Source string
	Target string // absolute; "": the same
	Write  bool
	Exact  bool // the source holds no symbolic links: if it does when it is opened, somebody has just put them there
}

// Link is a symbolic link.
type Link struct{ Path, Text string }

// File is a small file that is made for the sandbox.
type File struct{ Path, Text string }

// At is where a bind is inside.
func (b Bind) At() string {
	if b.Target == "" {
		return b.Source
	}
	return b.Target
}

// Sorted are the binds as they are made: what is inside of another one comes later.
func (p *Plan) Sorted() []Bind {
	binds := slices.Clone(p.Binds)
	slices.SortStableFunc(binds, func(a, b Bind) int { return strings.Compare(a.At(), b.At()) })
	return binds
}

// Inside reports whether a bind is in the place of another one.
func (p *Plan) Inside(b Bind) bool {
	return slices.ContainsFunc(p.Binds, func(other Bind) bool {
		return strings.HasPrefix(b.At(), strings.TrimSuffix(other.At(), "/")+"/")
	})
}

// Aside is where another program mounts what is inside of another bind, by its number among these: Enter puts it where it belongs.
func Aside(n int) string { return Ours + "/" + strconv.Itoa(n) }

// Encode writes a plan as strings, which may hold any bytes.
func (p *Plan) Encode() []string {
	flag := func(b bool) string {
		if b {
			return "y"
		}
		return ""
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	list := []string{p.Root, flag(p.HostNetwork), number(int64(p.User)), number(p.WorkSize), number(p.TempSize), number(p.SharedSize), number(p.FileSize), number(p.OpenFiles), number(p.Processes), number(p.Data),
		number(int64(len(p.Binds))), number(int64(len(p.Links))), number(int64(len(p.Files)))}
	for _, b := range p.Binds {
		list = append(list, b.Source, b.Target, flag(b.Write), flag(b.Exact))
	}
	for _, l := range p.Links {
		list = append(list, l.Path, l.Text)
	}
	for _, f := range p.Files {
		list = append(list, f.Path, f.Text)
	}
	return list
}

var errBroken = errors.New("a broken plan")

// Decode reads what Encode wrote.
func Decode(list []string) (*Plan, error) {
	wrong := false
	next := func() string {
		if len(list) == 0 {
			wrong = true
			return ""
		}
		s := list[0]
		list = list[1:]
		return s
	}
	number := func() int64 {
		n, err := strconv.ParseInt(next(), 10, 64)
		wrong = wrong || err != nil
		return n
	}
	count := func() int {
		n := number()
		if n < 0 || n > int64(len(list)) {
			wrong = true
			return 0
		}
		return int(n)
	}
	p := &Plan{Root: next(), HostNetwork: next() != "", User: int(number()), WorkSize: number(), TempSize: number(), SharedSize: number(), FileSize: number(), OpenFiles: number(), Processes: number(), Data: number()}
	binds, links, files := count(), count(), count()
	for range binds {
		p.Binds = append(p.Binds, Bind{Source: next(), Target: next(), Write: next() != "", Exact: next() != ""})
	}
	for range links {
		p.Links = append(p.Links, Link{Path: next(), Text: next()})
	}
	for range files {
		p.Files = append(p.Files, File{Path: next(), Text: next()})
	}
	if wrong || len(list) > 0 {
		return nil, errBroken
	}
	return p, nil
}
