package contracts

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Parameters are the arguments that a tool takes. A contract without the key takes any; an empty list takes none.
type Parameters struct {
	Declared bool // the contract has the key
	List     []Parameter
}

// Parameter describes one argument.
type Parameter struct {
	Name        string   `json:"name"`
	Type        string   `json:"type,omitempty"` // a name of Types; "": string
	Description string   `json:"description,omitempty"`
	Required    Required `json:"required,omitempty"`
	Default     any      `json:"default,omitempty"` // what an absent argument is completed to; nil: nothing
	Enum        []any    `json:"enum,omitempty"`
}

// Types are the types an argument may have, those of JSON Schema, and "any".
var Types = []string{"string", "integer", "number", "boolean", "array", "object", "any"}

// typeAliases are what people write for them.
var typeAliases = map[string]string{"str": "string", "int": "integer", "float": "number", "double": "number", "bool": "boolean",
	"list": "array", "dict": "object", "map": "object"}

// Required is a truth value that Praxis contracts also write as text.
type Required bool

func (r *Required) decodeNode(d *decoder, n *yaml.Node, path string) {
	switch {
	case n.Kind == yaml.ScalarNode && strings.EqualFold(n.Value, "true"):
		*r = true
	case n.Kind == yaml.ScalarNode && strings.EqualFold(n.Value, "false"):
		*r = false
	default:
		d.problem(n, path, "is %s; it must be true or false", describe(n))
	}
}

// MarshalJSON writes the list form; null where the contract takes any arguments.
func (p Parameters) MarshalJSON() ([]byte, error) {
	if p.Declared && p.List == nil {
		return []byte("[]"), nil
	}
	return marshalJSON(p.List)
}

// Find returns the parameter of that name, or nil.
func (p Parameters) Find(name string) *Parameter {
	if i := slices.IndexFunc(p.List, func(o Parameter) bool { return o.Name == name }); i >= 0 {
		return &p.List[i]
	}
	return nil
}

// Names are the names of the parameters, in the order of the contract.
func (p Parameters) Names() []string {
	names := make([]string, len(p.List))
	for i, one := range p.List {
		names[i] = one.Name
	}
	return names
}

// argumentName is what the name of an argument or context value looks like.
var argumentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

func (p *Parameters) decodeNode(d *decoder, n *yaml.Node, path string) {
	p.Declared = true
	var places []*yaml.Node
	if n.Kind == yaml.MappingNode {
		places = p.decodeSchema(d, n, path)
	} else {
		d.into(n, &p.List, path)
		places = n.Content
	}
	variables := map[string]string{}
	for i := range p.List {
		if i >= len(places) {
			return
		}
		one, at := &p.List[i], fmt.Sprintf("%s[%d]", path, i)
		if other, ok := typeAliases[one.Type]; ok {
			one.Type = other
		}
		variable := VariableName(one.Name)
		switch first := variables[variable]; {
		case one.Name == "":
			d.problem(places[i], at, "has no name")
		case !argumentName.MatchString(one.Name):
			d.problem(places[i], at, "%s is not a name of an argument: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most", quote(one.Name))
		case first == one.Name:
			d.problem(places[i], at, "the parameter %q is there already", one.Name)
		case first != "":
			d.problem(places[i], at, "%q and %q would both be ARG_%s in the tool's environment; rename one", first, one.Name, variable)
		}
		variables[variable] = one.Name
		if one.Type != "" && !slices.Contains(Types, one.Type) {
			d.problem(places[i], at, "unknown type %s; %s", quote(one.Type), didYouMean(one.Type, Types))
			continue
		}
		if one.Default != nil {
			if reason := one.check(one.Default); reason != "" {
				d.problem(places[i], at, "the default %s", reason)
			}
		}
		for _, v := range one.Enum {
			if reason := one.checkType(v); reason != "" {
				d.problem(places[i], at, "a value of enum %s", reason)
			}
		}
	}
}

// decodeSchema reads the other form found in Praxis contracts: a JSON Schema object with properties.
func (p *Parameters) decodeSchema(d *decoder, n *yaml.Node, path string) (places []*yaml.Node) {
	var schema struct {
		Type       string   `json:"type"`
		Properties yamlNode `json:"properties"`
		Required   []string `json:"required"`
		Additional any      `json:"additionalProperties"`
	}
	d.into(n, &schema, path)
	if schema.Type != "" && schema.Type != "object" {
		d.problem(n, join(path, "type"), `is %s; parameters written as a JSON Schema have the type "object"`, quote(schema.Type))
	}
	if schema.Additional == true {
		d.problem(n, join(path, "additionalProperties"), "cannot be true: arguments that are declared nowhere are refused; leave parameters out to take any")
	}
	if schema.Properties.Node != nil {
		at := join(path, "properties")
		d.pairs(schema.Properties.Node, at, func(key, value *yaml.Node) {
			one := Parameter{}
			d.into(value, &one, join(at, key.Value))
			if one.Name != "" {
				d.problem(value, join(at, key.Value), "has a name beside its key; leave it out")
			}
			one.Name = key.Value
			p.List = append(p.List, one)
			places = append(places, key)
		}, func(key string) string { return key })
	}
	for _, name := range schema.Required {
		if one := p.Find(name); one != nil {
			one.Required = true
		} else {
			d.problem(n, join(path, "required"), "%s is not among the properties; %s", quote(name), didYouMean(name, p.Names()))
		}
	}
	return places
}

// yamlNode keeps a part of the tree to be decoded by hand.
type yamlNode struct{ *yaml.Node }

func (y *yamlNode) decodeNode(_ *decoder, n *yaml.Node, _ string) { y.Node = n }

// Complete checks the arguments of a request and returns them with defaults filled in; args is not changed. An error
// names the argument and what it must be; its code is invalid_args.
func (p Parameters) Complete(args map[string]any) (map[string]any, error) {
	for _, name := range slices.Sorted(maps.Keys(args)) {
		if !argumentName.MatchString(name) {
			return nil, Errorf(InvalidArgs, "the argument %s is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most", quote(name))
		}
	}
	if !p.Declared {
		return args, nil
	}
	complete := make(map[string]any, len(p.List))
	for _, name := range slices.Sorted(maps.Keys(args)) {
		one := p.Find(name)
		switch {
		case one == nil && len(p.List) == 0:
			return nil, Errorf(InvalidArgs, "unknown argument %q; this tool takes none", name)
		case one == nil:
			return nil, Errorf(InvalidArgs, "unknown argument %q; %s", name, didYouMean(name, p.Names()))
		}
		if args[name] == nil {
			continue // null is absent
		}
		if reason := one.check(args[name]); reason != "" {
			return nil, Errorf(InvalidArgs, "the argument %q %s", name, reason)
		}
		complete[name] = args[name]
	}
	for _, one := range p.List {
		if _, given := complete[one.Name]; given {
			continue
		}
		if one.Default != nil {
			complete[one.Name] = one.Default
		} else if one.Required {
			what := one.Type
			if one.Description != "" {
				what += ": " + one.Description
			}
			return nil, Errorf(InvalidArgs, "the argument %q is missing (%s)", one.Name, strings.TrimPrefix(what, ": "))
		}
	}
	return complete, nil
}

// check returns what is wrong with a value, or "".
func (p *Parameter) check(v any) string {
	if reason := p.checkType(v); reason != "" {
		return reason
	}
	if len(p.Enum) == 0 || slices.ContainsFunc(p.Enum, func(e any) bool { return equalJSON(e, v) }) {
		return ""
	}
	allowed := make([]string, len(p.Enum))
	for i, e := range p.Enum {
		allowed[i] = compact(e)
	}
	return fmt.Sprintf("is %s; it must be one of %s", shorten(compact(v)), strings.Join(allowed, ", "))
}

func (p *Parameter) checkType(v any) string {
	want := p.Type
	if want == "" {
		want = "string"
	}
	ok := want == "any"
	got := "null"
	switch t := v.(type) {
	case string:
		got, ok = "the text "+quote(t), ok || want == "string"
	case bool:
		got, ok = fmt.Sprint(t), ok || want == "boolean"
	case json.Number:
		got, ok = shorten(t.String()), ok || want == "number" || want == "integer" && isInteger(t)
	case []any:
		got, ok = "an array", ok || want == "array"
	case map[string]any:
		got, ok = "an object", ok || want == "object"
	}
	if ok {
		return ""
	}
	article := "a"
	if strings.ContainsRune("aeio", rune(want[0])) {
		article = "an"
	}
	return fmt.Sprintf("is %s; it must be %s %s", got, article, want)
}

// isInteger follows JSON Schema: 5.0 and 1e3 are integers. Exponents beyond reason are not looked into.
func isInteger(n json.Number) bool {
	s := n.String()
	if !strings.ContainsAny(s, ".eE") {
		return true
	}
	if len(s) > 64 {
		return false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 4 {
		return false
	}
	r, ok := new(big.Rat).SetString(s)
	return ok && r.IsInt()
}

func equalJSON(a, b any) bool {
	x, okX := a.(json.Number)
	y, okY := b.(json.Number)
	if okX && okY {
		f, errX := x.Float64()
		g, errY := y.Float64()
		return x == y || errX == nil && errY == nil && f == g
	}
	return reflect.DeepEqual(a, b)
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// compact is a value as compact JSON.
func compact(v any) string {
	text, err := marshalJSON(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
