//go:build unix

package docker

import "golang.org/x/sys/unix"

// identity is what tells a file from all others of the machine, links not followed.
func identity(path string) (dev, ino uint64, err error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return 0, 0, err
	}
	return uint64(stat.Dev), stat.Ino, nil //nolint:unconvert // not 64 bits on all systems
}
