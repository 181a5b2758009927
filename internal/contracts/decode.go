package contracts

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

// Decode fills the struct that into points to from a tree, strictly: an unknown key, a key given twice (in any of its
// spellings), a wrong type and an empty value are problems. Fields are named by their json tag; an alias tag adds
// other spellings. It goes on after a problem, so that one run of a person's editor mends them all.
func Decode(file string, root *yaml.Node, into any) Problems {
	d := decoder{file: file}
	d.decode(root, reflect.ValueOf(into).Elem(), "")
	return d.problems
}

// nodeDecoder is what types implement whose text is not their Go shape.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yaml.Node, path string)
}

type decoder struct {
	file     string
	lenient  bool // pass over unknown keys
	problems Problems
	nodes    int
	depth    int
}

func (d *decoder) problem(n *yaml.Node, path, format string, a ...any) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Column: n.Column, Path: path, Message: fmt.Sprintf(format, a...)})
	}
}

// enter follows an alias and counts the value; false where the document is too large or too deep to go on.
func (d *decoder) enter(n *yaml.Node, path string) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.nodes++
	d.depth++
	switch {
	case d.nodes == maxNodes+1: // said once; what follows is only skipped
		d.problem(n, path, "the document has more than %d values", maxNodes)
	case d.depth > maxDepth:
		d.problem(n, path, "is nested deeper than %d levels", maxDepth)
	}
	return n, d.nodes <= maxNodes && d.depth <= maxDepth
}

var (
	nodeDecoderType = reflect.TypeFor[nodeDecoder]()
	timeType        = reflect.TypeFor[time.Time]()
	bytesType       = reflect.TypeFor[[]byte]()
)

// into decodes a value to where pointer points.
func (d *decoder) into(n *yaml.Node, pointer any, path string) {
	d.decode(n, reflect.ValueOf(pointer).Elem(), path)
}

func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	n, ok := d.enter(n, path)
	defer func() { d.depth-- }()
	if !ok {
		return
	}
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
		if t, err := time.Parse(time.RFC3339, n.Value); err == nil && n.Kind == yaml.ScalarNode {
			v.Set(reflect.ValueOf(t))
		} else {
			d.problem(n, path, "%s is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)", describe(n))
		}
	case v.Type() == bytesType:
		if b, err := base64.StdEncoding.DecodeString(n.Value); err == nil && n.Kind == yaml.ScalarNode {
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
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.problem(n, path, "has no value; give it one or leave the key out")
		return true
	}
	return false
}

// structure decodes a mapping into the fields of v.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	d.pairs(n, path, func(key, value *yaml.Node) {
		f, known := fields.byName[key.Value]
		if !known && d.lenient {
			return
		}
		if !known {
			d.problem(key, join(path, key.Value), "unknown key; %s", didYouMean(key.Value, fields.names))
			return
		}
		d.decode(value, v.FieldByIndex(f.index), join(path, key.Value))
	}, func(key string) string {
		if f, known := fields.byName[key]; known {
			return f.name
		}
		return key
	})
}

// pairs calls each with the keys and values of a mapping, merge keys ("<<") expanded. canonical names the key that a
// spelling stands for; a key that comes twice is a problem.
func (d *decoder) pairs(n *yaml.Node, path string, each func(key, value *yaml.Node), canonical func(string) string) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "is %s; it must be a mapping (key: value)", describe(n))
		return
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	merged := map[string]bool{}
	var walk func(n *yaml.Node, merging bool)
	walk = func(n *yaml.Node, merging bool) {
		n, ok := d.enter(n, path)
		defer func() { d.depth-- }()
		if !ok {
			return
		}
		if merging && n.Kind == yaml.SequenceNode {
			for _, one := range n.Content {
				walk(one, true)
			}
			return
		}
		if n.Kind != yaml.MappingNode {
			d.problem(n, path, "the merge key << takes a mapping or a list of mappings")
			return
		}
		var merges []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			for key.Kind == yaml.AliasNode {
				key = key.Alias
			}
			if key.Tag == "!!merge" {
				merges = append(merges, value)
				continue
			}
			if key.Kind != yaml.ScalarNode {
				d.problem(key, path, "a key must be plain text")
				continue
			}
			name := canonical(key.Value)
			if first, twice := seen[name]; twice {
				if merging || merged[name] {
					continue // what is written out wins over what is merged in
				}
				if first.Value == key.Value {
					d.problem(key, join(path, key.Value), "is given twice (first in line %d)", first.Line)
				} else {
					d.problem(key, join(path, key.Value), "is another spelling of %q, given in line %d; keep one", first.Value, first.Line)
				}
				continue
			}
			seen[name] = key
			merged[name] = merging
			each(key, value)
		}
		for _, one := range merges {
			walk(one, true)
		}
	}
	walk(n, false)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.pairs(n, path, func(key, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, element, join(path, key.Value))
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), element)
	}, func(key string) string { return key })
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "is %s; it must be a list", describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, one := range n.Content {
		d.decode(one, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode {
		switch v.Kind() {
		case reflect.String:
			if n.Tag == "!!str" {
				v.SetString(n.Value)
				return
			}
			d.problem(n, path, "is %s; it must be text: write \"%s\" in quotes", describe(n), n.Value)
			return
		case reflect.Bool:
			if b, err := strconv.ParseBool(n.Value); err == nil && n.Tag == "!!bool" {
				v.SetBool(b)
				return
			}
		case reflect.Int, reflect.Int64:
			if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && n.Tag == "!!int" {
				v.SetInt(i)
				return
			}
		case reflect.Uint64:
			if i, err := strconv.ParseUint(n.Value, 10, 64); err == nil && n.Tag == "!!int" {
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

// number reads a scalar that is a finite number.
func number(n *yaml.Node) (float64, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" {
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
		d.pairs(n, path, func(key, value *yaml.Node) {
			var v any
			d.into(value, &v, join(path, key.Value))
			m[key.Value] = v
		}, func(key string) string { return key })
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, one := range n.Content {
			d.into(one, &list[i], fmt.Sprintf("%s[%d]", path, i))
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		b, err := strconv.ParseBool(n.Value)
		if err != nil {
			d.problem(n, path, "write true or false for %s", describe(n))
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
	case "!!str", "!!timestamp":
		return n.Value
	}
	d.problem(n, path, "the YAML tag %s is not supported", n.Tag)
	return nil
}

func jsonNumber(s string) bool {
	c := s[len(s)-1:]
	return strings.Trim(s, "0123456789+-.eE") == "" && c >= "0" && c <= "9" && json.Valid([]byte(s))
}

// describe says what a node is, for messages.
func describe(n *yaml.Node) string {
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
	}
	return quote(n.Value)
}

// quote shortens what is repeated in a message: an argument may be a megabyte, or a secret.
func quote(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

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
