package schemas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// What a model is told about the arguments of a tool is what the program takes: the schema of a contract's parameters and
// Parameters.Complete accept the same arguments. Where they cannot is said in comparableArguments.

// argumentSchema compiles the schema that a contract's parameters are declared by.
func argumentSchema(t testing.TB, p contracts.Parameters) *jsonschema.Schema {
	t.Helper()
	text, err := json.Marshal(p.Schema())
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("mem:arguments", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:arguments")
	if err != nil {
		t.Fatalf("%s is no schema: %v", text, err)
	}
	return s
}

var argument = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

// comparableArguments returns arguments as the schema is to see them; false where the two differ for a reason:
//   - null is an argument that was not given. A schema that said so would invite models to send nulls.
//   - which names a tool of any arguments takes: a schema with propertyNames would be refused by the APIs of models.
//   - numbers beyond reason, as 1e999999, are no integers for the program, which does not compute them.
//   - 1 and 1.0 are one number, but inside of arrays and objects of an enum the program compares how they are written.
func comparableArguments(p contracts.Parameters, args map[string]any) (map[string]any, bool) {
	given := maps.Clone(args)
	for name, v := range args {
		if v == nil && p.Find(name) != nil {
			delete(given, name)
		}
		if !p.Declared && !argument.MatchString(name) || !modest(v) {
			return nil, false
		}
	}
	for _, one := range p.List {
		for _, allowed := range one.Enum {
			if _, given := args[one.Name]; !modest(allowed) || given && nested(allowed) {
				return nil, false
			}
		}
		if !modest(one.Default) {
			return nil, false
		}
	}
	return given, true
}

// modest reports whether all numbers in a value are of a size that the program computes.
func modest(v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		return len(v) < 100 && len(strings.TrimLeft(exponent, "+-0")) < 3
	case []any:
		return !slices.ContainsFunc(v, func(one any) bool { return !modest(one) })
	case map[string]any:
		for _, one := range v {
			if !modest(one) {
				return false
			}
		}
	}
	return true
}

// nested reports whether there is a number inside of an array or object.
func nested(v any) bool {
	number := func(one any) bool { _, is := one.(json.Number); return is || nested(one) }
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, number)
	case map[string]any:
		for _, one := range v {
			if number(one) {
				return true
			}
		}
	}
	return false
}

// sameArguments is an error where only one of the two takes the arguments.
func sameArguments(p contracts.Parameters, s *jsonschema.Schema, args map[string]any) (taken bool, err error) {
	given, ok := comparableArguments(p, args)
	if !ok {
		return false, nil
	}
	complete, byProgram := p.Complete(args)
	taken = byProgram == nil
	if bySchema := s.Validate(any(given)); taken != (bySchema == nil) {
		text, _ := json.Marshal(args)
		return taken, fmt.Errorf("arguments %s: the program says %v, the schema %v", text, byProgram, bySchema)
	}
	if !taken || !p.Declared {
		return taken, nil
	}
	// What was completed is taken again, as it stands, by both.
	if err := s.Validate(any(complete)); err != nil {
		return true, fmt.Errorf("completed arguments %v: the schema says %v", complete, err)
	}
	return true, nil
}

func parametersOf(text string) (contracts.Parameters, error) {
	list, err := contracts.ParseContracts("", []byte(written("~ parameters: "+text)))
	if err != nil || len(list) == 0 {
		return contracts.Parameters{}, err
	}
	return list[0].Parameters, nil
}

var parametersToDeclare = []string{
	`[]`, `{}`,
	`[{name: a}]`, `[{name: a, required: true}]`, `[{name: a, required: true, default: x}]`, `[{name: a, required: true, type: any}]`,
	`[{name: a, type: integer}, {name: b, type: number, default: 1.5}, {name: c, type: boolean}]`,
	`[{name: a, type: array, required: true}, {name: b, type: object, default: {}}, {name: c, type: any}]`,
	`[{name: a, enum: [x, y, ""]}, {name: b, type: integer, enum: [1, 2.0, 3e1]}, {name: c, type: any, enum: [1, "1", true, null]}]`,
	`[{name: a, type: array, enum: [[], [x], [[true]]]}, {name: b, type: object, enum: [{}, {a: b}]}, {name: c.d-e, type: boolean, enum: [true], required: "True"}]`,
	`{properties: {b: {type: str}, a: {type: int, default: 7}, c: {}}, required: [b, a]}`,
}

var argumentsToGive = []string{
	`{}`, `{"a": "x"}`, `{"a": 1}`, `{"a": 1.0}`, `{"a": 1.5}`, `{"a": 1e3}`, `{"a": -0}`, `{"a": null}`, `{"a": true}`, `{"a": []}`, `{"a": {}}`, `{"a": ["x"]}`, `{"a": [[true]]}`,
	`{"b": "x"}`, `{"b": 2}`, `{"b": 2.0}`, `{"b": 30}`, `{"b": 0.3e2}`, `{"b": {"a": "b"}}`, `{"b": {"a": "c"}}`, `{"a": "y", "b": 3}`, `{"b": "x", "a": null}`,
	`{"c": "1"}`, `{"c": 1}`, `{"c": null}`, `{"c": false}`, `{"a": "", "c": true}`, `{"d": 1}`, `{"a": "x", "A": "x"}`, `{"c.d-e": true}`, `{"a": [], "c.d-e": true}`,
	`{"not a name": 1}`, `{"a": 1e999999999}`, `{"a": 123456789012345678901234567890}`, `{"a": "\u0000"}`,
}

func readArguments(text string) (map[string]any, bool) {
	reader := json.NewDecoder(strings.NewReader(text))
	reader.UseNumber()
	var args map[string]any
	return args, reader.Decode(&args) == nil && args != nil
}

func TestDeclaredIsWhatIsTaken(t *testing.T) {
	m := mutator{rand: rand.New(rand.NewPCG(3, 4)), keys: map[string]bool{}}
	var seeds []map[string]any
	for _, text := range argumentsToGive {
		args, ok := readArguments(text)
		if !ok {
			t.Fatal(text)
		}
		m.learn(args)
		seeds = append(seeds, args)
	}
	m.names = slices.Sorted(maps.Keys(m.keys))
	all := []contracts.Parameters{{}} // of a contract without the key: any arguments
	for _, text := range parametersToDeclare {
		p, err := parametersOf(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all = append(all, p)
	}
	taken, count := 0, 0
	for i, p := range all {
		s := argumentSchema(t, p)
		compare := func(args map[string]any) {
			ok, err := sameArguments(p, s, args)
			if err != nil {
				t.Errorf("parameters %d: %v", i, err)
			}
			if count++; ok {
				taken++
			}
		}
		for _, args := range seeds {
			compare(args)
		}
		for range 1000 {
			compare(m.mutate(clone(seeds[m.rand.IntN(len(seeds))])).(map[string]any))
		}
	}
	t.Logf("%d of %d were taken", taken, count)
	if taken < count/20 || taken > count*3/4 {
		t.Errorf("%d of %d arguments were taken; too few or too many to tell anything", taken, count)
	}
}

func FuzzDeclaredIsWhatIsTaken(f *testing.F) {
	for i, parameters := range parametersToDeclare {
		for j := i; j < len(argumentsToGive); j += len(parametersToDeclare) {
			f.Add(parameters, argumentsToGive[j])
		}
	}
	f.Fuzz(func(t *testing.T, parameters, arguments string) {
		p, err := parametersOf(parameters)
		args, ok := readArguments(arguments)
		if err != nil || !ok {
			return
		}
		if _, err := sameArguments(p, argumentSchema(t, p), args); err != nil {
			t.Errorf("parameters %s: %v", parameters, err)
		}
	})
}
