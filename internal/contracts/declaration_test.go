package contracts

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is declared in each dialect is beside the contracts, as a model's API gets it.
func TestDeclareIsGolden(t *testing.T) {
	list := load(t, filepath.Join("testdata", "declarations", "contracts.yaml"))
	for _, dialect := range Dialects {
		got, err := Declare(list, dialect)
		if err != nil {
			t.Fatal(err)
		}
		text, err := marshalJSON(got)
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, text, "", "  "); err != nil {
			t.Fatal(err)
		}
		compareGolden(t, filepath.Join("testdata", "declarations", dialect+".json"), indented.String()+"\n")

		var again Declarations
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if back, err := marshalJSON(again); err != nil || !bytes.Equal(back, text) {
			t.Errorf("comes back otherwise (%v):\n%s\n%s", err, text, back)
		}
	}
	if files, _ := os.ReadDir(filepath.Join("testdata", "declarations")); len(files) != len(Dialects)+1 {
		t.Errorf("%d files; there is one for each dialect, and the contracts", len(files))
	}
}

// All dialects say the same about a tool: its name, what it does, and one schema.
func TestDialectsAgree(t *testing.T) {
	list := load(t, filepath.Join("testdata", "declarations", "contracts.yaml"))
	type tool struct {
		Name, Description string
		Parameters        json.RawMessage `json:"parameters"`
		Anthropic         json.RawMessage `json:"input_schema"`
		MCP               json.RawMessage `json:"inputSchema"`
	}
	read := map[string][]tool{}
	for _, dialect := range Dialects {
		d, err := Declare(list, dialect)
		if err != nil {
			t.Fatal(err)
		}
		if d.Type != "declarations" || d.As != dialect {
			t.Errorf("%s: %+v", dialect, d)
		}
		for _, one := range d.Tools {
			var outer struct {
				Type     string
				Function json.RawMessage
			}
			text := json.RawMessage(one)
			if dialect == DialectOpenAI {
				if err := json.Unmarshal(one, &outer); err != nil || outer.Type != "function" {
					t.Fatalf("%s (%v)", one, err)
				}
				text = outer.Function
			}
			var in tool
			if err := json.Unmarshal(text, &in); err != nil {
				t.Fatal(err)
			}
			schemas := 0
			for _, s := range []json.RawMessage{in.Parameters, in.Anthropic, in.MCP} {
				if s != nil {
					in.Parameters, schemas = s, schemas+1
				}
			}
			if schemas != 1 {
				t.Errorf("%s: %d schemas in %s", dialect, schemas, one)
			}
			in.Anthropic, in.MCP = nil, nil
			read[dialect] = append(read[dialect], in)
		}
	}
	for _, dialect := range Dialects[1:] {
		equal := slices.EqualFunc(read[dialect], read[Dialects[0]], func(a, b tool) bool {
			return a.Name == b.Name && a.Description == b.Description && bytes.Equal(a.Parameters, b.Parameters)
		})
		if !equal {
			t.Errorf("%s says %s, %s %s", dialect, read[dialect], Dialects[0], read[Dialects[0]])
		}
	}
	var names []string
	for _, one := range read[DialectMCP] {
		names = append(names, one.Name)
	}
	if want := []string{"report", "nothing", "anything", "schema"}; !slices.Equal(names, want) {
		t.Errorf("declared are %q, want %q: the first of each name", names, want)
	}
}

func TestSchemaOfParameters(t *testing.T) {
	for parameters, want := range map[string]string{
		`[]`:                     `{"type":"object","properties":{},"additionalProperties":false}`,
		``:                       `{"type":"object","properties":{},"additionalProperties":true}`, // takes any
		`{}`:                     `{"type":"object","properties":{},"additionalProperties":false}`,
		`[{name: b}, {name: a}]`: `{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}},"additionalProperties":false}`,
		`{properties: {b: {type: int}, a: {}}, required: [a, b]}`:// in the order of the contract
		`{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}},"required":["b","a"],"additionalProperties":false}`,
		`[{name: a, type: array}]`: `{"type":"object","properties":{"a":{"type":"array","items":{}}},"additionalProperties":false}`,
		`[{name: a, type: any}]`:   `{"type":"object","properties":{"a":{}},"additionalProperties":false}`,
		`[{name: a, required: true, default: x}]`:// what is completed need not be given
		`{"type":"object","properties":{"a":{"type":"string","default":"x"}},"additionalProperties":false}`,
		`[{name: a, type: boolean, default: false, enum: [false]}]`:// false is something
		`{"type":"object","properties":{"a":{"type":"boolean","enum":[false],"default":false}},"additionalProperties":false}`,
		`[{name: a, description: "<a> & b"}]`: `{"type":"object","properties":{"a":{"type":"string","description":"<a> & b"}},"additionalProperties":false}`,
	} {
		contract := "{name: a, engine: local, engine_spec: {command: [a]}}"
		if parameters != "" {
			contract = strings.TrimSuffix(contract, "}") + ", parameters: " + parameters + "}"
		}
		list, err := ParseContracts("", []byte(contract))
		if err != nil {
			t.Fatalf("%s: %v", parameters, err)
		}
		got, err := marshalJSON(list[0].Parameters.Schema())
		if err != nil || string(got) != want {
			t.Errorf("%s (%v):\n got %s\nwant %s", parameters, err, got, want)
		}
	}
}

// No tools are an empty list, not null: programs count it.
func TestDeclareNothing(t *testing.T) {
	for _, dialect := range Dialects {
		d, err := Declare(nil, dialect)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := marshalJSON(d); string(got) != `{"type":"declarations","as":"`+dialect+`","tools":[]}` {
			t.Errorf("%s", got)
		}
	}
}
