package contracts

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Problem is one mistake in a document: where it is, and what to write instead.
type Problem struct {
	File    string // as given to the parser; "" where the text came over the bus
	Line    int    // from 1; 0 where the place is unknown
	Column  int    // from 1, in characters; 0 where only the line is known
	Path    string // the key, as engine_spec.mounts[0]; "" for the document itself
	Message string // what is wrong and how to mend it
}

// String is file:line:column: path: message, without the parts that are unknown.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		b.WriteByte(':')
	}
	if p.Line > 0 {
		if p.File == "" {
			b.WriteString("line ")
		}
		fmt.Fprintf(&b, "%d:", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, "%d:", p.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are all mistakes found in one document, in the order of the text. They are an error.
type Problems []Problem

// Error has one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Bounds of what one bad document can make us say.
const (
	maxProblems = 20
	maxWords    = 20 // names in one message
)

// position is the place of an offset: line and column count from 1, columns in characters.
func position(text []byte, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[1+bytes.LastIndexByte(before, '\n'):])
}

// Closest returns the candidate that a person most likely meant by word: one that differs by at most a third of its
// letters (one letter in short words), upper and lower case, "-" and "_" being the same. It returns "" where none is near.
func Closest(word string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		a, b := fold(word), fold(c)
		if d := distance(a, b); d < bestDistance && d < max(1, len(a), len(b)) {
			best, bestDistance = c, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 { // nobody mistypes 64 letters; keeps hostile input cheap
		if a == b {
			return 0
		}
		return max(len(a), len(b))
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, previous, row := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

// didYouMean is the end of a message about an unknown word: the nearest candidate, else all of them.
func didYouMean(word string, candidates []string) string {
	switch near := Closest(word, candidates); {
	case near != "":
		return fmt.Sprintf("did you mean %q?", near)
	case len(candidates) == 0:
		return "there are none"
	}
	return "known are " + words(candidates)
}

// words lists the first of many.
func words(list []string) string {
	if more := len(list) - maxWords; more > 0 {
		return strings.Join(list[:maxWords], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(list, ", ")
}
