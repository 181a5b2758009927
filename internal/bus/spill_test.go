package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// flood is output whose every byte is known by its place.
type flood struct {
	size  int
	noise []byte
}

func newFlood(size int) *flood {
	noise := make([]byte, 1<<20+61) // a length that no chunk has, so that equal chunks are far apart
	random := rand.NewChaCha8([32]byte{1})
	random.Read(noise)
	return &flood{size, noise}
}

// fill writes the bytes from a place on. The place itself is among them.
func (f *flood) fill(b []byte, at int) {
	for n := 0; n < len(b); {
		n += copy(b[n:], f.noise[(at+n)%len(f.noise):])
	}
	if len(b) >= 8 {
		binary.BigEndian.PutUint64(b, uint64(at))
	}
}

const floodChunk = 64 << 10

// chunks is how many full chunks the flood has.
func (f *flood) chunks() int { return f.size / floodChunk }

func (f *flood) chunk(n int, b []byte) contracts.Chunk {
	at := (n - 1) * floodChunk
	f.fill(b[:floodChunk], at)
	return contracts.Chunk{Stream: contracts.Stdout, Seq: uint64(n), Offset: int64(at), Data: b[:floodChunk]}
}

// write gives chunks to a journal as the core does, from the one after reached on: each from a buffer that is used again
// once it is free. Each hundredth is followed by an event, which says so.
func (f *flood) write(b *Bus, j *Journal, last int, reached *atomic.Int64) error {
	for n := int(reached.Load()) + 1; n <= last; n++ {
		buffer := buffers.get(floodChunk)
		if err := j.Output(f.chunk(n, *buffer), func() { clear(*buffer); buffers.Put(buffer) }); err != nil {
			return err
		}
		if n%100 == 0 {
			e := event(b, contracts.TypeProgress, j.id, j.attempt)
			e.Message = strconv.Itoa(n)
			if err := j.Event(e); err != nil {
				return err
			}
		}
		reached.Store(int64(n))
	}
	return nil
}

// check reads what the stream has of a run and compares all of it, and where the events stand in it.
func (f *flood) check(t *testing.T, b *Bus, id string) {
	t.Helper()
	want := make([]byte, floodChunk)
	place, n := uint64(1), 1
	marks := map[uint64]int{} // place in the stream after which an event has to stand, and which
	for ; ; n++ {
		m, err := b.next(t.Context(), b.subjects.Output(id), place)
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			break
		}
		if got := m.Header.Get(contracts.HeaderSeq); got != strconv.Itoa(n) {
			t.Fatalf("chunk %s is in place %d", got, n)
		}
		if c := f.chunk(n, want); m.Header.Get(contracts.HeaderOffset) != strconv.FormatInt(c.Offset, 10) || !bytes.Equal(m.Data, want) {
			t.Fatalf("chunk %d is not what was printed: %d bytes, headers %v", n, len(m.Data), m.Header)
		}
		if n%100 == 0 {
			marks[m.Sequence] = n
		}
		place = m.Sequence + 1
	}
	if n-1 != f.chunks() {
		t.Fatalf("%d chunks are stored, want %d", n-1, f.chunks())
	}
	events := 0
	for place = 1; ; events++ {
		m, err := b.next(t.Context(), b.subjects.Status(id), place)
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			break
		}
		if n, ok := marks[m.Sequence-1]; !ok || !strings.Contains(string(m.Data), `"message":"`+strconv.Itoa(n)+`"`) {
			t.Fatalf("an event stands where it does not belong: %s", m.Data)
		}
		place = m.Sequence + 1
	}
	if events != f.chunks()/100 {
		t.Fatalf("%d events are stored, want %d", events, f.chunks()/100)
	}
}

// spilling makes an instance that spills into a directory of its own.
func spilling(t *testing.T, url string, most int64, change ...func(*Config)) *Bus {
	t.Helper()
	b := connect(t, url, change...)
	dir := t.TempDir()
	if err := b.SpillTo(dir, most); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs before the directory is removed
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("a file has a name: %v", files)
		}
	})
	return b
}

func (s *spill) inUse() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// stop ends the server and returns when the instance knows.
func (r *restartable) stop(b *Bus) {
	r.t.Helper()
	r.Stop()
	eventually(r.t, "the loss is noticed", func() bool { return !b.Connected() })
}

// openFiles counts descriptors of files without a name in dir.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir) && strings.HasSuffix(to, "(deleted)") {
			n++
		}
	}
	return n
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The server is away again and again while 200 MB are printed. The tool is not stopped by it, memory stays what the
// window needs, and the stream has every byte, once and in order.
func TestSpillOverRestarts(t *testing.T) {
	s := startRestartable(t)
	p := newProxy(t, s.port)
	b := spilling(t, p.url(), 1<<30)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := newFlood(200_000_000)
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	var reached atomic.Int64
	written := make(chan error, 1)
	finish := func() {
		t.Helper()
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}

	// In the middle of a flood, and 60 MB more while it is away.
	flooding := make(chan struct{})
	go func() {
		err := f.write(b, j, 500, &reached)
		close(flooding)
		for err == nil && b.Connected() {
			err = f.write(b, j, int(reached.Load())+1, &reached)
		}
		if err == nil {
			err = f.write(b, j, int(reached.Load())+60_000_000/floodChunk, &reached)
		}
		written <- err
	}()
	<-flooding
	s.stop(b)
	small := heap()
	finish()
	if grown := heap() - small; grown > 8<<20 {
		t.Errorf("60 MB on disk take %d MiB of memory", grown>>20)
	}
	if used := b.spill.inUse(); used < 60_000_000-windowBytes {
		t.Fatalf("%d bytes are on disk", used)
	}

	// Back, and away again before all of that is published; 40 MB more meanwhile.
	p.slow.Store(int64(time.Millisecond))
	before := b.spill.inUse()
	s.start()
	eventually(t, "some is published", func() bool { return b.spill.inUse() < before-8<<20 })
	s.stop(b)
	if used := b.spill.inUse(); used == 0 || used > before-8<<20 {
		t.Fatalf("of %d bytes %d are on disk", before, used)
	}
	if err := f.write(b, j, int(reached.Load())+40_000_000/floodChunk, &reached); err != nil {
		t.Fatal(err)
	}

	// The rest goes behind what is being published.
	p.slow.Store(0)
	s.start()
	go func() { written <- f.write(b, j, max(f.chunks(), int(reached.Load())+100), &reached) }()
	finish()
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.size = int(reached.Load()) * floodChunk
	f.check(t, b, "a")
	if b.spill.inUse() != 0 || openFiles(t, b.spill.dir) != 0 {
		t.Errorf("%d bytes and %d files are left", b.spill.inUse(), openFiles(t, b.spill.dir))
	}
}

// A spool that is full makes the writer wait; once its oldest part is published it goes on, and nothing is lost.
func TestSpillFull(t *testing.T) {
	s := startRestartable(t)
	b := spilling(t, s.URL(), 16<<20)
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
	eventually(t, "the spool is full", func() bool { return strings.Contains(log.String(), "executor.spill_bytes") })
	full := reached.Load()
	if used := b.spill.inUse(); used > 8<<20 || used < 7<<20 {
		t.Errorf("one run alone has %d bytes of %d", used, b.spill.most)
	}
	if want := int64(windowMessages + 8<<20/floodChunk); full < want-3 || full > want {
		t.Errorf("%d chunks were taken, want about %d", full, want)
	}
	select {
	case <-written:
		t.Fatal("the writer was not made to wait")
	case <-time.After(2 * lookAgain): // it looks again, and stays where it is
	}
	if reached.Load() != full {
		t.Errorf("%d chunks were taken, after %d were all", reached.Load(), full)
	}
	s.start()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
	if n := strings.Count(log.String(), "waits on its write"); n != 1 || !strings.Contains(log.String(), `"id":"a"`) {
		t.Errorf("it was told %d times: %s", n, log.String())
	}
}

// Runs share the space: whoever comes late finds some as well, and what a run had is everybody's after its end.
func TestSpillIsShared(t *testing.T) {
	s := startRestartable(t)
	b := spilling(t, s.URL(), 32<<20)
	s.stop(b)
	const runs = 4
	f := newFlood(1 << 30)
	var reached [runs]atomic.Int64
	var journals [runs]*Journal
	var writers sync.WaitGroup
	var ends [runs]context.CancelFunc
	inSpool := func(i int) int64 { return max(0, reached[i].Load()-windowMessages) * floodChunk }
	begin := func(i int) {
		var ctx context.Context
		ctx, ends[i] = context.WithCancel(context.Background())
		journals[i] = b.Journal(ctx, "run-"+strconv.Itoa(i), 1, contracts.Copies{}, nil)
		writers.Go(func() { f.write(b, journals[i], f.chunks(), &reached[i]) })
	}
	waits := func(i int) bool {
		journals[i].mu.Lock()
		defer journals[i].mu.Unlock()
		return journals[i].full
	}
	defer writers.Wait()
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	begin(0)
	eventually(t, "the first is full", func() bool { return waits(0) })
	for i := 1; i < runs; i++ {
		begin(i)
	}
	for i := range runs {
		eventually(t, "all are full", func() bool { return waits(i) })
		if inSpool(i) < b.spill.most>>(runs+1) {
			t.Errorf("run %d has %d bytes of %d", i, inSpool(i), b.spill.most)
		}
	}
	if used := b.spill.inUse(); used > b.spill.most {
		t.Errorf("%d bytes are used of %d", used, b.spill.most)
	}
	before := inSpool(3)
	ends[0]()
	eventually(t, "the last has more after the end of the first", func() bool { return inSpool(3) > before })
}

// A directory that is gone, and comes back: the writer waits, and then goes on although NATS is still away.
func TestSpillLooksAgain(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	dir := filepath.Join(t.TempDir(), "spill")
	if err := b.SpillTo(dir, 1<<30); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	os.Remove(dir)
	var log logged
	b.log = zerolog.New(&log)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.stop(b)
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	f := newFlood(16 << 20)
	var reached atomic.Int64
	written := make(chan error, 1)
	go func() { written <- f.write(b, j, f.chunks(), &reached) }()
	eventually(t, "the writer waits", func() bool { return strings.Contains(log.String(), "waits on its write") })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.start()
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
}

func TestSpillToWhereNothingCanBe(t *testing.T) {
	b := &Bus{}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if err := b.SpillTo(filepath.Join(file, "spill"), 1<<20); err == nil || b.spill == nil {
		t.Errorf("%v, %v", err, b.spill)
	}
	if err := b.SpillTo(file, 0); err != nil || b.spill != nil {
		t.Errorf("switched off: %v, %v", err, b.spill)
	}
}

// The end of its context ends a writer that waits because all is full, and gives everything back.
func TestSpillEndsWithItsContext(t *testing.T) {
	s := startRestartable(t)
	b := spilling(t, s.URL(), 4<<20)
	s.stop(b)
	ctx, cancel := context.WithCancelCause(context.Background())
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	f := newFlood(64 << 20)
	var reached atomic.Int64
	written := make(chan error, 1)
	go func() { written <- f.write(b, j, f.chunks(), &reached) }()
	eventually(t, "the spool is full", func() bool { j.mu.Lock(); defer j.mu.Unlock(); return j.full })
	if n := openFiles(t, b.spill.dir); n != 1 {
		t.Errorf("%d files are open", n)
	}
	reason := errors.New("the executor stops")
	cancel(reason)
	if err := <-written; !errors.Is(err, reason) {
		t.Errorf("the writer was told %v", err)
	}
	if err := j.Flush(); !errors.Is(err, reason) {
		t.Errorf("flush: %v", err)
	}
	eventually(t, "all is given back", func() bool { return b.spill.inUse() == 0 && openFiles(t, b.spill.dir) == 0 })
}

// Copies go out when the messages do, in the same order and each once.
func TestSpillAndCopies(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	b := spilling(t, p.url(), 1<<30)
	nc := agent(t, s.URL()) // it stays connected: copies are not stored
	inbox := nats.NewInbox()
	sub, _ := nc.SubscribeSync(inbox)
	nc.Flush()
	p.cut(true)
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	j := b.Journal(t.Context(), "a", 1, contracts.Copies{Subject: inbox, Reply: contracts.ReplyEvents}, nil)
	const n = 1000
	for i := 1; i <= n; i++ {
		if err := j.Output(chunk(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{contracts.TypeRetry, contracts.TypeFinished} {
		if err := j.Event(event(b, kind, "a", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if b.spill.inUse() == 0 {
		t.Error("nothing is on disk")
	}
	p.cut(false)
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	checkChunks(t, storedChunks(t, b, "a"), n)
	if last, _, _ := b.lastStatus(t.Context(), "a"); last == nil || last.Type != contracts.TypeFinished {
		t.Errorf("last status %+v", last)
	}
	for i := 1; i <= n; i++ {
		if m, err := sub.NextMsg(5 * time.Second); err != nil || string(m.Data) != "chunk "+strconv.Itoa(i) {
			t.Fatalf("copy %d: %v %v", i, m, err)
		}
	}
	if m, err := sub.NextMsg(5 * time.Second); err != nil || m.Header.Get(contracts.HeaderType) != contracts.TypeRetry {
		t.Errorf("after the output: %v %v", m, err)
	}
	if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("one copy too many: %v", m)
	}
}

// A server that is connected and slow is no reason to spill: the tool prints as fast as its output is stored.
func TestSlowServerIsNoReasonToSpill(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	b := spilling(t, p.url(), 1<<30)
	b.patience = 30 * time.Second             // the proxy may pause for longer than it was told, on a busy machine
	p.slow.Store(int64(2 * time.Millisecond)) // for each 16 KiB: 8 MiB/s
	j := b.Journal(t.Context(), "a", 1, contracts.Copies{}, nil)
	f := newFlood(20 << 20)
	var reached atomic.Int64
	if err := f.write(b, j, f.chunks(), &reached); err != nil {
		t.Fatal(err)
	}
	if n := openFiles(t, b.spill.dir); n != 0 || b.spill.inUse() != 0 {
		t.Errorf("%d files, %d bytes on disk", n, b.spill.inUse())
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
}

// A server that is connected and says nothing for long is away, too.
func TestSilentServerIsAway(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	b := spilling(t, p.url(), 1<<30)
	j := b.Journal(t.Context(), "a", 1, contracts.Copies{}, nil)
	f := newFlood(40 << 20)
	var reached atomic.Int64
	if err := f.write(b, j, 100, &reached); err != nil {
		t.Fatal(err)
	}
	release := p.hold()
	written := make(chan error, 1)
	go func() { written <- f.write(b, j, f.chunks(), &reached) }()
	eventually(t, "the tool goes on", func() bool { return reached.Load() == int64(f.chunks()) })
	if !b.Connected() || b.spill.inUse() == 0 {
		t.Errorf("connected: %v, %d bytes are on disk", b.Connected(), b.spill.inUse())
	}
	release()
	b.nc.Flush() // what was kept goes on with it
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
}

// A server that refuses for a moment, and then is away: the journal waits for a connection, and the tool does not.
func TestServerRefusesAndGoes(t *testing.T) {
	s := startServer(t)
	p := newProxy(t, s.Port())
	b := spilling(t, p.url(), 1<<30)
	var log logged
	b.log = zerolog.New(&log)
	if err := b.js.DeleteStream(t.Context(), b.subjects.Name("REPLY")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j := b.Journal(ctx, "a", 1, contracts.Copies{}, nil)
	f := newFlood(16 << 20)
	var reached atomic.Int64
	written := make(chan error, 1)
	go func() { written <- f.write(b, j, f.chunks(), &reached) }()
	eventually(t, "the journal tries again", func() bool { return strings.Contains(log.String(), "publishing them again") })
	p.cut(true)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	p.cut(false)
	eventually(t, "it is connected again", b.Connected)
	if err := b.Declare(t.Context(), []string{contracts.EngineLocal}); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.check(t, b, "a")
}

// While the spool is published, the tool goes on, and more slowly than the spool becomes empty.
func TestSpoolBecomesEmpty(t *testing.T) {
	s := startRestartable(t)
	p := newProxy(t, s.port)
	b := spilling(t, p.url(), 1<<30)
	j := b.Journal(t.Context(), "a", 1, contracts.Copies{}, nil)
	f := newFlood(12 << 20)
	var reached atomic.Int64
	s.stop(b)
	if err := f.write(b, j, f.chunks(), &reached); err != nil {
		t.Fatal(err)
	}
	p.slow.Store(int64(500 * time.Microsecond))
	s.start()
	eventually(t, "it is not away any more", func() bool { j.mu.Lock(); defer j.mu.Unlock(); return !j.away })
	written := make(chan error, 1)
	var enough atomic.Bool
	go func() {
		var err error
		for err == nil && !enough.Load() {
			err = f.write(b, j, int(reached.Load())+1, &reached)
		}
		written <- err
	}()
	eventually(t, "the tool goes on", func() bool { return reached.Load() > int64(f.chunks())+10 })
	if b.spill.inUse() == 0 {
		t.Error("all was published before the tool went on")
	}
	eventually(t, "the spool is empty", func() bool { return b.spill.inUse() == 0 })
	enough.Store(true)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f.size = int(reached.Load()) * floodChunk
	f.check(t, b, "a")
}

// A file that is not what was written fails the journal: what is wrong is never published.
func TestSpillThatLostItsBytes(t *testing.T) {
	for name, spoil := range map[string]func(*os.File){
		"a byte is another one": func(f *os.File) { f.WriteAt([]byte{'#'}, 300_000) },
		"the end is gone":       func(f *os.File) { f.Truncate(300_000) },
		"lengths are huge":      func(f *os.File) { f.WriteAt(bytes.Repeat([]byte{0xff}, 12), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := startRestartable(t)
			b := spilling(t, s.URL(), 1<<30)
			s.stop(b)
			j := b.Journal(t.Context(), "a", 1, contracts.Copies{}, nil)
			f := newFlood(16 << 20)
			var reached atomic.Int64
			if err := f.write(b, j, f.chunks(), &reached); err != nil {
				t.Fatal(err)
			}
			spoil(j.spool.file)
			s.start()
			if err := j.Flush(); !errors.Is(err, errBadRecord) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("flush: %v", err)
			}
			if b.spill.inUse() != 0 {
				t.Errorf("%d bytes are still used", b.spill.inUse())
			}
			for i, m := range storedChunks(t, b, "a") {
				if want := f.chunk(i+1, make([]byte, floodChunk)); !bytes.Equal(m.Data, want.Data) {
					t.Fatalf("chunk %d is wrong", i+1)
				}
			}
		})
	}
}
