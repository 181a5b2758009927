package inside

import (
	"bytes"
	"errors"
	"testing"
)

// lines are some output as it comes: both streams, then its continuation, then the end.
func lines() (text []byte, stdout, stderr string) {
	text = append(text, Hello...)
	text = appendFrame(text, 1, 0, []byte("hello "))
	text = appendFrame(text, 2, 0, []byte{0, 0xff, 0xc3})
	text = appendFrame(text, 1, 6, []byte("there"))
	end := End{Code: 137, CPUMS: 1.5, MaxRSS: 4096, Bytes: [2]int64{11, 7}}
	text = append(appendEnd(append(text, moreLine...), end), More...)
	text = appendFrame(text, 2, 3, []byte("more"))
	return appendEnd(text, end), "hello there", "\x00\xff\xc3more"
}

func TestDecoder(t *testing.T) {
	text, stdout, stderr := lines()
	for size := 1; size <= len(text); size++ {
		var d Decoder
		var got [2]bytes.Buffer
		for rest := text; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if err := d.Feed(rest[:min(size, len(rest))], func(stream int, offset int64, data []byte) {
				if offset != int64(got[stream].Len()) {
					t.Fatalf("byte %d comes after %d", offset, got[stream].Len())
				}
				got[stream].Write(data)
			}); err != nil {
				t.Fatalf("in pieces of %d: %s", size, err)
			}
		}
		if got[0].String() != stdout || got[1].String() != stderr || d.End == nil || d.End.Code != 137 || !d.More || d.Last == nil || *d.Last != *d.End {
			t.Fatalf("in pieces of %d: %q %q %+v", size, got[0].String(), got[1].String(), d.End)
		}
	}
}

// TestDecoderGaps: whatever piece is missing, nothing wrong is emitted, and the end is not taken for an end of all.
func TestDecoderGaps(t *testing.T) {
	text, stdout, stderr := lines()
	for from := range text {
		for to := from + 1; to <= len(text); to++ {
			var d Decoder
			var got [2]bytes.Buffer
			err := d.Feed(append(append([]byte{}, text[:from]...), text[to:]...), func(stream int, _ int64, data []byte) { got[stream].Write(data) })
			if err != nil && !errors.Is(err, ErrGap) {
				t.Fatalf("without %d to %d: %s", from, to, err)
			}
			whole := got[0].String() == stdout && got[1].String() == stderr
			if err == nil && d.End != nil && !whole {
				t.Fatalf("without %d to %d nothing is missed: %q %q", from, to, got[0].String(), got[1].String())
			}
			for i, want := range []string{stdout, stderr} {
				if !bytes.HasPrefix([]byte(want), got[i].Bytes()) {
					t.Fatalf("without %d to %d stream %d has %q", from, to, i+1, got[i].String())
				}
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	text, _, _ := lines()
	f.Add(text, 7)
	f.Add([]byte(Hello+"1 0 1000000 AAAA\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		size = max(1, size%4096)
		var d Decoder
		next := [2]int64{}
		for rest := text; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if err := d.Feed(rest[:min(size, len(rest))], func(stream int, offset int64, data []byte) {
				if offset != next[stream] {
					t.Fatalf("byte %d of stream %d comes after %d", offset, stream, next[stream])
				}
				next[stream] += int64(len(data))
			}); err != nil {
				return
			}
		}
	})
}
