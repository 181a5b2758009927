// Package check checks documents by the schemas of package schemas. It is a package of its own because of what it needs:
// the library compiles the schemas of JSON Schema itself when it is imported, which costs every process 2 ms and 1.7 MB.
package check

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	neturl "net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/praxis-sdk/executor/schemas"
)

// JSON checks a JSON document by a schema. An error has one line for each mistake: where it is, as
// engine_spec.mounts[0], and what is allowed there.
func JSON(name string, document []byte) error {
	if _, err := schemas.Text(name); err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	err = compiled().schemas[name].Validate(tame(value))
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	return explain(invalid)
}

// Value is JSON for a value that encoding/json can write.
func Value(name string, value any) error {
	document, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return JSON(name, document)
}

// library is what is made of the schemas at the first check.
type library struct {
	schemas   map[string]*jsonschema.Schema
	documents map[string]any // by $id, for their descriptions
}

var compiled = sync.OnceValue(func() library {
	l := library{map[string]*jsonschema.Schema{}, map[string]any{}}
	c := jsonschema.NewCompiler()
	c.UseLoader(closed{})
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	for _, name := range schemas.Names() {
		text, err := schemas.Text(name)
		if err != nil {
			panic("check: " + err.Error())
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			panic("check: " + name + ": " + err.Error())
		}
		l.documents[schemas.ID(name)] = document
		if err := c.AddResource(schemas.ID(name), document); err != nil {
			panic("check: " + name + ": " + err.Error())
		}
	}
	for _, name := range schemas.Names() {
		l.schemas[name] = c.MustCompile(schemas.ID(name))
	}
	return l
})

// closed loads nothing: a schema that refers to one that is not embedded is a mistake, and no reason to read files or
// ask the network.
type closed struct{}

func (closed) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not embedded", url) }

// tame replaces numbers whose exponents math/big does not take, with which the library cannot compare, by ones that lie
// beyond every bound as well.
func tame(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, one := range v {
			v[key] = tame(one)
		}
	case []any:
		for i, one := range v {
			v[i] = tame(one)
		}
	case json.Number:
		mantissa, exponent, has := strings.Cut(strings.ToLower(v.String()), "e")
		if !has || len(strings.TrimLeft(exponent, "+-0")) < 5 {
			return v
		}
		if m, ok := new(big.Rat).SetString(mantissa); ok && m.Sign() == 0 {
			return json.Number("0")
		}
		sign := ""
		if strings.HasPrefix(mantissa, "-") {
			sign = "-"
		}
		if strings.HasPrefix(exponent, "-") {
			return json.Number(sign + "1e-9999")
		}
		return json.Number(sign + "1e9999")
	}
	return value
}

// mistakes are an error with one line each.
type mistakes []mistake

type mistake struct{ place, text string }

func (m mistakes) Error() string {
	lines := make([]string, len(m))
	for i, one := range m {
		if lines[i] = one.text; one.place != "" {
			lines[i] = one.place + ": " + one.text
		}
	}
	return strings.Join(lines, "\n")
}

// most bounds what one bad document can make us say.
const most = 20

func explain(e *jsonschema.ValidationError) error {
	all := collect(e, nil)
	slices.SortFunc(all, func(a, b mistake) int {
		return strings.Compare(a.place+"\x00"+a.text, b.place+"\x00"+b.text)
	})
	all = slices.Compact(all) // several branches may say the same
	return all[:min(len(all), most)]
}

// collect turns the tree of errors into sentences. It follows the branch of an alternative that fits best, because what
// all the others miss helps nobody.
func collect(e, parent *jsonschema.ValidationError) mistakes {
	at := place(e.InstanceLocation)
	say := func(format string, a ...any) mistakes { return mistakes{{at, fmt.Sprintf(format, a...)}} }
	rule := lookup(e.SchemaURL)
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		if keys := alternativeKeys(rule.node["anyOf"]); keys != nil {
			return say("%s must be given%s", strings.Join(keys, " or "), rule.hint())
		}
		return alternatives(e)
	case *kind.OneOf:
		if keys := alternativeKeys(rule.node["oneOf"]); keys != nil {
			return say("exactly one of %s must be given", strings.Join(keys, " and "))
		}
		return alternatives(e)
	case *kind.AdditionalProperties:
		known := keysOf(rule.node["properties"])
		list := make(mistakes, len(k.Properties))
		for i, key := range k.Properties {
			list[i] = mistake{place(append(slices.Clone(e.InstanceLocation), key)), "unknown key; known are " + strings.Join(known, ", ")}
		}
		return list
	case *kind.Required:
		if len(k.Missing) == 1 {
			return say("%s is missing", k.Missing[0])
		}
		return say("%s are missing", strings.Join(k.Missing, ", "))
	case *kind.DependentRequired:
		return say("%s belongs to %s, which is missing", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.PropertyNames:
		// The library overwrites the location of this kind of error later. All our rules for names are behind a $ref, and
		// that error has the same location.
		return mistakes{{place(parent.InstanceLocation), quote(k.Property) + " is not a key that may be here" + rule.hint()}}
	case *kind.Not:
		not, _ := rule.node["not"].(map[string]any)
		return say("%s", cmp.Or(text(not, "description"), "is what may not be here"))
	case *kind.MaxContains:
		return say("%s", cmp.Or(text(rule.node, "description"), "has one of its values too often"))
	case *kind.Type:
		return say("is %s; it must be %s%s", article(k.Got), typeNames(k.Want), rule.hint())
	case *kind.Enum:
		return say("must be one of %s", listed(k.Want))
	case *kind.Const:
		return say("must be %s", listed([]any{k.Want}))
	case *kind.Pattern:
		return say("%s does not match %s%s", quote(k.Got), k.Want, rule.hint())
	case *kind.Format:
		return say("%s is not a %s%s", shown(k.Got), k.Want, rule.hint())
	case *kind.MinLength: // all ours are 1
		return say("must not be empty%s", rule.hint())
	case *kind.MaxLength:
		return say("must have at most %d characters%s", k.Want, rule.hint())
	case *kind.MinItems: // all ours are 1
		return say("must not be empty%s", rule.hint())
	case *kind.MaxProperties:
		return say("must have at most %d keys%s", k.Want, rule.hint())
	case *kind.UniqueItems:
		return say("has a value twice (%d and %d)", k.Duplicates[0], k.Duplicates[1])
	case *kind.Minimum:
		return say("must be at least %s%s", number(k.Want), rule.hint())
	case *kind.Maximum:
		return say("must be at most %s%s", number(k.Want), rule.hint())
	case *kind.ExclusiveMinimum:
		return say("must be above %s%s", number(k.Want), rule.hint())
	case *kind.ExclusiveMaximum:
		return say("must be below %s%s", number(k.Want), rule.hint())
	}
	if len(e.Causes) == 0 {
		// The rest of the words, none of which our schemas use today, are the library's.
		own := jsonschema.ValidationError{ErrorKind: e.ErrorKind}
		return say("%s", strings.TrimPrefix(own.Error(), "at '': "))
	}
	var all mistakes
	for _, cause := range e.Causes {
		all = append(all, collect(cause, e)...)
	}
	return all
}

// alternatives explains that nothing of a choice fits: by the branch that was meant, or by all of them in one sentence.
func alternatives(e *jsonschema.ValidationError) mistakes {
	branches := slices.DeleteFunc(slices.Clone(e.Causes), isVariable)
	meant := slices.DeleteFunc(slices.Clone(branches), func(b *jsonschema.ValidationError) bool { return otherKind(b, e.InstanceLocation) })
	if len(meant) == 1 {
		return collect(meant[0], e)
	}
	at := e.InstanceLocation
	if words, where := allWords(branches); len(where) > len(at) || len(words) > 0 && len(meant) == len(branches) {
		return mistakes{{place(where), "must be one of " + listed(words)}}
	}
	if len(meant) > 0 {
		branches = meant
	}
	var texts []string
	for _, b := range branches {
		for _, one := range collect(b, e) {
			if one.place == place(at) && !slices.Contains(texts, one.text) {
				texts = append(texts, one.text)
			}
		}
	}
	return mistakes{{place(at), strings.Join(texts, "; or ")}}
}

// allWords are the words that branches take, if each asks for some and did not get them in one place: several lists
// of names, or the types of messages.
func allWords(branches []*jsonschema.ValidationError) (words []any, where []string) {
	for _, b := range branches {
		wanted, at := wordsOf(b)
		if wanted == nil || where != nil && !slices.Equal(where, at) {
			return nil, nil
		}
		words, where = append(words, wanted...), at
	}
	return words, where
}

func wordsOf(e *jsonschema.ValidationError) ([]any, []string) {
	switch k := e.ErrorKind.(type) {
	case *kind.Enum:
		return k.Want, e.InstanceLocation
	case *kind.Const:
		return []any{k.Want}, e.InstanceLocation
	}
	for _, cause := range e.Causes {
		if words, at := wordsOf(cause); words != nil {
			return words, at
		}
	}
	return nil, nil
}

// isVariable reports whether a branch is that of text with a variable, which every value of the configuration has and
// nobody who did not write ${…} means.
func isVariable(e *jsonschema.ValidationError) bool {
	ref, ok := e.ErrorKind.(*kind.Reference)
	return ok && strings.HasSuffix(ref.URL, "#/$defs/variable")
}

// otherKind reports whether a branch is for another kind of value: another type, or another "type" of message.
func otherKind(e *jsonschema.ValidationError, at []string) bool {
	switch e.ErrorKind.(type) {
	case *kind.Type:
		return len(e.InstanceLocation) == len(at)
	case *kind.Const:
		return len(e.InstanceLocation) == len(at)+1 && e.InstanceLocation[len(at)] == "type"
	case *kind.AnyOf, *kind.OneOf:
		return false
	}
	return slices.ContainsFunc(e.Causes, func(cause *jsonschema.ValidationError) bool { return otherKind(cause, at) })
}

// part is a part of a schema; its node is nil where that is true or false.
type part struct {
	id   string
	node map[string]any
}

// lookup returns the part of a schema that a URL names.
func lookup(url string) part {
	id, pointer, _ := strings.Cut(url, "#")
	node := compiled().documents[id]
	for token := range strings.SplitSeq(pointer, "/") {
		if token == "" {
			continue
		}
		token, _ = neturl.PathUnescape(token)
		switch v := node.(type) {
		case map[string]any:
			node = v[unescape.Replace(token)]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i >= len(v) {
				return part{id: id}
			}
			node = v[i]
		}
	}
	m, _ := node.(map[string]any)
	return part{id, m}
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~") // of JSON pointers

// hint is what a schema says about itself, in its first sentence.
func (p part) hint() string {
	for text(p.node, "description") == "" && text(p.node, "$ref") != "" {
		ref := text(p.node, "$ref")
		if strings.HasPrefix(ref, "#") {
			ref = p.id + ref
		}
		p = lookup(ref)
	}
	first, _, _ := strings.Cut(text(p.node, "description"), ". ")
	if first = strings.TrimSuffix(first, "."); first == "" {
		return ""
	}
	return " (" + first + ")"
}

// alternativeKeys are the keys of a oneOf of which each branch only asks for one.
func alternativeKeys(oneOf any) []string {
	branches, _ := oneOf.([]any)
	var keys []string
	for _, b := range branches {
		m, _ := b.(map[string]any)
		required, _ := m["required"].([]any)
		if len(m) != 1 || len(required) != 1 {
			return nil
		}
		keys = append(keys, required[0].(string))
	}
	return keys
}

func keysOf(properties any) []string {
	m, _ := properties.(map[string]any)
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func text(schema map[string]any, key string) string {
	s, _ := schema[key].(string)
	return s
}

// place is a position in a document as messages of the program have it: engine_spec.mounts[0].
func place(location []string) string {
	var b strings.Builder
	for _, token := range location {
		if _, err := strconv.Atoi(token); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

func typeNames(names []string) string {
	plain := make([]string, len(names))
	for i, n := range names {
		plain[i] = article(n)
	}
	return strings.Join(plain, " or ")
}

// article is a type of JSON in plain words.
func article(name string) string {
	switch name {
	case "string":
		return "text"
	case "array":
		return "a list"
	case "object":
		return "a mapping"
	case "boolean":
		return "true or false"
	case "integer":
		return "a whole number"
	case "null":
		return "null"
	}
	return "a " + name
}

func listed(values []any) string {
	shownValues := make([]string, len(values))
	for i, v := range values {
		shownValues[i] = shown(v)
	}
	return strings.Join(shownValues, ", ")
}

func shown(v any) string {
	if s, ok := v.(string); ok {
		return quote(s)
	}
	return fmt.Sprint(v)
}

// quote shortens what is repeated in a message.
func quote(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'f', -1, 64)
}
