package contracts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits of a document. They bound what hostile input costs; real documents stay far below.
const (
	maxDepth = 32      // levels of nesting
	maxNodes = 200_000 // values, after aliases are followed (a YAML "billion laughs" ends here)
)

// ParseYAML returns the documents of a YAML text as trees that know their positions. The tree of a JSON text is
// made by ParseJSON instead: YAML parsers do not read all of JSON. An error is of type Problems.
func ParseYAML(file string, text []byte) ([]*yaml.Node, error) {
	if !utf8.Valid(text) {
		return nil, Problems{{File: file, Message: "is not UTF-8 text"}}
	}
	var documents []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := decodeYAML(decoder, &document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, Problems{yamlProblem(file, err)}
		}
		if document.Kind == yaml.DocumentNode && len(document.Content) == 1 {
			root := document.Content[0]
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
			err = fmt.Errorf("cannot be read as YAML: %v", r)
		}
	}()
	return decoder.Decode(into)
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(?s)(.*)$`)

func yamlProblem(file string, err error) Problem {
	m := yamlLine.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(m[1])
	p := Problem{File: file, Line: line, Message: "is not YAML: " + m[2]}
	if line > 0 {
		p.Column = 1
	}
	if strings.Contains(m[2], "found character that cannot start any token") {
		p.Message += " (a tab at the begin of a line? YAML indents by spaces)"
	}
	return p
}

// ParseJSON returns one JSON value as a tree that knows its positions. It is stricter than encoding/json: text after
// the value, invalid UTF-8, lone surrogates and nesting beyond 32 levels are errors. An error is of type Problems.
func ParseJSON(file string, text []byte) (*yaml.Node, error) {
	p := jsonParser{file: file, text: text, line: 1}
	if !utf8.Valid(text) {
		return nil, p.problem(0, "is not UTF-8 text")
	}
	p.decoder = json.NewDecoder(bytes.NewReader(text))
	p.decoder.UseNumber()
	root, err := p.value(0)
	if err != nil {
		return nil, err
	}
	end := int(p.decoder.InputOffset())
	if rest := bytes.TrimLeft(text[end:], " \t\r\n"); len(rest) > 0 {
		return nil, p.problem(len(text)-len(rest), "there is more text after the JSON value")
	}
	return root, nil
}

type jsonParser struct {
	file    string
	text    []byte
	decoder *json.Decoder
	nodes   int

	// line is that of offset counted, lineStart the offset at which it begins.
	line, counted, lineStart int
}

func (p *jsonParser) position(offset int) (line, column int) {
	for i := p.counted; i < offset; i++ {
		if p.text[i] == '\n' {
			p.line++
			p.lineStart = i + 1
		}
	}
	p.counted = max(p.counted, offset)
	return p.line, offset - p.lineStart + 1
}

func (p *jsonParser) problem(offset int, message string) error {
	line, column := p.position(min(offset, len(p.text)))
	return Problems{{File: p.file, Line: line, Column: column, Message: message}}
}

// start is the offset of the next token: encoding/json tells only where one ends.
func (p *jsonParser) start() int {
	i := int(p.decoder.InputOffset())
	for i < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[i]) >= 0 {
		i++
	}
	return i
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	start := p.start()
	token, err := p.decoder.Token()
	if err != nil {
		return nil, p.tokenError(start, err)
	}
	if p.nodes++; p.nodes > maxNodes {
		return nil, p.problem(start, fmt.Sprintf("has more than %d values", maxNodes))
	}
	node := &yaml.Node{Kind: yaml.ScalarNode}
	node.Line, node.Column = p.position(start)
	switch t := token.(type) {
	case nil:
		node.Tag, node.Value = "!!null", "null"
	case bool:
		node.Tag, node.Value = "!!bool", strconv.FormatBool(t)
	case json.Number:
		node.Tag, node.Value = "!!int", t.String()
		if strings.ContainsAny(node.Value, ".eE") {
			node.Tag = "!!float"
		}
	case string:
		node.Tag, node.Value = "!!str", t
		if strings.ContainsRune(t, utf8.RuneError) && loneSurrogate(p.text[start:p.decoder.InputOffset()]) {
			return nil, p.problem(start, `a string holds half of a surrogate pair (\ud800 to \udfff): write the character itself, or both halves`)
		}
	case json.Delim:
		if depth++; depth > maxDepth {
			return nil, p.problem(start, fmt.Sprintf("is nested deeper than %d levels", maxDepth))
		}
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		if t == '{' {
			node.Kind, node.Tag = yaml.MappingNode, "!!map"
		}
		for p.decoder.More() { // keys and values of an object come in turn, as yaml.Node has them
			child, err := p.value(depth)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		if _, err := p.decoder.Token(); err != nil {
			return nil, p.tokenError(p.start(), err)
		}
	}
	return node, nil
}

func (p *jsonParser) tokenError(start int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if len(bytes.TrimSpace(p.text)) == 0 {
			return p.problem(0, "is empty; it must be a JSON object")
		}
		return p.problem(len(p.text), "is not JSON: the text ends in the middle of a value")
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		start = max(start, int(syntax.Offset)-1)
	}
	return p.problem(start, "is not JSON: "+err.Error())
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
