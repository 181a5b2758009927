package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ParseJSON returns one JSON value as a tree that knows its positions. It is stricter than encoding/json: text after
// the value, invalid UTF-8, lone surrogates and nesting beyond 32 levels are errors. An error is of type Problems.
func ParseJSON(file string, text []byte) (*yaml.Node, error) {
	p := jsonParser{file: file, text: text, line: 1, column: 1}
	if i := invalidUTF8(text); i >= 0 {
		return nil, p.problem(i, "is not UTF-8 text")
	}
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		return nil, p.problem(0, "begins with a byte order mark (U+FEFF); leave it out")
	}
	p.space()
	if p.at == len(text) {
		return nil, p.problem(0, "is empty; it must be a JSON object")
	}
	root, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(text) {
		return nil, p.problem(p.at, "has more text after the JSON value")
	}
	return root, nil
}

func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	i := 0
	for {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
}

// jsonParser reads JSON (RFC 8259) from left to right. encoding/json cannot be used: it does not say where a value begins.
type jsonParser struct {
	file  string
	text  []byte
	at    int // offset of what is read next
	nodes int

	line, column, counted int // the place of the offset counted
}

// place is line and column of an offset that is not before the last one asked for.
func (p *jsonParser) place(offset int) (line, column int) {
	for ; p.counted < offset; p.counted++ {
		switch c := p.text[p.counted]; {
		case c == '\n':
			p.line, p.column = p.line+1, 1
		case utf8.RuneStart(c):
			p.column++
		}
	}
	return p.line, p.column
}

func (p *jsonParser) problem(offset int, format string, a ...any) error {
	line, column := position(p.text, offset)
	return Problems{{File: p.file, Line: line, Column: column, Message: fmt.Sprintf(format, a...)}}
}

func (p *jsonParser) notJSON(format string, a ...any) error {
	if p.at >= len(p.text) {
		return p.problem(len(p.text), "is not JSON: the text ends in the middle of a value")
	}
	return p.problem(p.at, "is not JSON: "+format, a...)
}

func (p *jsonParser) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\n' || p.text[p.at] == '\t' || p.text[p.at] == '\r') {
		p.at++
	}
}

// next is the byte that is read next; 0 at the end.
func (p *jsonParser) next() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// value reads one value; white space before it was read.
func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	n.Line, n.Column = p.place(p.at)
	if p.nodes++; p.nodes > maxNodes {
		return nil, p.problem(p.at, "has more than %d values", maxNodes)
	}
	var err error
	switch c := p.next(); c {
	case '{', '[':
		if depth == maxDepth {
			return nil, p.problem(p.at, "is nested deeper than %d levels; make it flatter", maxDepth)
		}
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if c == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		n.Content, err = p.elements(c+2, depth+1) // in ASCII, ] and } come two after [ and {
	case '"':
		n.Tag = "!!str"
		n.Value, err = p.string()
	default:
		n.Value, n.Tag, err = p.word()
	}
	return n, err
}

// elements reads an array or object from its bracket to the closing one. Keys and values of an object come in turn, as
// yaml.Node has them.
func (p *jsonParser) elements(closing byte, depth int) ([]*yaml.Node, error) {
	p.at++
	p.space()
	if p.next() == closing {
		p.at++
		return nil, nil
	}
	var list []*yaml.Node
	for {
		if closing == '}' {
			if p.next() != '"' {
				return nil, p.notJSON("a key should be here, in double quotes")
			}
			key, err := p.value(depth)
			if err != nil {
				return nil, err
			}
			if p.space(); p.next() != ':' {
				return nil, p.notJSON("a colon should be here, after the key")
			}
			p.at++
			p.space()
			list = append(list, key)
		}
		element, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, element)
		p.space()
		switch p.next() {
		case ',':
			comma := p.at
			p.at++
			if p.space(); p.next() == closing {
				p.at = comma
				return nil, p.notJSON("a comma stands before %c; leave it out", closing)
			}
		case closing:
			p.at++
			return list, nil
		default:
			return nil, p.notJSON("a comma or %c should be here", closing)
		}
	}
}

// string reads a string from quote to quote.
func (p *jsonParser) string() (string, error) {
	start, escapes := p.at, false
	for p.at++; p.next() != '"'; p.at++ {
		switch c := p.next(); {
		case c == '\\':
			escapes = true
			p.at++
		case c < ' ':
			return "", p.notJSON(`a string holds the control character %U; write \u%04x`, c, c)
		}
	}
	p.at++
	literal := p.text[start:p.at]
	if !escapes {
		return string(literal[1 : len(literal)-1]), nil
	}
	var s string
	if err := json.Unmarshal(literal, &s); err != nil {
		return "", p.problem(start, `is not JSON: a string holds an unknown escape; there are \" \\ \/ \b \f \n \r \t and \u0000 to \uffff`)
	}
	if strings.ContainsRune(s, utf8.RuneError) && loneSurrogate(literal) {
		return "", p.problem(start, `holds half of a surrogate pair (\ud800 to \udfff) in a string; write the character itself, or both halves`)
	}
	return s, nil
}

// word reads a number, true, false or null.
func (p *jsonParser) word() (word, tag string, err error) {
	end := p.at
	for end < len(p.text) && strings.IndexByte(" \t\r\n,:[]{}\"", p.text[end]) < 0 {
		end++
	}
	word = string(p.text[p.at:end])
	switch {
	case word == "null":
		tag = "!!null"
	case word == "true", word == "false":
		tag = "!!bool"
	case !jsonNumber(word):
		if word == "" {
			return "", "", p.notJSON("a value should be here")
		}
		return "", "", p.notJSON("%s is no value; write a number, true, false, null, or text in double quotes", quote(word))
	case strings.ContainsAny(word, ".eE"):
		tag = "!!float"
	default:
		tag = "!!int"
	}
	p.at = end
	return word, tag, nil
}

// loneSurrogate reports whether the JSON string literal holds an escape of half a surrogate pair, which encoding/json
// would silently replace.
func loneSurrogate(literal []byte) bool {
	for i := 0; i < len(literal)-1; i++ {
		if literal[i] != '\\' {
			continue
		}
		i++
		if literal[i] != 'u' {
			continue
		}
		switch r := hexRune(literal[i:]); {
		case r >= 0xdc00 && r < 0xe000:
			return true
		case r >= 0xd800 && r < 0xdc00:
			next := literal[min(i+5, len(literal)):]
			if len(next) < 6 || next[0] != '\\' || hexRune(next[1:])&^0x3ff != 0xdc00 {
				return true
			}
			i += 10
		default:
			i += 4
		}
	}
	return false
}

// hexRune reads "uXXXX"; -1 where it is something else.
func hexRune(s []byte) int {
	if len(s) < 5 || s[0] != 'u' {
		return -1
	}
	r, err := strconv.ParseUint(string(s[1:5]), 16, 32)
	if err != nil {
		return -1
	}
	return int(r)
}
