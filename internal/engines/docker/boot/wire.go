// Package boot is the first process of every container of the Docker engine. It is the executor's own program, which is
// mounted there, and it does what no daemon does: it finds out whether the tool can be started before the run is claimed, gives
// it its environment, files and stdin, adopts orphans, ends all processes with the first one or when the executor is gone, and
// says how the tool ended: by which signal, for lack of memory, and what it used.
//
//	wire.go        what the engine and the process say to each other
//	boot_linux.go  the process
//	tool_linux.go  the tool's start and its end
//
// The engine writes to the process's stdin, which nobody else does: a Request, then one byte for each of the Commands. The end
// of stdin means that the executor is gone. The process answers in frames within stdout and stderr, which are the tool's: a
// frame begins with a random mark that only the two of them know, so that no tool can print one. No frame comes while the tool
// runs: one says whether it can be started, the last one on each stream that all of it is over.
package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Name is the process's argv[0], by which the program knows what it is to be.
const Name = "executor-init"

// Dir is the directory of the container in which the program is, and Program its path.
const (
	Dir     = "/.executor"
	Program = Dir + "/" + Name
)

// Anchor is the only argument of a process that waits for the end of its stdin and does nothing else.
const Anchor = "anchor"

// MarkSize is how many bytes a mark has.
const MarkSize = 16

// MarkFirst is the first byte of every mark: one that text does not hold, so that no text looks like the beginning of a mark.
const MarkFirst = 0xFF

// Threads is how many threads the process has, which count among the processes of its container.
const Threads = 16

// The commands.
const (
	Go   = 'G' // start the tool
	Term = 'T' // ask all processes to end, and end them after the grace
	Kill = 'K' // end all processes now
	Bye  = 'B' // both streams were read to the last frame: exit
)

// The kinds of frames.
const (
	Ready  = 'R' // the tool can be started; no payload
	Cannot = 'E' // it cannot, and the process exits; the payload is a Refusal
	Ended  = 'X' // all is over; the payload is an End on stdout, and empty on stderr
)

// Request is what a container is to run.
type Request struct {
	Mark     []byte   // MarkSize bytes
	Env      []string // all of the tool's environment
	Argv     []string // Argv[0] is looked up in the PATH of Env
	Dir      string   // where the tool starts
	ArgsFile string   // is made, with ArgsText
	ArgsText []byte
	Grace    time.Duration // between Term and the end
	NoRoot   bool          // refuse where the process is root
	Kernel   string        // that of the executor, as Kernel says; "": that of the container is the same
	Mounts   []Mount
	Links    []Link
	Stdin    []byte
}

// Link is a symbolic link that is made before the tool starts, with the directories above it.
type Link struct{ Path, Target string }

// Mount is a file or directory that has to be at a place of the container: what the executor looked at, and nothing that was
// put in its stead meanwhile. Numbers tell that of the same kernel alone; another one has its own.
type Mount struct {
	Target   string
	Dev, Ino uint64
}

// Kernel is what tells the running kernel from all others, "" where nothing does.
func Kernel() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(id))
}

// Refusal says why a tool cannot be started.
type Refusal struct {
	Denied  bool // by the rules, else it is not there or no program
	Message string
}

// End says how a tool ended.
type End struct {
	Code    int    // 0 to 255; meaningless where Signal is set
	Signal  string // that ended it, as SIGKILL
	CPU     time.Duration
	MaxRSS  int64 // bytes of the largest process; 0: too small to be told apart from ours
	OOM     int64 // processes that were ended for lack of memory; below 0: unknown
	Stopped bool  // by a command
	Error   string
	Errno   int // of the failed start that Error tells of
}

const maxRequest = 1 << 30

var errShort = errors.New("the message is cut off")

type writer struct{ b []byte }

func (w *writer) number(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

func (w *writer) bytes(b []byte) {
	w.number(uint64(len(b)))
	w.b = append(w.b, b...)
}

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) flag(f bool) {
	if f {
		w.number(1)
	} else {
		w.number(0)
	}
}

func (w *writer) list(l []string) {
	w.number(uint64(len(l)))
	for _, s := range l {
		w.text(s)
	}
}

type reader struct {
	b   []byte
	err error
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.err, r.b = errShort, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.err, r.b = errShort, nil
		return nil
	}
	part := r.b[:n:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) flag() bool { return r.number() != 0 }

// count is the number of elements of a list, each of which has at least one byte.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.err, r.b = errShort, nil
		return 0
	}
	return int(n)
}

func (r *reader) list() []string {
	list := make([]string, r.count())
	for i := range list {
		list[i] = r.text()
	}
	return list
}

// Encode returns the request as it is written to the process, its length first.
func (q *Request) Encode() []byte {
	var w writer
	w.bytes(q.Mark)
	w.list(q.Env)
	w.list(q.Argv)
	w.text(q.Dir)
	w.text(q.ArgsFile)
	w.bytes(q.ArgsText)
	w.number(uint64(q.Grace))
	w.flag(q.NoRoot)
	w.text(q.Kernel)
	w.number(uint64(len(q.Mounts)))
	for _, m := range q.Mounts {
		w.text(m.Target)
		w.number(m.Dev)
		w.number(m.Ino)
	}
	w.number(uint64(len(q.Links)))
	for _, l := range q.Links {
		w.text(l.Path)
		w.text(l.Target)
	}
	w.bytes(q.Stdin)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(w.b))), w.b...)
}

// ReadRequest reads what Encode wrote. It returns io.EOF where there is nothing.
func ReadRequest(from io.Reader) (*Request, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxRequest {
		return nil, fmt.Errorf("a request of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, err
	}
	return decodeRequest(b)
}

func decodeRequest(b []byte) (*Request, error) {
	r := reader{b: b}
	q := &Request{Mark: r.bytes(), Env: r.list(), Argv: r.list(), Dir: r.text(), ArgsFile: r.text(), ArgsText: r.bytes(), Grace: time.Duration(r.number()), NoRoot: r.flag(), Kernel: r.text()}
	q.Mounts = make([]Mount, r.count())
	for i := range q.Mounts {
		q.Mounts[i] = Mount{Target: r.text(), Dev: r.number(), Ino: r.number()}
	}
	q.Links = make([]Link, r.count())
	for i := range q.Links {
		q.Links[i] = Link{Path: r.text(), Target: r.text()}
	}
	q.Stdin = r.bytes()
	if r.err == nil && len(q.Mark) != MarkSize {
		r.err = errors.New("the mark has the wrong size")
	}
	return q, r.err
}

// Encode returns the payload of a frame.
func (e Refusal) Encode() []byte {
	var w writer
	w.flag(e.Denied)
	w.text(e.Message)
	return w.b
}

// DecodeRefusal reads what Encode wrote.
func DecodeRefusal(b []byte) (Refusal, error) {
	r := reader{b: b}
	e := Refusal{Denied: r.flag(), Message: r.text()}
	return e, r.err
}

// Encode returns the payload of a frame.
func (e End) Encode() []byte {
	var w writer
	w.number(uint64(e.Code))
	w.text(e.Signal)
	w.number(uint64(e.CPU))
	w.number(uint64(e.MaxRSS))
	w.number(uint64(e.OOM + 1))
	w.flag(e.Stopped)
	w.text(e.Error)
	w.number(uint64(e.Errno))
	return w.b
}

// DecodeEnd reads what Encode wrote.
func DecodeEnd(b []byte) (End, error) {
	r := reader{b: b}
	e := End{Code: int(r.number()), Signal: r.text(), CPU: time.Duration(r.number()), MaxRSS: int64(r.number()), OOM: int64(r.number()) - 1, Stopped: r.flag(), Error: r.text(), Errno: int(r.number())}
	return e, r.err
}

// Frame is a frame as it is written to a stream.
func Frame(mark []byte, kind byte, payload []byte) []byte {
	f := append(append([]byte{}, mark...), kind)
	return append(binary.BigEndian.AppendUint32(f, uint32(len(payload))), payload...)
}

// HeadSize is how many bytes of a frame there are before its payload.
const HeadSize = MarkSize + 1 + 4

// MaxPayload bounds the payload of a frame.
const MaxPayload = 64 << 10
