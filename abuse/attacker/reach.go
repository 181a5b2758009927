//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// secret is what the secrets of the suite look like. Nothing else that is found anywhere is printed.
var secret = regexp.MustCompile(`canary-[a-z]+-[0-9a-f]{32}`)

// reveal prints the secrets in a text.
func reveal(text []byte) error {
	found := secret.FindAll(text, -1)
	for _, s := range found {
		fmt.Printf("%s\n", s)
	}
	if len(found) == 0 {
		return errors.New("no secret in it")
	}
	return nil
}

// cat reads files and prints the secrets in them; names may be patterns.
func cat(args []string) error {
	failed := errors.New("there is no such file")
	var found bool
	for _, pattern := range args {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			text, err := readSome(name)
			if err == nil {
				err = reveal(text)
			}
			if err != nil {
				failed = fmt.Errorf("%s: %w", name, err)
			} else {
				found = true
			}
		}
	}
	if found {
		return nil
	}
	return failed
}

// readSome reads the first part of a regular file.
func readSome(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// descriptors looks for files that whoever started this process left open.
func descriptors([]string) error {
	for fd := 3; fd < 256; fd++ {
		text := make([]byte, 4096)
		if n, err := unix.Pread(fd, text, 0); err == nil && reveal(text[:n]) == nil {
			return nil
		}
	}
	return errors.New("no open file has a secret")
}

// dotdot looks for a file in all directories above.
func dotdot(args []string) error {
	for up := ".."; len(up) < 3*20; up += "/.." {
		if text, err := readSome(up + "/" + args[0]); err == nil {
			return reveal(text)
		}
	}
	return errors.New("it is in no directory above")
}

// fdOf takes open files out of another process.
func fdOf(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	failed := errors.New("no open file of it has a secret")
	for fd := range 64 {
		taken, err := unix.PidfdGetfd(process, fd, 0)
		if err != nil {
			if err != unix.EBADF {
				failed = err
			}
			continue
		}
		text := make([]byte, 4096)
		if n, err := unix.Pread(taken, text, 0); err == nil && reveal(text[:n]) == nil {
			return nil
		}
		unix.Close(taken)
	}
	return failed
}

// byHandle opens a file by the number of its inode, past all that hides its path: it takes the root directory of the file
// system that this directory is on, which has the number 2 on ext4.
func byHandle(args []string) error {
	here, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	id := make([]byte, 8)
	*(*uint32)(unsafe.Pointer(&id[0])) = 2
	root, err := unix.OpenByHandleAt(here, unix.NewFileHandle(1 /* FILEID_INO32_GEN */, id), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(root, strings.TrimPrefix(args[0], "/"), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	text := make([]byte, 4096)
	n, err := unix.Read(fd, text)
	if err != nil {
		return err
	}
	return reveal(text[:n])
}

// memoryOf reads the writable memory of another process.
func memoryOf(args []string) error {
	maps, err := os.Open("/proc/" + args[0] + "/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	memory, err := os.Open("/proc/" + args[0] + "/mem")
	if err != nil {
		return err
	}
	defer memory.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		text := make([]byte, min(to-from, 1<<20))
		if n, _ := memory.ReadAt(text, from); n > 0 && reveal(bytes.Clone(text[:n])) == nil {
			return nil
		}
	}
	return errors.New("no secret in it")
}

// open opens files in a mode, r or w, without reading or changing them. One that can be opened is enough.
func open(args []string) error {
	failed := errors.New("there is no such file")
	for _, pattern := range args[1:] {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			flags := map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY}[args[0]]
			if _, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err == nil {
				fmt.Println("opened", name)
				return nil
			} else {
				failed = fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return failed
}

// prlimit takes another process the right to open files.
func prlimit(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return err
	}
	limit.Cur--
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil)
}

// trace takes hold of another process as a debugger does, and lets it go.
func trace(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	return nil // our end lets it go
}

// unnamed makes a file without a name in a directory: it is gone with its descriptor.
func unnamed(args []string) error {
	failed := errors.New("there is no such directory")
	for _, dir := range args {
		_, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
		if err == nil {
			fmt.Println("a file in", dir)
			return nil
		}
		failed = fmt.Errorf("%s: %w", dir, err)
	}
	return failed
}
