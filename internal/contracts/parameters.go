package contracts

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
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

// declaration is where a parameter is in a document.
type declaration struct {
	node, name     *yaml.Node
	path, namePath string
}

func (p *Parameters) decodeNode(d *decoder, n *yaml.Node, path string) {
	p.Declared = true
	var places []declaration
	if n.Kind == yaml.MappingNode {
		places = p.decodeSchema(d, n, path)
	} else if d.into(n, &p.List, path); len(p.List) > 0 {
		for i, one := range n.Content {
			at := element(path, i)
			name, atName := locate(one, at, "name")
			places = append(places, declaration{one, name, at, atName})
		}
	}
	variables := map[string]string{}
	for i, place := range places {
		one := &p.List[i]
		if other, ok := typeAliases[one.Type]; ok {
			one.Type = other
		}
		variable := VariableName(one.Name)
		switch first := variables[variable]; {
		case d.flawed(place.namePath) || place.node.Kind != yaml.MappingNode:
		case one.Name == "":
			d.problem(place.name, place.namePath, "is missing; give the parameter a name")
		case !argumentName.MatchString(one.Name):
			d.problem(place.name, place.namePath, "%s is not a name of an argument: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most", quote(one.Name))
		case first == one.Name:
			d.problem(place.name, place.namePath, "the parameter %q is there already", one.Name)
		case first != "":
			d.problem(place.name, place.namePath, "%q and %q would both be ARG_%s in the tool's environment; rename one", first, one.Name, variable)
		}
		variables[variable] = one.Name
		one.checkDeclaration(d, place)
	}
}

// checkDeclaration finds what is wrong about type, default and enum.
func (p *Parameter) checkDeclaration(d *decoder, place declaration) {
	bad := d.checker(place.node, place.path)
	if child(place.node, "type") != nil && !slices.Contains(Types, p.Type) {
		bad("type", "unknown type %s; %s", quote(p.Type), didYouMean(p.Type, Types))
	}
	if _, at := locate(place.node, place.path, "type"); d.flawed(at) {
		return
	}
	list, at := locate(place.node, place.path, "enum")
	if list != place.node && len(p.Enum) == 0 {
		bad("enum", "is empty, so that nothing is allowed; list the values, or leave it out")
	}
	for i, v := range p.Enum {
		if reason := p.checkType(v); reason != "" {
			d.problem(list.Content[i], element(at, i), "%s", reason)
		}
	}
	if p.Default != nil && !d.flawed(at) {
		if reason := p.check(p.Default); reason != "" {
			bad("default", "%s", reason)
		}
	}
}

// decodeSchema reads the other form found in Praxis contracts: a JSON Schema object with properties.
func (p *Parameters) decodeSchema(d *decoder, n *yaml.Node, path string) (places []declaration) {
	var schema struct {
		Type       string   `json:"type"`
		Properties yamlNode `json:"properties"`
		Required   []string `json:"required"`
		Additional any      `json:"additionalProperties"`
	}
	d.into(n, &schema, path)
	bad := d.checker(n, path)
	if child(n, "type") != nil && schema.Type != "object" {
		bad("type", `is %s; parameters written as a JSON Schema have the type "object"`, quote(schema.Type))
	}
	if child(n, "additionalProperties") != nil && schema.Additional != false {
		bad("additionalProperties", "must be false: arguments that are declared nowhere are refused; leave parameters out to take any")
	}
	if properties := schema.Properties.Node; properties != nil && !d.tooMany(properties, join(path, "properties"), len(properties.Content)/2) {
		d.pairs(properties, join(path, "properties"), nil, func(key, value *yaml.Node, at string) {
			one := Parameter{}
			d.into(value, &one, at)
			if one.Name != "" {
				d.checker(value, at)("name", "is given beside the key %s; leave it out", quote(key.Value))
			}
			one.Name = key.Value
			p.List = append(p.List, one)
			places = append(places, declaration{value, key, at, at})
		})
	}
	required, at := locate(n, path, "required")
	for i, name := range schema.Required {
		if one := p.Find(name); one != nil {
			one.Required = true
		} else if !d.flawed(element(at, i)) {
			d.problem(required.Content[i], element(at, i), "%s is not among the properties; %s", quote(name), didYouMean(name, p.Names()))
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
			what := one.kind()
			if one.Description != "" {
				what += ": " + one.Description
			}
			return nil, Errorf(InvalidArgs, "the argument %q is missing (%s)", one.Name, what)
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
		allowed[i] = shorten(compact(e))
	}
	return fmt.Sprintf("is %s; it must be one of %s", shorten(compact(v)), words(allowed))
}

// kind is the type, where the contract names none too.
func (p *Parameter) kind() string {
	if p.Type == "" {
		return "string"
	}
	return p.Type
}

func (p *Parameter) checkType(v any) string {
	want := p.kind()
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

// isInteger follows JSON Schema: 5.0 and 1e3 are integers.
func isInteger(n json.Number) bool {
	if !strings.ContainsAny(n.String(), ".eE") {
		return true
	}
	r, ok := exact(n)
	return ok && r.IsInt()
}

// exact is the number as a fraction; false where its digits or its exponent are beyond reason: 1e999999999 would take a
// gigabyte.
func exact(n json.Number) (*big.Rat, bool) {
	s := n.String()
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > 999 || e < -999 {
			return nil, false
		}
	}
	if len(s) > 1000 {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func equalJSON(a, b any) bool {
	x, okX := a.(json.Number)
	y, okY := b.(json.Number)
	if !okX || !okY || x == y {
		return reflect.DeepEqual(a, b)
	}
	f, okX := exact(x)
	g, okY := exact(y)
	return okX && okY && f.Cmp(g) == 0
}

// compact is a value as compact JSON.
func compact(v any) string {
	text, err := marshalJSON(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
