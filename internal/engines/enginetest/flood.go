package enginetest

import (
	"bytes"
	"fmt"
)

// floodBlock is a part of what the testtool's verbs flood and flooderr print: 4096 lines that count.
type floodBlock struct {
	text   []byte
	number int64
}

const (
	floodLines = 4096
	floodSize  = 16 * floodLines
)

// at returns the block of that number. Only the upper digits of its lines are made anew, so that it costs little more
// than the copying.
func (b *floodBlock) at(number int64) []byte {
	if b.text == nil {
		b.number = -1
		b.text = make([]byte, floodSize)
		for i := range floodLines {
			copy(b.text[16*i:], fmt.Sprintf("%015x\n", i))
		}
	}
	if b.number != number {
		b.number = number
		upper := fmt.Sprintf("%012x", number)
		for i := range floodLines {
			copy(b.text[16*i:], upper)
		}
	}
	return b.text
}

// Flood is a writer that checks what the testtool's verbs flood and flooderr print. It fails at the first bytes that are
// not what is due.
type Flood struct {
	Bytes int64 // that were right
	block floodBlock
}

// Write checks p.
func (f *Flood) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		due := f.block.at(f.Bytes / floodSize)[f.Bytes%floodSize:]
		n := min(len(due), len(rest))
		if !bytes.Equal(due[:n], rest[:n]) {
			return len(p) - len(rest), fmt.Errorf("the output is not what the tool printed, somewhere in the %d bytes after byte %d", n, f.Bytes)
		}
		f.Bytes += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// floodText is the first bytes of a flood.
func floodText(size int64) []byte {
	var block floodBlock
	text := make([]byte, 0, size+floodSize)
	for int64(len(text)) < size {
		text = append(text, block.at(int64(len(text))/floodSize)...)
	}
	return text[:size]
}
