package executor

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// capture keeps the first and the last part of a stream for the result, each up to half of most bytes, and so all of a
// stream that is not longer than most. It grows with what is printed.
type capture struct {
	most int
	head []byte
	tail []byte // a ring once it is full
	next int    // where the ring goes on
	all  int64
}

func (c *capture) add(p []byte) {
	c.all += int64(len(p))
	if room := c.most/2 - len(c.head); room > 0 {
		n := min(room, len(p))
		c.head = append(c.head, p[:n]...)
		p = p[n:]
	}
	size := c.most - c.most/2
	if len(p) >= size { // only its end remains
		c.tail, c.next = append(c.tail[:0], p[len(p)-size:]...), 0
		return
	}
	if room := size - len(c.tail); room > 0 {
		n := min(room, len(p))
		c.tail = append(c.tail, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(c.tail[c.next:], p)
		c.next = (c.next + n) % size
		p = p[n:]
	}
}

// parts are what is kept. Where all of the stream is, it is in the first.
func (c *capture) parts() (first, last []byte) {
	last = append(append(make([]byte, 0, len(c.tail)), c.tail[c.next:]...), c.tail[:c.next]...)
	if int64(len(c.head)+len(last)) == c.all {
		return append(c.head[:len(c.head):len(c.head)], last...), nil
	}
	return c.head, last
}

// fill puts both streams into a result, so that they need at most `most` bytes of JSON together. A stream that is shorter
// than its half leaves the rest to the other.
func fill(result *contracts.Result, stdout, stderr *capture, most int) {
	sizeOut, sizeErr := stdout.encodedSize(), stderr.encodedSize()
	budgetOut, budgetErr := most, most
	if sizeOut+sizeErr > most {
		budgetOut = max(most/2, most-sizeErr)
		budgetErr = most - min(budgetOut, sizeOut)
	}
	var cutOut, cutErr bool
	result.Stdout, result.StdoutBase64, cutOut = stdout.fit(budgetOut)
	result.Stderr, result.StderrBase64, cutErr = stderr.fit(budgetErr)
	result.Truncated = cutOut || cutErr
	result.StdoutBytes, result.StderrBytes = stdout.all, stderr.all
}

// encodedSize is what the stream takes in JSON; more than any budget where not all of it was kept.
func (c *capture) encodedSize() int {
	first, last := c.parts()
	if last != nil {
		return c.most * 8
	}
	if utf8.Valid(first) {
		return jsonSize(first)
	}
	return base64Size(len(first))
}

func base64Size(n int) int { return (n + 2) / 3 * 4 }

// fit returns the stream as text, or as bytes where it is not UTF-8, in at most budget bytes of JSON. What does not fit
// is left out in the middle; in text a line says how much.
func (c *capture) fit(budget int) (text string, bytes []byte, cut bool) {
	first, last := c.parts()
	if last == nil && c.encodedSize() <= budget {
		if utf8.Valid(first) {
			return string(first), nil, false
		}
		return "", first, false
	}
	if last == nil {
		last = first
	}
	wholeFirst := first[:len(first)-incompleteRune(first)]
	wholeLast := last
	for len(wholeLast) > 0 && !utf8.RuneStart(wholeLast[0]) && len(last)-len(wholeLast) < utf8.UTFMax {
		wholeLast = wholeLast[1:]
	}
	if utf8.Valid(wholeFirst) && utf8.Valid(wholeLast) {
		const marker = 64 // bytes for the line in the middle
		half := max(0, budget-marker) / 2
		start, end := prefixOf(wholeFirst, half), suffixOf(wholeLast, half)
		left := c.all - int64(len(start)) - int64(len(end))
		return fmt.Sprintf("%s\n[… %d bytes left out …]\n%s", start, left, end), nil, true
	}
	half := budget / 4 * 3 / 2
	start, end := first[:min(half, len(first))], last[max(0, len(last)-half):]
	return "", append(append([]byte{}, start...), end...), true
}

// prefixOf is the longest beginning of valid text that takes at most budget bytes of JSON; suffixOf the longest end.
func prefixOf(text []byte, budget int) []byte {
	n := 0
	for n < len(text) {
		r, size := utf8.DecodeRune(text[n:])
		if budget -= runeSize(r, size); budget < 0 {
			break
		}
		n += size
	}
	return text[:n]
}

func suffixOf(text []byte, budget int) []byte {
	n := len(text)
	for n > 0 {
		r, size := utf8.DecodeLastRune(text[:n])
		if budget -= runeSize(r, size); budget < 0 {
			break
		}
		n -= size
	}
	return text[n:]
}

// jsonSize is the size of valid text as encoding/json writes it without HTML escaping, the quotes left out.
func jsonSize(text []byte) int {
	size := 0
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		size += runeSize(r, n)
		i += n
	}
	return size
}

func runeSize(r rune, size int) int {
	switch {
	case strings.ContainsRune("\"\\\n\r\t\b\f", r):
		return 2
	case r < ' ' || r == '\u2028' || r == '\u2029':
		return 6
	}
	return size
}
