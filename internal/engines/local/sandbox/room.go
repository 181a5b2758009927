//go:build linux

package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// room is memory that a starter shares with the process of a sandbox, at the same addresses: what is written there after the
// fork is seen by both. At its beginning is what the process is handed.
type room struct {
	memory []byte
	used   int
	full   bool // something did not fit
}

// handed is what the process of a sandbox gets last: its tool.
type handed struct {
	begun bool   // written by the process: it has taken the tool
	enter []call // made by the first process
	tool  []call // made by the one that becomes the tool
}

// newRoom makes room for so many bytes. Pages that nobody writes to take no memory.
func newRoom(size int) (*room, error) {
	memory, err := unix.Mmap(-1, 0, size+int(unsafe.Sizeof(handed{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("make memory to share: %w", err)
	}
	return &room{memory: memory, used: int(unsafe.Sizeof(handed{}))}, nil
}

func (r *room) handed() *handed { return (*handed)(unsafe.Pointer(unsafe.SliceData(r.memory))) }

// take returns memory for so many bytes, for numbers of any kind; nil where there is no more.
func (r *room) take(size int) []byte {
	const alignment = 8
	end := r.used + (size+alignment-1)/alignment*alignment
	if end > len(r.memory) {
		r.full = true
		return nil
	}
	at := r.memory[r.used : r.used+size : r.used+size]
	r.used = end
	return at
}

// bytes copies b and returns its address; 0 where it does not fit.
func (r *room) bytes(b []byte) uintptr {
	at := r.take(len(b))
	copy(at, b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(at)))
}

// calls copies a list, whose addresses are in the room already.
func (r *room) calls(list []call) []call {
	at := r.take(len(list) * int(unsafe.Sizeof(call{})))
	if at == nil {
		return nil
	}
	there := unsafe.Slice((*call)(unsafe.Pointer(unsafe.SliceData(at))), len(list))
	copy(there, list)
	return there
}

// close gives the memory back. The process keeps its own view of it.
func (r *room) close() { _ = unix.Munmap(r.memory) } // of a mapping that is ours
