package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// lockData makes a data directory ours: two NATS servers must not share one.
func lockData(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, devLock)
	lock, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(file)
		lock.Close()
		return nil, fmt.Errorf("another executor dev (pid %s) uses %s; stop it, or give this one a directory of its own: --data DIR --nats-port -1", strings.TrimSpace(string(pid)), dir)
	}
	lock.Truncate(0)
	fmt.Fprintln(lock, os.Getpid())
	return func() { lock.Close() }, nil
}

// portOwner says which process listens on a port of this machine, as " by nats-server (pid 42)"; "" where that cannot be
// known: the process of another user, or no /proc.
func portOwner(port int) string {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return ""
	}
	var inodes []string
	note := func(lines procfs.NetTCP, err error) {
		for _, line := range lines {
			const listen = 0x0a
			if err == nil && line.LocalPort == uint64(port) && line.St == listen {
				inodes = append(inodes, fmt.Sprintf("socket:[%d]", line.Inode))
			}
		}
	}
	note(proc.NetTCP())
	note(proc.NetTCP6())
	all, err := proc.AllProcs()
	if err != nil || len(inodes) == 0 {
		return ""
	}
	for _, p := range all {
		targets, err := p.FileDescriptorTargets()
		if err != nil {
			continue
		}
		if slices.ContainsFunc(targets, func(t string) bool { return slices.Contains(inodes, t) }) {
			name, _ := p.Comm()
			return fmt.Sprintf(" by %s (pid %d)", name, p.PID)
		}
	}
	return ""
}
