// Package container is the first program in a container of the test double: it makes the file system, starts the command and
// ends as that does, and with it the whole container.
package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Name is what the program is called when it is to be the first in a container; its argument is the file of the Plan.
const Name = "first-in-container"

// Mount is what appears at a place in the container.
type Mount struct {
	Source   string // on the host; "": empty, in memory
	Target   string
	ReadOnly bool
}

// Plan is a container and its command.
type Plan struct {
	Layers []string // directories of the root, the topmost last
	Upper  string   // takes what is written; Work is for the kernel
	Work   string
	Root   string // an empty directory, on which the root is mounted
	Mounts []Mount
	Env    []string
	Argv   []string
	Dir    string
	User   int // 0: root
}

// Main is the program, if it was started as Name; else it returns at once.
func Main() {
	if os.Args[0] != Name {
		return
	}
	var plan Plan
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(text, &plan)
	}
	if err == nil {
		err = plan.build()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "make the container: %s\n", err)
		os.Exit(1)
	}
	os.Exit(plan.run())
}

func (p *Plan) build() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	lower := ""
	for i := len(p.Layers) - 1; i >= 0; i-- {
		lower += ":" + p.Layers[i]
	}
	if err := syscall.Mount("overlay", p.Root, "overlay", 0, "lowerdir="+lower[1:]+",upperdir="+p.Upper+",workdir="+p.Work); err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(p.Root, p.Dir), 0o755); err != nil { // as an engine does, before it mounts anything
		return fmt.Errorf("the working directory: %w", err)
	}
	for _, m := range append(p.Mounts, Mount{Source: "/dev", Target: "/dev"}) {
		target := filepath.Join(p.Root, m.Target)
		if m.Source == "" {
			mode := uint32(0o1777)
			var covered syscall.Stat_t
			if syscall.Stat(target, &covered) == nil { // runc gives the mode of what is covered
				mode = covered.Mode & 0o7777
			}
			if err := errors.Join(os.MkdirAll(target, 0o755), syscall.Mount("tmpfs", target, "tmpfs", syscall.MS_NOSUID, fmt.Sprintf("mode=%o", mode))); err != nil {
				return fmt.Errorf("mount at %s: %w", m.Target, err)
			}
			continue
		}
		info, err := os.Stat(m.Source)
		if err == nil && info.IsDir() {
			err = os.MkdirAll(target, 0o755)
		} else if err == nil {
			var f *os.File
			if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
				if f, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
					f.Close()
				}
			}
		}
		if err == nil {
			err = syscall.Mount(m.Source, target, "", syscall.MS_BIND|syscall.MS_REC, "")
		}
		if err == nil && m.ReadOnly {
			err = syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		}
		if err != nil {
			return fmt.Errorf("mount at %s: %w", m.Target, err)
		}
	}
	proc := filepath.Join(p.Root, "proc")
	if err := errors.Join(os.MkdirAll(proc, 0o755), syscall.Mount("proc", proc, "proc", 0, "")); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	return errors.Join(syscall.Chroot(p.Root), os.MkdirAll(p.Dir, 0o755), os.Chdir(p.Dir))
}

func (p *Plan) run() int {
	c := exec.Cmd{Path: p.Argv[0], Args: p.Argv, Env: p.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if c.Env == nil {
		c.Env = []string{}
	}
	if filepath.Base(c.Path) == c.Path {
		for _, entry := range p.Env {
			if value, is := strings.CutPrefix(entry, "PATH="); is {
				_ = os.Setenv("PATH", value)
			}
		}
		if found, err := exec.LookPath(c.Path); err == nil {
			c.Path = found
		}
	}
	if p.User != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.User), Gid: uint32(p.User)}}
	}
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err) // as the engine's first program does
		return 1
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case pid == c.Process.Pid && status.Signaled():
			return 128 + int(status.Signal())
		case pid == c.Process.Pid:
			return status.ExitStatus()
		}
	}
}
