package bus

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// spill is the disk space that the journals of an instance share while NATS is away. It holds nothing that anybody
// reads after a crash: a request whose executor died is run again from its beginning.
type spill struct {
	dir  string
	most int64

	mu   sync.Mutex
	used int64
}

// SpillTo lets journals keep what they cannot publish in files below dir, most bytes of all together; 0: they do not. It
// is called before the first journal is opened. An error says why dir cannot have such files now; they are tried again
// when they are needed.
func (b *Bus) SpillTo(dir string, most int64) error {
	if most <= 0 {
		b.spill = nil
		return nil
	}
	b.spill = &spill{dir: dir, most: most}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := createSpill(dir)
	if err != nil {
		return err
	}
	return file.Close()
}

// reserve takes n bytes for a journal that has own, if it then has no more than what is left for all others. So one run
// alone gets half of the whole, n that print at once get a part each, and the one that comes late still finds room.
func (s *spill) reserve(own, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own+n > s.most-s.used-n {
		return false
	}
	s.used += n
	return true
}

func (s *spill) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// errSpillFull means that the journal has its share of the disk.
var errSpillFull = errors.New("its share of executor.spill_bytes is used")

// giveBack is how much is read of a file until its space goes back to the disk and to the other journals.
const giveBack = 4 << 20

// spool is the file of one journal: written at its end by one goroutine, read from its beginning by another. It exists
// only while something is in it, and it has no name, so that nothing stays after a kill -9 and nobody else can open it.
// It is never synced: it need not outlive the process.
type spool struct {
	shared *spill

	mu      sync.Mutex
	file    *os.File // nil: nothing is in it
	begin   int64    // of what was not read yet
	end     int64
	given   int64 // up to here the space was given back
	noHoles bool  // the file system gives back whole files only
	writing bool  // a record behind end
	closed  bool
}

// append writes a record. Where it fails the spool is as before, and the record can be tried again: the share may have
// grown, or the disk have room again.
func (q *spool) append(e *entry) error {
	head := encodeRecord(e)
	size := int64(len(head) + len(e.msg.Data))
	file, at, err := q.beginWrite(size)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(head, at); err == nil {
		_, err = file.WriteAt(e.msg.Data, at+int64(len(head)))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = false
	switch {
	case q.closed: // meanwhile; what the file held went with it
		q.shared.release(size)
		return os.ErrClosed
	case err != nil: // a full disk, most likely: half a record must not take more of it
		q.shared.release(size)
		_ = file.Truncate(at)
	default:
		q.end += size
	}
	q.tidy()
	return err
}

// beginWrite reserves the space of a record and says where it goes.
func (q *spool) beginWrite(size int64) (*os.File, int64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, 0, os.ErrClosed
	}
	if !q.shared.reserve(q.end-q.given, size) {
		return nil, 0, errSpillFull
	}
	if q.file == nil {
		file, err := createSpill(q.shared.dir)
		if err != nil {
			q.shared.release(size)
			return nil, 0, err
		}
		q.file = file
	}
	q.writing = true
	return q.file, q.end, nil
}

// next takes the oldest record out; nil where there is none. Its done gives the memory back. An error means that the
// file lost what it had.
func (q *spool) next() (*entry, error) {
	q.mu.Lock()
	file, at, end := q.file, q.begin, q.end
	q.mu.Unlock()
	if at == end {
		return nil, nil
	}
	var fixed [recordHead]byte
	if _, err := file.ReadAt(fixed[:], at); err != nil {
		return nil, fmt.Errorf("read what was kept on disk: %w", err)
	}
	head, err := decodeHead(fixed[:], end-at)
	if err != nil {
		return nil, err
	}
	buffer := buffers.get(head.size())
	if _, err = file.ReadAt(*buffer, at+recordHead); err != nil {
		err = fmt.Errorf("read what was kept on disk: %w", err)
	}
	var e *entry
	if err == nil {
		e, err = head.decode(*buffer)
	}
	if err != nil {
		buffers.Put(buffer)
		return nil, err
	}
	e.done = func() { buffers.Put(buffer) }
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.begin = at + recordHead + int64(head.size())
		q.tidy()
	}
	return e, nil
}

// tidy gives back the space of what was read: all of it with the file once that is empty, parts of it before.
func (q *spool) tidy() {
	switch {
	case q.file == nil || q.writing:
	case q.begin == q.end:
		q.drop()
	case q.begin-q.given >= giveBack && !q.noHoles:
		to := q.begin &^ 4095 // whole pages
		if q.noHoles = punchHole(q.file, q.given, to-q.given) != nil; !q.noHoles {
			q.shared.release(to - q.given)
			q.given = to
		}
	}
}

func (q *spool) drop() {
	q.file.Close()
	q.shared.release(q.end - q.given)
	q.file, q.begin, q.end, q.given = nil, 0, 0, 0
}

// close drops what is in it, for ever.
func (q *spool) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.file != nil {
		q.drop()
	}
}

// createAndRemove makes a file that only its owner may open, and takes its name away before anything is in it.
func createAndRemove(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "spill-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, err
	}
	return file, nil
}

// buffers hold what was read and is not stored yet.
var buffers bufferPool

type bufferPool struct{ sync.Pool }

func (p *bufferPool) get(size int) *[]byte {
	if b, ok := p.Get().(*[]byte); ok && cap(*b) >= size {
		*b = (*b)[:size]
		return b
	}
	// Most records are one full chunk and its headers: with some more room, one buffer serves the next ones as well.
	b := make([]byte, size, (size+8191)&^8191)
	return &b
}
