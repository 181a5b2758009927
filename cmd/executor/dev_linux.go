package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	if err := lock.Truncate(0); err == nil {
		fmt.Fprintln(lock, os.Getpid())
	}
	return func() { lock.Close() }, nil
}
