package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
)

// The file of a spool is private, and its space goes back while it is read.
func TestSpoolFile(t *testing.T) {
	shared := &spill{dir: t.TempDir(), most: 1 << 30}
	q := &spool{shared: shared}
	e := entry{msg: &nats.Msg{Header: nats.Header{"A": {"b"}}, Data: bytes.Repeat([]byte("x"), 64<<10)}, seq: 1}
	for range 512 {
		if err := q.append(&e); err != nil {
			t.Fatal(err)
		}
	}
	info, err := q.file.Stat()
	if err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Nlink != 0 {
		t.Errorf("it has %d names", stat.Nlink)
	}
	blocks := func() int64 {
		info, err := q.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	whole := blocks()
	for i := range 512 {
		if i == 256 {
			if left, used := blocks(), shared.inUse(); left > whole/2+2*giveBack || used > whole/2+2*giveBack {
				t.Errorf("half of it is read, and it still takes %d of %d bytes, and %d are counted", left, whole, used)
			}
		}
		got, err := q.next()
		if err != nil || !bytes.Equal(got.msg.Data, e.msg.Data) || got.msg.Header.Get("A") != "b" {
			t.Fatal(err)
		}
		got.free()
	}
	if q.file != nil || shared.inUse() != 0 {
		t.Errorf("it is empty and has %d bytes", shared.inUse())
	}
	if got, err := q.next(); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	q.close()
	if err := q.append(&e); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after its end: %v", err)
	}
}

func TestRecords(t *testing.T) {
	for name, e := range map[string]entry{
		"output":               {seq: 1 << 60, msg: &nats.Msg{Header: nats.Header{"A": {"b"}, "Empty": {""}, "Two": {"x", "y"}}, Data: []byte{0, 255, '\n'}}},
		"an event":             {msg: &nats.Msg{Header: nats.Header{"A": {strings.Repeat("ä", 1000)}}, Data: []byte("{}")}},
		"one without a copy":   {quiet: true, msg: &nats.Msg{Data: []byte("{}")}},
		"one without anything": {msg: &nats.Msg{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeRecord(append(encodeRecord(&e), e.msg.Data...))
			if err != nil {
				t.Fatal(err)
			}
			sameRecord(t, got, &e)
		})
	}
}

func decodeRecord(b []byte) (*entry, error) {
	head, err := decodeHead(b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	return head.decode(b[recordHead : recordHead+head.size()])
}

func sameRecord(t *testing.T, got, want *entry) {
	t.Helper()
	if got.seq != want.seq || got.quiet != want.quiet || !bytes.Equal(got.msg.Data, want.msg.Data) || len(got.msg.Header) != len(want.msg.Header) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for name, values := range want.msg.Header {
		if strings.Join(got.msg.Header[name], "|") != strings.Join(values, "|") {
			t.Errorf("%s is %q, want %q", name, got.msg.Header[name], values)
		}
	}
}

// FuzzRecord: whatever stands in a file is refused, or is a record that is written as it was read.
func FuzzRecord(f *testing.F) {
	for _, e := range []entry{
		{seq: 7, msg: &nats.Msg{Header: nats.Header{"A": {"b", "c"}}, Data: []byte("text")}},
		{quiet: true, msg: &nats.Msg{Header: nats.Header{}}},
	} {
		f.Add(append(encodeRecord(&e), e.msg.Data...), true)
	}
	f.Add([]byte{}, false)
	f.Add(bytes.Repeat([]byte{0xff}, 64), false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) >= recordHead { // a sum that is right lets the rest be reached
			mendSum(b)
		}
		got, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := decodeRecord(append(encodeRecord(got), got.msg.Data...))
		if err != nil {
			t.Fatal(err)
		}
		sameRecord(t, again, got)
	})
}

// mendSum makes the sum of a record right.
func mendSum(b []byte) {
	end := uint64(recordHead) + uint64(binary.LittleEndian.Uint32(b[4:])) + uint64(binary.LittleEndian.Uint32(b[8:]))
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:min(end, uint64(len(b)))], castagnoli))
}
