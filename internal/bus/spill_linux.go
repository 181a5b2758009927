package bus

import (
	"os"

	"golang.org/x/sys/unix"
)

// createSpill makes a file that never has a name. Some network and overlay file systems cannot: there it has one for a
// moment.
func createSpill(dir string) (*os.File, error) {
	file, err := os.OpenFile(dir, os.O_RDWR|os.O_EXCL|unix.O_TMPFILE, 0o600)
	if err != nil {
		return createAndRemove(dir)
	}
	return file, nil
}

// punchHole gives the space of a part of a file back, which nobody reads any more.
func punchHole(file *os.File, from, size int64) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, size)
	})
	if err == nil {
		err = failed
	}
	return err
}
