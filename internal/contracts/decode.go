package contracts

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// Limits of a document. They bound what hostile input costs; real documents stay far below.
const (
	maxDepth = 32      // levels of mappings and lists
	maxNodes = 200_000 // values, after aliases are followed (a YAML "billion laughs" ends here)
	maxList  = 1000    // elements of a list that is searched; lists in args have no such bound
)

// Decode fills the struct that into points to from a tree of ParseYAML or ParseJSON, strictly: an unknown key, a key
// given twice (in any of its spellings), a wrong type and an empty value are problems. Fields are named by their json
// tag; an alias tag adds other spellings. It goes on after a problem, so that one run of a person's editor mends them all.
func Decode(file string, root *yaml.Node, into any) Problems {
	d := decoder{file: file}
	d.decode(root, reflect.ValueOf(into).Elem(), "")
	return d.found()
}

// nodeDecoder is what types implement whose text is not their Go shape.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yaml.Node, path string)
}

type decoder struct {
	file     string
	lenient  bool // pass over unknown keys
	problems Problems
	since    int  // where those of the present document begin: paths are the same in all
	more     bool // problems beyond maxProblems
}

func (d *decoder) problem(n *yaml.Node, path, format string, a ...any) {
	if len(d.problems) == maxProblems {
		d.more = true
		return
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Column: n.Column, Path: path, Message: fmt.Sprintf(format, a...)})
}

// flawed reports whether there is a problem already about what is at the path. Checks of what a value means ask first:
// nothing can be said about one that could not be read.
func (d *decoder) flawed(path string) bool {
	return slices.ContainsFunc(d.problems[d.since:], func(p Problem) bool {
		below, ok := strings.CutPrefix(p.Path, path)
		return ok && (below == "" || below[0] == '.' || below[0] == '[')
	})
}

// found are the problems in the order of the text.
func (d *decoder) found() Problems {
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	if d.more {
		d.problems = append(d.problems, Problem{File: d.file, Message: "there is more; these first"})
		d.more = false
	}
	return d.problems
}

var (
	nodeDecoderType = reflect.TypeFor[nodeDecoder]()
	timeType        = reflect.TypeFor[time.Time]()
	bytesType       = reflect.TypeFor[[]byte]()
)

// rfc3339 is the form of times. time.Parse takes more: hours of one digit, a comma, offsets of a day.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):\d\d)$`)

// into decodes a value to where pointer points.
func (d *decoder) into(n *yaml.Node, pointer any, path string) {
	d.decode(n, reflect.ValueOf(pointer).Elem(), path)
}

func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if v.CanAddr() && v.Addr().Type().Implements(nodeDecoderType) {
		if !d.isNull(n, path) {
			v.Addr().Interface().(nodeDecoder).decodeNode(d, n, path)
		}
		return
	}
	if v.Kind() == reflect.Interface && v.NumMethod() > 0 { // a Spec: its type was chosen before, or could not be
		if !v.IsNil() && !d.isNull(n, path) {
			d.decode(n, v.Elem(), path)
		}
		return
	}
	if v.Kind() == reflect.Interface {
		if value := d.any(n, path); value != nil {
			v.Set(reflect.ValueOf(value))
		}
		return
	}
	if d.isNull(n, path) {
		return
	}
	switch {
	case v.Type() == timeType:
		t, err := time.Parse(time.RFC3339, n.Value)
		if err == nil && rfc3339.MatchString(n.Value) && !t.IsZero() {
			v.Set(reflect.ValueOf(t))
		} else {
			d.problem(n, path, "%s is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)", describe(n))
		}
	case v.Type() == bytesType:
		if b, err := base64.StdEncoding.DecodeString(n.Value); err == nil && n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			v.SetBytes(b)
		} else {
			d.problem(n, path, "is not base64 (RFC 4648, with padding)")
		}
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, path)
	case v.Kind() == reflect.Slice:
		d.sequence(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func (d *decoder) isNull(n *yaml.Node, path string) bool {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Anchor == "" {
		d.problem(n, path, "has no value; give it one or leave the key out")
		return true
	}
	return false
}

// structure decodes a mapping into the fields of v.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	d.pairs(n, path, fields.byName, func(key, value *yaml.Node, at string) {
		f, known := fields.byName[key.Value]
		switch {
		case known:
			d.decode(value, v.FieldByIndex(f.index), at)
		case d.lenient:
		case len(d.problems) == maxProblems:
			d.more = true // without the cost of looking for what was meant
		default:
			d.problem(key, at, "unknown key; %s", didYouMean(key.Value, fields.names))
		}
	})
}

// pairs calls each with the keys and values of a mapping and the path of the value. A key that comes twice, in any of the
// spellings of a field, is a problem.
func (d *decoder) pairs(n *yaml.Node, path string, fields map[string]field, each func(key, value *yaml.Node, at string)) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "is %s; it must be a mapping (key: value)", describe(n))
		return
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, at := key.Value, join(path, key.Value)
		if f, known := fields[name]; known {
			name = f.name
		}
		switch first, twice := seen[name]; {
		case !twice:
			seen[name] = key
			each(key, value, at)
		case first.Value == key.Value:
			d.problem(key, at, "is given twice, first in line %d; keep one", first.Line)
		default:
			d.problem(key, at, "is another spelling of %q, given in line %d; keep one", first.Value, first.Line)
		}
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, element, at)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), element)
	})
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.ScalarNode && v.Type().Elem().Kind() == reflect.String {
			hint = ": write [" + quote(n.Value) + "]"
		}
		d.problem(n, path, "is %s; it must be a list%s", describe(n), hint)
		return
	}
	if v.Type().Elem().Kind() != reflect.Interface && d.tooMany(n, path, len(n.Content)) {
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, one := range n.Content {
		d.decode(one, list.Index(i), element(path, i))
	}
	v.Set(list)
}

// tooMany reports a list that is longer than what is done with it would bear.
func (d *decoder) tooMany(n *yaml.Node, path string, count int) bool {
	if count > maxList {
		d.problem(n, path, "has %d elements; %d at most", count, maxList)
	}
	return count > maxList
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode {
		switch v.Kind() {
		case reflect.String:
			if n.Tag == "!!str" || n.Anchor != "" {
				v.SetString(n.Value)
				return
			}
			d.problem(n, path, "is %s; it must be text: write %s in quotes", describe(n), quote(n.Value))
			return
		case reflect.Bool:
			if b, err := strconv.ParseBool(n.Value); err == nil && n.Tag == "!!bool" {
				v.SetBool(b)
				return
			}
		case reflect.Int, reflect.Int64:
			if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && n.Tag == "!!int" && jsonNumber(n.Value) {
				v.SetInt(i)
				return
			}
		case reflect.Uint64:
			if i, err := strconv.ParseUint(n.Value, 10, 64); err == nil && n.Tag == "!!int" && jsonNumber(n.Value) {
				v.SetUint(i)
				return
			}
		case reflect.Float64:
			if f, ok := number(n); ok {
				v.SetFloat(f)
				return
			}
		}
	}
	want := map[reflect.Kind]string{reflect.String: "text", reflect.Bool: "true or false", reflect.Int: "a whole number",
		reflect.Int64: "a whole number", reflect.Uint64: "a whole number, not below 0", reflect.Float64: "a number"}[v.Kind()]
	d.problem(n, path, "is %s; it must be %s", describe(n), want)
}

// number reads a scalar that is a finite number. A whole number must be in plain digits: YAML takes 010 for 8.
func number(n *yaml.Node) (float64, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || n.Tag == "!!int" && !jsonNumber(n.Value) {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

// any is the value as encoding/json would give it, numbers as json.Number so that none loses a digit.
func (d *decoder) any(n *yaml.Node, path string) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
			m[key.Value] = d.any(value, at)
		})
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, one := range n.Content {
			list[i] = d.any(one, element(path, i))
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		b, err := strconv.ParseBool(n.Value)
		if err != nil {
			d.problem(n, path, "is %s; write true or false", describe(n))
		}
		return b
	case "!!int", "!!float":
		if jsonNumber(n.Value) {
			return json.Number(n.Value)
		}
		if i, err := strconv.ParseInt(n.Value, 0, 64); err == nil { // YAML's 0x1f, 0o17, 1_000
			return json.Number(strconv.FormatInt(i, 10))
		}
		if f, ok := number(n); ok { // YAML's +1.5, .5, 1.
			return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
		}
		d.problem(n, path, "%s is not a number that JSON can hold", n.Value)
		return nil
	}
	return n.Value
}

// jsonNumber reports whether s is a number as JSON writes it.
func jsonNumber(s string) bool {
	return strings.Trim(s, "0123456789+-.eE") == "" && json.Valid([]byte(s))
}

// Substitute replaces a scalar by what it stands for, as a variable of the environment, so that decoding takes that: a text
// field whatever it looks like, other fields by YAML's rules unless it was quoted. Messages show how it was written and not
// the value, which may be a secret.
func Substitute(n *yaml.Node, value string) {
	n.Anchor, n.Value = n.Value, value // plain trees have no anchors
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		n.Tag = ""
		n.Tag = n.ShortTag()
	}
}

// describe says what a node is, for messages.
func describe(n *yaml.Node) string {
	if n.Anchor != "" {
		return "what " + n.Anchor + " stands for"
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!str":
		return "text (" + quote(n.Value) + ")"
	case "!!bool":
		return "the truth value " + n.Value
	case "!!timestamp":
		return "the time " + n.Value
	}
	return "the number " + shorten(n.Value)
}

// quote shortens what is repeated in a message: an argument may be a megabyte, or a secret.
func quote(s string) string { return strconv.Quote(shortenTo(s, 40)) }

func shorten(s string) string { return shortenTo(s, 60) }

func shortenTo(s string, most int) string {
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}

// join and element make the path of what is below path.
func join(path, key string) string {
	if len(key) > 60 || strings.TrimFunc(key, unicode.IsPrint) != "" || key == "" {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// field is one key that a struct takes.
type field struct {
	name  string // the canonical spelling
	index []int
}

type fieldSet struct {
	names  []string // canonical spellings, in the order of the struct
	byName map[string]field
}

var fieldSets sync.Map // reflect.Type to *fieldSet

// fieldsOf reads the json and alias tags of a struct; embedded structs lend their fields.
func fieldsOf(t reflect.Type) *fieldSet {
	if known, ok := fieldSets.Load(t); ok {
		return known.(*fieldSet)
	}
	set := &fieldSet{byName: map[string]field{}}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "" || name == "-" {
			continue
		}
		set.names = append(set.names, name)
		set.byName[name] = field{name, f.Index}
		if alias := f.Tag.Get("alias"); alias != "" {
			for _, other := range strings.Split(alias, ",") {
				set.byName[other] = field{name, f.Index}
			}
		}
	}
	fieldSets.Store(t, set)
	return set
}
