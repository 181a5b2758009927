package engines

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// StdinFile holds a tool's stdin in memory: a pipe would need somebody to feed it, and to stop when nobody reads. Without any it
// is /dev/null. The caller closes it.
func StdinFile(text []byte) (*os.File, error) {
	if len(text) == 0 {
		return os.Open(os.DevNull)
	}
	return MemoryFile("stdin", text)
}

// MemoryFile is a file that is in no directory, at its beginning. The caller closes it.
func MemoryFile(name string, text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = f.Write(text); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
