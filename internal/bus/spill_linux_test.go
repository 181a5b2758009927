package bus

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// tinyDisk is a file system of a few MiB, where the user may make one; else nothing.
func tinyDisk(t *testing.T, size int) (dir string, mounted bool) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tiny", dir, "tmpfs", 0, "size="+strconv.Itoa(size)); err != nil {
		return dir, false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("something is still open: %v", err)
		}
	})
	return dir, true
}

// limitFiles bounds the size of all files that this process writes. It stands for a full disk where none can be made.
func limitFiles(t *testing.T, size uint64) {
	t.Helper()
	var old syscall.Rlimit
	const fileSize = 1 // RLIMIT_FSIZE
	if err := syscall.Getrlimit(fileSize, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(fileSize, &syscall.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(fileSize, &old) })
}

// A disk that is full is a spool that is full: the writer waits, is told of once, and goes on when there is room again.
func TestSpillOnAFullDisk(t *testing.T) {
	s := startRestartable(t)
	b := spilling(t, s.URL(), 1<<30)
	const size = 6 << 20
	dir, mounted := tinyDisk(t, size)
	if !mounted {
		limitFiles(t, size)
	}
	if err := b.SpillTo(dir, 1<<30); err != nil {
		t.Fatal(err)
	}
	var log logged
	b.log = zerolog.New(&log)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := newFlood(64 << 20)
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	s.stop(b)
	var reached atomic.Int64
	written := make(chan error, 1)
	go func() { written <- f.write(b, j, f.chunks(), &reached) }()
	eventually(t, "the disk is full", func() bool { return strings.Contains(log.String(), "waits on its write") })
	if text := log.String(); mounted && !strings.Contains(text, "no space left on device") || strings.Count(text, "waits on its write") != 1 {
		t.Errorf("it was told: %s", text)
	}
	if n := (reached.Load() - windowMessages) * floodChunk; n < size-2*floodChunk || n > size {
		t.Errorf("%d bytes were taken on a disk of %d", n, size)
	}
	if !mounted { // a server does not start with files of that size
		limitFiles(t, 1<<40)
	}
	s.start()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
}
