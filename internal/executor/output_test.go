package executor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// paper is a journal that keeps what it is given, and is as fast as the test lets it be.
type paper struct {
	mu     sync.Mutex
	ahead  bool
	fail   error
	chunks []contracts.Chunk
	busy   chan struct{} // Output waits for it; nil: does not
}

func (p *paper) Event(contracts.Event) error { return nil }
func (p *paper) Flush() error                { return nil }

func (p *paper) Running(contracts.Event, time.Duration) {}

func (p *paper) Ahead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ahead
}

func (p *paper) Output(c contracts.Chunk, done func()) error {
	if p.busy != nil {
		<-p.busy
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Data = bytes.Clone(c.Data)
	done()
	if p.fail != nil {
		return p.fail
	}
	p.chunks = append(p.chunks, c)
	return nil
}

func (p *paper) setAhead(ahead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead = ahead
}

func (p *paper) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var parts []string
	for _, c := range p.chunks {
		parts = append(parts, fmt.Sprintf("%s %d@%d %q", c.Stream, c.Seq, c.Offset, c.Data))
	}
	return strings.Join(parts, "; ")
}

func newTestOutput(p *paper, limit int64) *output {
	o := newOutput(limit, 1<<10)
	o.open(p)
	return o
}

func TestLinesGoAtOnceWhenNothingIsUnderWay(t *testing.T) {
	p := &paper{ahead: true}
	o := newTestOutput(p, 1<<20)
	stdout, stderr := o.writer(contracts.Stdout), o.writer(contracts.Stderr)
	fmt.Fprint(stdout, "one\n")
	fmt.Fprint(stderr, "oops\n")
	fmt.Fprint(stdout, "two\n")
	if want := `stdout 1@0 "one\n"; stderr 2@0 "oops\n"; stdout 3@4 "two\n"`; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
	o.close()
}

// While the bus is busy what is printed gathers, and leaves when there is room again, without another write.
func TestOutputGathersWhileTheBusIsBusy(t *testing.T) {
	p := &paper{}
	o := newTestOutput(p, 1<<20)
	stdout := o.writer(contracts.Stdout)
	for range 3 {
		fmt.Fprint(stdout, "line\n")
	}
	if p.String() != "" {
		t.Fatalf("left although the bus is busy: %s", p)
	}
	p.setAhead(true)
	o.poke()
	for deadline := time.Now().Add(5 * time.Second); p.String() == "" && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if want := `stdout 1@0 "line\nline\nline\n"`; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
	o.close()
}

func TestFullChunksGoWhateverTheBusDoes(t *testing.T) {
	p := &paper{}
	o := newTestOutput(p, 1<<20)
	stdout := o.writer(contracts.Stdout)
	for range 10 {
		stdout.Write(bytes.Repeat([]byte("x"), 20_000))
	}
	if len(p.chunks) != 3 || len(p.chunks[0].Data) != chunkSize {
		t.Errorf("%d chunks", len(p.chunks))
	}
	o.close()
	if len(p.chunks) != 4 {
		t.Errorf("%d chunks at the end", len(p.chunks))
	}
}

// A writer waits for a bus that takes nothing, and no more than a chunk is kept.
func TestOutputMakesTheToolWait(t *testing.T) {
	p := &paper{busy: make(chan struct{})}
	o := newTestOutput(p, 1<<30)
	wrote := make(chan struct{})
	go func() {
		o.writer(contracts.Stdout).Write(make([]byte, 10*chunkSize))
		close(wrote)
	}()
	select {
	case <-wrote:
		t.Fatal("did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	close(p.busy)
	<-wrote
	o.close()
}

// A run whose output can never be stored has it read all the same, so that the tool does not hang.
func TestOutputThatCannotBeStoredIsDropped(t *testing.T) {
	p := &paper{ahead: true, fail: errors.New("for ever")}
	o := newTestOutput(p, 1<<20)
	for range 100 {
		if n, err := o.writer(contracts.Stdout).Write(make([]byte, 1000)); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	o.close()
}

func TestChunksEndBetweenCharacters(t *testing.T) {
	p := &paper{ahead: true}
	o := newTestOutput(p, 1<<20)
	stdout, stderr := o.writer(contracts.Stdout), o.writer(contracts.Stderr)
	text := []byte("aé€😀")
	for _, b := range text { // byte by byte
		stdout.Write([]byte{b})
	}
	if want := `stdout 1@0 "a"; stdout 2@1 "é"; stdout 3@3 "€"; stdout 4@6 "😀"`; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
	// The other stream may come between the halves of a character.
	p.chunks = nil
	stdout.Write([]byte("\xe2\x82"))
	fmt.Fprint(stderr, "!")
	stdout.Write([]byte("\xac"))
	if want := `stderr 5@0 "!"; stdout 6@10 "€"`; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
	// At the end there is no more to wait for, and bytes that are no characters are not waited for at all.
	p.chunks = nil
	stdout.Write([]byte{0xff, 0xfe, 0x80, 0xe2})
	o.close()
	if want := `stdout 7@13 "\xff\xfe\x80"; stdout 8@16 "\xe2"`; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
}

func TestOutputLimitIsExact(t *testing.T) {
	p := &paper{ahead: true}
	o := newTestOutput(p, 10)
	calls := 0
	o.onLimit = func() { calls++ }
	o.writer(contracts.Stdout).Write([]byte("123456"))
	o.writer(contracts.Stderr).Write([]byte("abcdefgh"))
	o.writer(contracts.Stdout).Write([]byte("7890"))
	o.close()
	if want := `stdout 1@0 "123456"; stderr 2@0 "abcd"`; p.String() != want || o.dropped != 8 || calls != 1 {
		t.Errorf("%s, %d dropped, %d calls", p, o.dropped, calls)
	}
}

// However it is written, what was written to a stream is what its chunks are, in order, with the right numbers.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("héllo wörld"), uint64(1))
	f.Add([]byte{0xe2, 0x82, 0xff, 0xf0, 0x9f, 0x98}, uint64(7))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		data = bytes.Repeat(data, 1+random.IntN(2000))
		data = data[:min(len(data), 300_000)]
		p := &paper{}
		o := newTestOutput(p, 1<<30)
		var want [2][]byte
		for rest := data; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(100_000)))
			of := random.IntN(2)
			p.setAhead(random.IntN(2) == 0)
			streamWriter{o, of}.Write(rest[:n])
			want[of] = append(want[of], rest[:n]...)
			rest = rest[n:]
		}
		o.close()
		var got [2][]byte
		for i, c := range p.chunks {
			of := 0
			if c.Stream == contracts.Stderr {
				of = 1
			}
			if c.Seq != uint64(i+1) || c.Offset != int64(len(got[of])) || len(c.Data) == 0 || len(c.Data) > chunkSize {
				t.Fatalf("chunk %d: %s %d@%d, %d bytes", i, c.Stream, c.Seq, c.Offset, len(c.Data))
			}
			got[of] = append(got[of], c.Data...)
			if len(got[of]) < len(want[of]) && utf8.Valid(want[of]) && !utf8.Valid(c.Data) {
				t.Fatalf("chunk %d is cut inside of a character", i)
			}
		}
		if !bytes.Equal(got[0], want[0]) || !bytes.Equal(got[1], want[1]) {
			t.Fatal("the chunks are not what was written")
		}
	})
}
