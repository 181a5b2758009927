// Package inside is what runs beside a tool in a container of the Dagger engine: it starts the tool, and says on its own
// standard streams what the tool printed and how it ended.
//
// Why it is there: a Dagger engine keeps output as text. In its log stream a piece that is not valid UTF-8 is missing
// altogether, even where only the end of a read fell into a character; in stdout() such bytes are replaced. Exit codes of 128
// to 191 count as errors there, after which nothing of the container can be read, and a signal looks like an exit. So the
// output goes through in lines of ASCII that say where they belong: nothing is lost unseen, and all of it can be read again
// at the end of the run.
//
//	frame.go        the lines, and how they are read
//	plan.go         what is to be started
//	main_linux.go   the program in the container
//
// The package imports little, because the program in the container begins with it.
package inside

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// Hello is the first line. A stream that does not begin with it is not ours.
const Hello = "executor 1\n"

// The lines go to standard output until that has FirstBytes, so that it can be asked for as a whole with the end of a run, which
// is quickest. Then the line moreLine says that all others are on standard error, which begins with More. The last line is on standard
// output as well, so that the end of a tool is known where the others cannot be had.
const (
	FirstBytes = 1 << 20
	More       = "executor 1 more\n"
	moreLine   = "more\n"
)

// frameBytes is the most that one line holds of a stream. As base64 it fits into one read of the engine.
const frameBytes = 23 << 10

// maxLine bounds a line, so that a stream that is not ours cannot fill the memory.
const maxLine = 1 << 20

// End is the last line: how the tool ended.
type End struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"` // that ended it, as SIGKILL
	// Unstarted says why the tool could not be started; then it did not run at all.
	Unstarted string  `json:"unstarted,omitempty"`
	Root      bool    `json:"root,omitempty"` // because its user is root
	CPUMS     float64 `json:"cpu_ms"`
	MaxRSS    int64   `json:"max_rss"` // in bytes
	Began     int64   `json:"began"`   // Unix time in milliseconds, which tells an end of now from one of a cache

	// Dropped are the bytes beyond Plan.Most.
	Dropped int64 `json:"dropped,omitempty"`

	// Bytes are those of each stream that were not dropped, so that the last ones cannot be missing unseen.
	Bytes [2]int64 `json:"bytes"`
}

// appendFrame writes a line: the stream (1 or 2), the offset in it, a sum over all of it, the bytes.
func appendFrame(to []byte, stream int, offset int64, p []byte) []byte {
	to = strconv.AppendInt(to, int64(stream), 10)
	to = append(to, ' ')
	to = strconv.AppendInt(to, offset, 10)
	to = append(to, ' ')
	to = strconv.AppendUint(to, uint64(sum(stream, offset, p)), 16)
	to = append(to, ' ')
	to = base64.StdEncoding.AppendEncode(to, p)
	return append(to, '\n')
}

// sum tells a line from what two halves of others make, where something between them is missing.
func sum(stream int, offset int64, p []byte) uint32 {
	var place [9]byte
	place[0] = byte(stream)
	binary.LittleEndian.PutUint64(place[1:], uint64(offset))
	return crc32.Update(crc32.ChecksumIEEE(place[:]), crc32.IEEETable, p)
}

func appendEnd(to []byte, end End) []byte {
	text, _ := json.Marshal(end) // numbers and text: it cannot fail
	to = append(append(to, "x "...), text...)
	return append(to, '\n')
}

// ErrGap means that lines are missing, or are not ours.
var ErrGap = errors.New("lines of the output are missing")

// Decoder reads the lines, which may come in pieces of any size. The zero value is at the beginning.
type Decoder struct {
	End  *End // nil until the last line
	More bool // the rest comes on standard error; nothing else of standard output has to be fed
	Last *End // of what comes in between: how the tool ended, though not all lines are there

	line    []byte
	begun   bool
	resumed bool // More has come
	offsets [2]int64
	buffer  []byte
}

// Feed takes a piece and calls emit with what it holds of the streams (0: stdout, 1: stderr), in order and without gaps; data is
// valid until emit returns. After an error, which wraps ErrGap, nothing more is to be fed.
func (d *Decoder) Feed(p []byte, emit func(stream int, offset int64, data []byte)) error {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			if d.line = append(d.line, p...); len(d.line) > maxLine {
				return fmt.Errorf("%w: a line is too long", ErrGap)
			}
			return nil
		}
		line := p[:end+1]
		if len(d.line) > 0 {
			d.line = append(d.line, line...)
			line = d.line
		}
		if err := d.take(line, emit); err != nil {
			return err
		}
		d.line = d.line[:0]
		p = p[end+1:]
	}
	return nil
}

func (d *Decoder) take(line []byte, emit func(int, int64, []byte)) error {
	switch {
	case !d.begun:
		if string(line) != Hello {
			return fmt.Errorf("%w: the first is %.40q", ErrGap, line)
		}
		d.begun = true
		return nil
	case string(line) == moreLine && !d.More:
		d.More = true
		return nil
	case string(line) == More && d.More:
		d.resumed = true
		return nil
	case d.More && !d.resumed && bytes.HasPrefix(line, []byte("x ")):
		last := &End{}
		if err := json.Unmarshal(line[2:], last); err != nil {
			return fmt.Errorf("%w: the end: %w", ErrGap, err)
		}
		d.Last = last
		return nil
	case d.End != nil:
		return fmt.Errorf("%w: something comes after the end", ErrGap)
	case bytes.HasPrefix(line, []byte("x ")):
		end := &End{}
		if err := json.Unmarshal(line[2:], end); err != nil {
			return fmt.Errorf("%w: the end: %w", ErrGap, err)
		}
		if end.Bytes != d.offsets {
			return fmt.Errorf("%w: the end came after %d bytes of %d", ErrGap, d.offsets, end.Bytes)
		}
		d.End = end
		return nil
	}
	fields := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
	if len(fields) != 4 || len(fields[0]) != 1 || fields[0][0] != '1' && fields[0][0] != '2' {
		return fmt.Errorf("%w: %.40q", ErrGap, line)
	}
	stream := int(fields[0][0] - '1')
	offset, err := strconv.ParseInt(string(fields[1]), 10, 64)
	check, err2 := strconv.ParseUint(string(fields[2]), 16, 32)
	if err != nil || err2 != nil || offset != d.offsets[stream] {
		return fmt.Errorf("%w: %.40q where byte %d of stream %d was due", ErrGap, line, d.offsets[stream], stream+1)
	}
	d.buffer, err = base64.StdEncoding.AppendDecode(d.buffer[:0], fields[3])
	if err != nil || sum(stream+1, offset, d.buffer) != uint32(check) {
		return fmt.Errorf("%w: a line at byte %d of stream %d is damaged", ErrGap, offset, stream+1)
	}
	d.offsets[stream] += int64(len(d.buffer))
	emit(stream, offset, d.buffer)
	return nil
}
