package dagger

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// hold opens a file and locks it until it is closed, which it also is when this process dies. errHeld: another process has it.
func hold(name string) (*os.File, error) {
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errHeld
		}
		return nil, err
	}
	return lock, nil
}
