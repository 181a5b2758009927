//go:build !linux

package dagger

import "os"

// hold opens a file that is not there. Nothing here tells a file of a dead executor from one of a living: none is removed.
func hold(name string) (*os.File, error) {
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		err = errHeld
	}
	return lock, err
}
