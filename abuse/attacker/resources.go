//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mebibytes is an argument in MiB, in bytes. More than the suite may use is a mistake.
func mebibytes(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n > 512 {
		err = fmt.Errorf("%d MiB are more than an attempt may use", n)
	}
	return n << 20, err
}

// eat uses memory.
func eat(args []string) error {
	size, err := mebibytes(args[0])
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	runtime.KeepAlive(memory)
	return nil
}

// hold uses memory until its stdin ends.
func hold(args []string) error {
	if err := eat(args); err != nil {
		return err
	}
	fmt.Println("full")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
	return nil
}

// eatChildren uses memory in N processes at once, so many MiB each.
func eatChildren(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var children []*exec.Cmd
	var ends []io.Closer
	for range n {
		c := exec.Command("/proc/self/exe", "hold", args[1])
		stdin, err := c.StdinPipe()
		if err != nil {
			return err
		}
		full, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		if _, err := full.Read(make([]byte, 1)); err != nil {
			return fmt.Errorf("a child was ended: %w", err)
		}
		children, ends = append(children, c), append(ends, stdin)
	}
	// All had their memory, but at the same time only if none was ended for another.
	for i, c := range children {
		ends[i].Close()
		if err := c.Wait(); err != nil {
			return fmt.Errorf("a child was ended: %w", err)
		}
	}
	return nil
}

// memfd uses memory as a file that is in no directory.
func memfd(args []string) error {
	size, err := mebibytes(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("abuse", 0)
	if err != nil {
		return err
	}
	return write(os.NewFile(uintptr(fd), "memfd"), size)
}

// write writes so many bytes to a file.
func write(f *os.File, size int) error {
	part := bytes.Repeat([]byte("x"), 1<<20)
	for ; size > 0; size -= len(part) {
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// fill writes a file of so many MiB.
func fill(args []string) error {
	size, err := mebibytes(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	return write(f, size)
}

// sparse makes a file that seems to have a TiB and takes no space.
func sparse(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	return f.Truncate(1 << 40)
}

// files makes so many empty files in a directory.
func files(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		f, err := os.Create(fmt.Sprintf("%s/%d", args[0], i))
		if err != nil {
			return fmt.Errorf("after %d files: %w", i, err)
		}
		f.Close()
	}
	return nil
}

// deep makes a chain of directories that nobody may enter.
func deep(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		if err := os.Mkdir("d", 0o700); err != nil {
			return err
		}
		if err := os.Chdir("d"); err != nil {
			return err
		}
	}
	for range n {
		if err := os.Chdir(".."); err != nil {
			return err
		}
		if err := os.Chmod("d", 0); err != nil {
			return err
		}
	}
	return nil
}

// flood prints so many MiB on a descriptor without an end of line.
func flood(args []string) error {
	size, err := mebibytes(args[1])
	if err != nil {
		return err
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return write(os.NewFile(uintptr(fd), "stream"), size)
}

// Objects of System V and POSIX live in the kernel until somebody removes them, or their namespace is gone.

func key(args []string) uintptr {
	n, _ := strconv.Atoi(args[0])
	return uintptr(n)
}

func shm(args []string) error {
	return call(unix.SYS_SHMGET, key(args), 1<<20, unix.IPC_CREAT|0o600)
}

func message(args []string) error {
	return call(unix.SYS_MSGGET, key(args), unix.IPC_CREAT|0o600)
}

func semaphore(args []string) error {
	return call(unix.SYS_SEMGET, key(args), 1, unix.IPC_CREAT|0o600)
}

func queue(args []string) error {
	name, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	return call(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0)
}
