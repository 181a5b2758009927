package contracts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ParseYAML returns the documents of a YAML text as plain trees that know their positions: aliases are followed, merge
// keys ("<<") carried out, and tags are those of JSON's types and !!timestamp. The tree of a JSON text is made by
// ParseJSON instead: YAML parsers do not read all of JSON. An error is of type Problems.
func ParseYAML(file string, text []byte) ([]*yaml.Node, error) {
	if i, what := notYAML(text); i >= 0 {
		line, column := position(text, i)
		return nil, Problems{{File: file, Line: line, Column: column, Message: what}}
	}
	var documents []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	resolve := resolver{file: file, open: map[*yaml.Node]bool{}}
	for {
		var document yaml.Node
		err := decodeYAML(decoder, &document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, Problems{yamlProblem(file, text, err)}
		}
		if document.Kind == yaml.DocumentNode && len(document.Content) == 1 {
			root, err := resolve.plain(document.Content[0], 0)
			if err != nil {
				return nil, err
			}
			if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
				continue // an empty document, as after a trailing "---"
			}
			documents = append(documents, root)
		}
	}
}

// decodeYAML turns the panics that the parser has for some malformed input into errors.
func decodeYAML(decoder *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read: %v", r)
		}
	}()
	return decoder.Decode(into)
}

// notYAML finds the first byte that no YAML text holds, which the parser would report without its place; -1: none.
func notYAML(text []byte) (offset int, what string) {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			return i, "is not UTF-8 text"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return i, fmt.Sprintf(`is not YAML: holds the control character %U; leave it out, or write it in double quotes, as "\u%04x"`, r, r)
		}
		i += size
	}
	return -1, ""
}

var (
	yamlError = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(?s)(.*)$`)

	// The parser counts lines from 0 in errors of its grammar, and from 1 in those of its scanner.
	yamlGrammar = regexp.MustCompile(`^did not find expected (<|node content|key|'-' indicator|',' or)|^found (incompatible|duplicate|undefined)`)

	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// yamlHints say what to write instead, for the errors of the parser that people meet. Where pattern is found, from the
// line that the parser names on, there is the column, which the parser does not know.
var yamlHints = []struct {
	says, hint string
	pattern    *regexp.Regexp
}{
	{"tab character that violates", "a tab indents this line; write spaces", regexp.MustCompile(`(?m)^ *(\t)`)},
	{"cannot start any token", "a tab indents this line; write spaces", regexp.MustCompile(`(?m)^ *(\t)`)},
	{"cannot start any token", "text that begins with @, ` or % needs quotes", regexp.MustCompile("(?m)(?:^|[:,\\[{-]) *([@`%])")},
	{"did not find expected alphabetic", "text that begins with * or & needs quotes", regexp.MustCompile(`(?m)(?:^|[:,\[{-]) *([*&])`)},
	{"mapping values are not allowed", `text that holds ": " needs quotes`, regexp.MustCompile(`\A[^\n]*: [^\n]*(:)(?:\s|\z)`)},
	{"mapping values are not allowed", "this line is indented deeper than the one before allows", regexp.MustCompile(`\A *([^ ])`)},
	{"did not find expected key", "the indentation, a bracket or a quote of this block is wrong", nil},
	{"did not find expected '-' indicator", "the elements of a list begin with - in one column, and nothing stands between them", nil},
	{"did not find expected ',' or", "a bracket is not closed, or a comma is missing", nil},
	{"unexpected end of stream", "a quote is not closed", nil},
	{"unknown escape character", `in double quotes \ begins an escape: write \\, or use single quotes`, regexp.MustCompile(`(\\)[^0abtnvfre "/\\N_LPxuU\t\n]`)},
	{"block sequence entries are not allowed", "a list begins in a line of its own", nil},
}

// yamlProblem makes one of our problems of what the parser says.
func yamlProblem(file string, text []byte, err error) Problem {
	m := yamlError.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(m[1]) // 0 stands for the first
	if yamlGrammar.MatchString(m[2]) {
		line++
	}
	last, _ := position(text, len(bytes.TrimRight(text, "\r\n")))
	line = min(line, last) // at the end the parser is one line further
	p := Problem{File: file, Line: max(line, 1), Message: "is not YAML: " + m[2]}
	from := lineStart(text, line)
	if a := unknownAnchor.FindStringSubmatch(m[2]); a != nil {
		p.Line, p.Column = position(text, max(0, bytes.Index(text, []byte("*"+a[1]))))
		p.Message = fmt.Sprintf("is not YAML: nothing before has the anchor &%s; text that begins with * needs quotes", a[1])
	}
	for _, h := range yamlHints {
		if !strings.Contains(m[2], h.says) {
			continue
		}
		if h.pattern == nil {
			p.Message += "; " + h.hint
			break
		}
		if place := h.pattern.FindSubmatchIndex(text[from:]); place != nil {
			p.Line, p.Column = position(text, from+place[2])
			p.Message = "is not YAML: " + h.hint
			break
		}
	}
	return p
}

// lineStart is the offset at which a line begins.
func lineStart(text []byte, line int) int {
	from := 0
	for ; line > 1; line-- {
		end := bytes.IndexByte(text[from:], '\n')
		if end < 0 {
			return from
		}
		from += end + 1
	}
	return from
}

// resolver makes plain trees of the parser's.
type resolver struct {
	file  string
	nodes int
	open  map[*yaml.Node]bool // what is being copied
}

// scalarTags are the tags that scalars may have, and what they are in a plain tree.
var scalarTags = map[string]string{"!!str": "!!str", "!!int": "!!int", "!!float": "!!float", "!!bool": "!!bool", "!!null": "!!null",
	"!!timestamp": "!!timestamp", "!!merge": "!!str"} // "<<" where it is no key

// plain returns a copy of the tree in which every value stands at its own place. Nothing is shared, so that what a
// caller changes about one value it changes about that one alone.
func (r *resolver) plain(n *yaml.Node, depth int) (*yaml.Node, error) {
	alias := n
	n = named(n)
	if r.open[n] {
		return nil, r.problem(alias, "the alias *%s stands inside of what it names", alias.Value)
	}
	if r.nodes++; r.nodes > maxNodes {
		return nil, r.problem(n, "has more than %d values, those of its aliases counted", maxNodes)
	}
	plain := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value, Line: n.Line, Column: n.Column}
	switch {
	case n.Kind == yaml.ScalarNode:
		tag, known := scalarTags[n.Tag]
		untagged := (&yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}).ShortTag()
		if !known {
			return nil, r.problem(n, "the tag %s is not supported; leave it out", quote(n.Tag))
		}
		agree := tag == untagged || tag == "!!str" || tag == "!!float" && untagged == "!!int"
		if n.Style&yaml.TaggedStyle != 0 && !agree {
			return nil, r.problem(n, "%s is not what its tag %s says; leave the tag out", quote(n.Value), n.Tag)
		}
		plain.Tag = tag
		return plain, nil
	case n.Kind == yaml.MappingNode && n.Tag != "!!map", n.Kind == yaml.SequenceNode && n.Tag != "!!seq":
		return nil, r.problem(n, "the tag %s is not supported here; leave it out", quote(n.Tag))
	case depth == maxDepth:
		return nil, r.problem(n, "is nested deeper than %d levels; make it flatter", maxDepth)
	}
	r.open[n] = true
	defer delete(r.open, n)
	if n.Kind == yaml.MappingNode {
		return plain, r.mapping(n, plain, depth+1)
	}
	for _, one := range n.Content {
		element, err := r.plain(one, depth+1)
		if err != nil {
			return nil, err
		}
		plain.Content = append(plain.Content, element)
	}
	return plain, nil
}

// mapping fills plain with the keys and values of n: first what is written out, then what is merged in and not there yet.
func (r *resolver) mapping(n, plain *yaml.Node, depth int) error {
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := named(n.Content[i]), n.Content[i+1]
		if key.Tag == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return r.problem(key, "is %s where a key should be; a key is plain text", describe(key))
		}
		for _, one := range []*yaml.Node{key, value} {
			child, err := r.plain(one, depth)
			if err != nil {
				return err
			}
			plain.Content = append(plain.Content, child)
		}
	}
	if len(merges) == 0 {
		return nil
	}
	given := map[string]bool{}
	for i := 0; i < len(plain.Content); i += 2 {
		given[plain.Content[i].Value] = true
	}
	for _, one := range merges {
		source, err := r.plain(one, depth)
		if err != nil {
			return err
		}
		list := []*yaml.Node{source}
		if source.Kind == yaml.SequenceNode {
			list = source.Content
		}
		for _, m := range list {
			if m.Kind != yaml.MappingNode {
				return r.problem(m, "is %s; the merge key << takes a mapping or a list of mappings", describe(m))
			}
			for i := 0; i < len(m.Content); i += 2 {
				if key := m.Content[i]; !given[key.Value] {
					given[key.Value] = true
					plain.Content = append(plain.Content, key, m.Content[i+1])
				}
			}
		}
	}
	return nil
}

func (r *resolver) problem(n *yaml.Node, format string, a ...any) error {
	return Problems{{File: r.file, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, a...)}}
}

// named is the value that an alias stands for; other nodes stand for themselves.
func named(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}
