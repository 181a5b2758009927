package contracts

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// parameters reads what is below the key parameters of a contract.
func parameters(t *testing.T, text string) Parameters {
	t.Helper()
	list, err := ParseContracts("", []byte("name: t\nengine: local\nengine_spec: {command: [a]}\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Parameters
}

// arguments reads the args of a request, numbers as it does.
func arguments(t testing.TB, text string) map[string]any {
	t.Helper()
	r, err := DecodeRequest([]byte(`{"tool":"t","args":` + text + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return r.Args
}

func TestComplete(t *testing.T) {
	const declared = `
parameters:
  - {name: text, type: string, required: true, description: What to read.}
  - {name: count, type: integer, default: 10}
  - {name: ratio, type: number}
  - {name: deep, type: boolean, default: false}
  - {name: list, type: array}
  - {name: map, type: object, default: {a: [1]}}
  - {name: mode, enum: [fast, slow], default: fast}
  - {name: level, type: integer, enum: [1, 2e0, 9007199254740993]}
  - {name: any, type: any}
  - {name: input-file}
`
	const defaults = `"count":10,"deep":false,"map":{"a":[1]},"mode":"fast"`
	p := parameters(t, declared)
	for _, test := range []struct{ args, want, message string }{
		{`{"text":"x"}`, `{"text":"x",` + defaults + `}`, ""},
		{`{"text":"","count":0,"deep":true,"map":{},"mode":"slow"}`, `{"text":"","count":0,"deep":true,"map":{},"mode":"slow"}`, ""},
		{`{"text":"x","ratio":1.5,"list":[],"any":[null],"input-file":"a"}`, `{"text":"x","ratio":1.5,"list":[],"any":[null],"input-file":"a",` + defaults + `}`, ""},
		{`{"text":"x","count":null,"ratio":null,"any":null}`, `{"text":"x",` + defaults + `}`, ""},

		// Integers are those of JSON Schema, and stay as they were written.
		{`{"text":"x","count":5.0}`, `{"text":"x","count":5.0,"deep":false,"map":{"a":[1]},"mode":"fast"}`, ""},
		{`{"text":"x","count":1e3}`, `{"text":"x","count":1e3,"deep":false,"map":{"a":[1]},"mode":"fast"}`, ""},
		{`{"text":"x","count":-12.50e1}`, `{"text":"x","count":-12.50e1,"deep":false,"map":{"a":[1]},"mode":"fast"}`, ""},
		{`{"text":"x","count":123456789012345678901234567890}`, `{"text":"x","count":123456789012345678901234567890,"deep":false,"map":{"a":[1]},"mode":"fast"}`, ""},
		{`{"text":"x","count":5.5}`, "", `the argument "count" is 5.5; it must be an integer`},
		{`{"text":"x","count":1e-1}`, "", `the argument "count" is 1e-1; it must be an integer`},
		{`{"text":"x","count":1e999999999}`, "", `the argument "count" is 1e999999999; it must be an integer`},
		{`{"text":"x","count":"5"}`, "", `the argument "count" is the text "5"; it must be an integer`},
		{`{"text":"x","count":true}`, "", `the argument "count" is true; it must be an integer`},

		{`{"text":5}`, "", `the argument "text" is 5; it must be a string`},
		{`{"text":"x","ratio":"1"}`, "", `the argument "ratio" is the text "1"; it must be a number`},
		{`{"text":"x","deep":0}`, "", `the argument "deep" is 0; it must be a boolean`},
		{`{"text":"x","list":{}}`, "", `the argument "list" is an object; it must be an array`},
		{`{"text":"x","map":[]}`, "", `the argument "map" is an array; it must be an object`},

		{`{"text":"x","level":1.0}`, `{"text":"x","level":1.0,` + defaults + `}`, ""},
		{`{"text":"x","level":2}`, `{"text":"x","level":2,` + defaults + `}`, ""},
		{`{"text":"x","level":9007199254740993}`, `{"text":"x","level":9007199254740993,` + defaults + `}`, ""},
		{`{"text":"x","level":9007199254740992}`, "", `the argument "level" is 9007199254740992; it must be one of 1, 2e0, 9007199254740993`}, // the same as a float
		{`{"text":"x","mode":"Fast"}`, "", `the argument "mode" is "Fast"; it must be one of "fast", "slow"`},

		{`{}`, "", `the argument "text" is missing (string: What to read.)`},
		{`{"text":null}`, "", `the argument "text" is missing (string: What to read.)`},
		{`{"text":"x","input_file":"a"}`, "", `unknown argument "input_file"; did you mean "input-file"?`},
		{`{"text":"x","inptu-file":"a"}`, "", `unknown argument "inptu-file"; did you mean "input-file"?`},
		{`{"text":"x","unrelated":"a"}`, "", `unknown argument "unrelated"; known are text, count, ratio, deep, list, map, mode, level, any, input-file`},
		{`{"text":"x","unrelated":null}`, "", `unknown argument "unrelated"; known are text, count, ratio, deep, list, map, mode, level, any, input-file`},
		{`{"text":"x","9x":1}`, "", `the argument "9x" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`},
		{`{"text":"x","":1}`, "", `the argument "" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`},
	} {
		args := arguments(t, test.args)
		before := compact(args)
		got, err := p.Complete(args)
		checkCompleted(t, test.args, got, err, test.want, test.message)
		if compact(args) != before {
			t.Errorf("%s: the request's args were changed to %s", test.args, compact(args))
		}
	}
}

// checkCompleted compares what Complete returned with JSON, or with the message of an error.
func checkCompleted(t *testing.T, args string, got map[string]any, err error, want, message string) {
	t.Helper()
	if message != "" {
		var e *Error
		if !errors.As(err, &e) || e.Code != InvalidArgs || e.Message != message {
			t.Errorf("%s:\n got %v\nwant %s", args, err, message)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %s", args, err)
	} else if !reflect.DeepEqual(got, arguments(t, want)) {
		t.Errorf("%s:\n got %s\nwant %s", args, compact(got), want)
	}
}

// No key parameters: any args, as they are. An empty list: none.
func TestCompleteWithoutDeclaration(t *testing.T) {
	anything, none := parameters(t, ""), parameters(t, "parameters: []")
	checkCompleted(t, "any", must(anything.Complete(arguments(t, `{"a":1,"b":null}`))), nil, `{"a":1,"b":null}`, "")
	if got, err := anything.Complete(nil); err != nil || got != nil {
		t.Errorf("%v %v", got, err)
	}
	_, err := anything.Complete(map[string]any{"a b": json.Number("1")})
	checkCompleted(t, "a b", nil, err, "", `the argument "a b" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`)

	checkCompleted(t, "none", must(none.Complete(nil)), nil, `{}`, "")
	_, err = none.Complete(arguments(t, `{"a":1}`))
	checkCompleted(t, "a", nil, err, "", `unknown argument "a"; this tool takes none`)
}

// must is for what cannot fail in its test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The type of a parameter that names none is string, also in messages.
func TestCompleteMissingWithoutType(t *testing.T) {
	p := parameters(t, "parameters: [{name: x, required: true}]")
	_, err := p.Complete(nil)
	checkCompleted(t, "{}", nil, err, "", `the argument "x" is missing (string)`)
}

// What is said about an argument is bounded, however long it and the contract's lists are.
func TestCompleteMessagesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	p := Parameters{Declared: true}
	for range 1000 {
		p.List = append(p.List, Parameter{Name: strings.Repeat("n", 64)})
	}
	p.List = append(p.List, Parameter{Name: "e", Enum: []any{long, long}})
	for _, args := range []map[string]any{{"e": long + "y"}, {"e": []any{long}}, {"e": json.Number(strings.Repeat("1", 1<<20))}, {"z": ""}, {long: ""}} {
		if _, err := p.Complete(args); err == nil || len(err.Error()) > 2000 {
			t.Errorf("%.3000v", err)
		}
	}
}

// The two forms of parameters and all type names people write come to the same.
func TestParameterForms(t *testing.T) {
	list := parameters(t, `
parameters:
  - {name: a, type: str, required: "TRUE"}
  - {name: b, type: int, required: "false"}
  - {name: c, type: float}
  - {name: d, type: double, default: 1}
  - {name: e, type: bool}
  - {name: f, type: list}
  - {name: g, type: dict}
  - {name: h, type: map}
`)
	schema := parameters(t, `
params:
  type: object
  properties:
    a: {type: string, required: true}
    b: {type: integer}
    c: {type: number}
    d: {type: number, default: 1}
    e: {type: boolean}
    f: {type: array}
    g: {type: object}
    h: {type: object}
  required: []
`)
	if !reflect.DeepEqual(list, schema) {
		t.Errorf("\n%+v\n%+v", list, schema)
	}
	if got := strings.Join(list.Names(), ""); got != "abcdefgh" {
		t.Errorf("the order of the contract is lost: %s", got)
	}
	if a, b := list.Find("a"), list.Find("b"); !a.Required || b.Required || list.Find("z") != nil {
		t.Errorf("%+v %+v", a, b)
	}
}
