package bus

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/nats-io/nats.go"
)

// A record of a spool is one message, less what its journal knows: a fixed head, the headers, and the bytes. All numbers
// are little-endian.
//
//	0  checksum (CRC-32C) of all that follows
//	4  length of the headers
//	8  length of the bytes
//	12 seq of output; 0 of events
//	20 kind
const recordHead = 21

// Kinds of records.
const (
	recordOutput = 1 + iota
	recordEvent
	recordQuiet // an event without a copy
)

var (
	errBadRecord = errors.New("what was kept on disk is not what was written there")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// recordInfo is the fixed head of a record.
type recordInfo struct {
	kind          byte
	seq           uint64
	headers, data int
	sum           uint32 // of the record
	begun         uint32 // the same of the head alone
}

// size is what follows the head.
func (h recordInfo) size() int { return h.headers + h.data }

// encodeRecord returns the record of a message up to its bytes, which follow it as they are.
func encodeRecord(e *entry) []byte {
	b := make([]byte, recordHead, recordHead+512)
	for name, values := range e.msg.Header {
		for _, value := range values {
			b = appendText(appendText(b, name), value)
		}
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-recordHead))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(e.msg.Data)))
	binary.LittleEndian.PutUint64(b[12:], e.seq)
	switch {
	case e.seq > 0:
		b[20] = recordOutput
	case e.quiet:
		b[20] = recordQuiet
	default:
		b[20] = recordEvent
	}
	sum := crc32.Update(crc32.Checksum(b[4:], castagnoli), castagnoli, e.msg.Data)
	binary.LittleEndian.PutUint32(b, sum)
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeHead reads the head of a record that has at most so many bytes.
func decodeHead(b []byte, most int64) (recordInfo, error) {
	if len(b) < recordHead {
		return recordInfo{}, errBadRecord
	}
	headers, data := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	h := recordInfo{kind: b[20], seq: binary.LittleEndian.Uint64(b[12:]), sum: binary.LittleEndian.Uint32(b), begun: crc32.Checksum(b[4:recordHead], castagnoli)}
	if recordHead+int64(headers)+int64(data) > most ||
		h.kind < recordOutput || h.kind > recordQuiet || (h.kind == recordOutput) != (h.seq > 0) {
		return recordInfo{}, errBadRecord
	}
	h.headers, h.data = int(headers), int(data)
	return h, nil
}

// decode rebuilds the message from what follows the head, but for its subject. Its bytes stay those of body.
func (h recordInfo) decode(body []byte) (*entry, error) {
	if len(body) != h.size() || crc32.Update(h.begun, castagnoli, body) != h.sum {
		return nil, errBadRecord
	}
	header := make(nats.Header, 8)
	for rest := body[:h.headers]; len(rest) > 0; {
		var name, value string
		var ok bool
		if name, rest, ok = cutText(rest); ok {
			value, rest, ok = cutText(rest)
		}
		if !ok {
			return nil, errBadRecord
		}
		header[name] = append(header[name], value)
	}
	return &entry{msg: &nats.Msg{Header: header, Data: body[h.headers:]}, seq: h.seq, quiet: h.kind == recordQuiet}, nil
}

func cutText(b []byte) (string, []byte, bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	return string(b[used : used+int(n)]), b[used+int(n):], true
}
