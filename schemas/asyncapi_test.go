package schemas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
)

// Whether the document says what is so is tested with the traffic of running executors, in cmd/executor.

func asyncAPI(t *testing.T) map[string]any {
	t.Helper()
	var document map[string]any
	if err := yaml.Unmarshal(schemas.AsyncAPI(), &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// officialSchema compiles the schema that the makers of AsyncAPI publish.
func officialSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("testdata/asyncapi-3.0.0.json")
	if err != nil {
		t.Fatal(err)
	}
	official, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(nothing{})
	const id = "http://asyncapi.com/definitions/3.0.0/asyncapi.json"
	if err := c.AddResource(id, official); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nothing keeps tests from asking the network.
type nothing struct{}

func (nothing) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not here", url) }

// asJSON is a YAML document as JSON readers know it.
func asJSON(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestAsyncAPIIsValid(t *testing.T) {
	official := officialSchema(t)
	if err := official.Validate(asJSON(t, asyncAPI(t))); err != nil {
		t.Errorf("%#v", err)
	}
	// It is the schema that decides: a document with a mistake is refused.
	for name, spoil := range map[string]func(document map[string]any){
		"unknown key":    func(d map[string]any) { d["channel"] = map[string]any{} },
		"other version":  func(d map[string]any) { d["asyncapi"] = "2.6.0" },
		"wrong action":   func(d map[string]any) { d["operations"].(map[string]any)["run"].(map[string]any)["action"] = "publish" },
		"wrong binding":  func(d map[string]any) { binding(d)["queueGroup"] = "tools" },
		"wrong security": func(d map[string]any) { part(d, "components", "securitySchemes", "token")["in"] = "header" },
	} {
		d := asyncAPI(t)
		spoil(d)
		if official.Validate(asJSON(t, d)) == nil {
			t.Errorf("%s: the document is valid all the same", name)
		}
	}
}

func binding(d map[string]any) map[string]any {
	return part(d, "components", "operationBindings", "service", "nats")
}

func part(d map[string]any, path ...string) map[string]any {
	for _, key := range path {
		d, _ = d[key].(map[string]any)
	}
	return d
}

// TestAsyncAPIRefers: every reference leads somewhere, every part is referred to, and every schema of a message is in a
// payload or header.
func TestAsyncAPIRefers(t *testing.T) {
	document := asyncAPI(t)
	referred := map[string]bool{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				referred[ref] = true
				checkReference(t, document, at, ref)
			}
			for key, one := range v {
				walk(at+"/"+key, one)
			}
		case []any:
			for i, one := range v {
				walk(fmt.Sprintf("%s/%d", at, i), one)
			}
		}
	}
	walk("", document)
	for kind, list := range part(document, "components") {
		for name := range list.(map[string]any) {
			if ref := "#/components/" + kind + "/" + name; !referred[ref] {
				t.Errorf("nothing refers to %s", ref)
			}
		}
	}
	for name := range part(document, "channels") {
		if !referred["#/channels/"+name] {
			t.Errorf("no operation has the channel %s", name)
		}
	}
	for _, name := range schemas.Names() {
		used := slices.ContainsFunc(slices.Collect(maps.Keys(referred)), func(ref string) bool { return strings.HasPrefix(ref, schemas.ID(name)) })
		if file := name == "configuration"; used == file { // that is a file
			t.Errorf("the schema %s: used by the document: %t", name, used)
		}
	}
	for _, branch := range eventTypes {
		if branch := schemas.ID("event") + "#/$defs/" + branch; !referred[branch] {
			t.Errorf("no message has the payload %s", branch)
		}
	}
}

func checkReference(t *testing.T, document map[string]any, at, ref string) {
	t.Helper()
	id, pointer, _ := strings.Cut(ref, "#")
	node := any(document)
	if id != "" {
		name := strings.TrimSuffix(id[strings.LastIndexByte(id, '/')+1:], ".schema.json")
		if !slices.Contains(schemas.Names(), name) || schemas.ID(name) != id {
			t.Errorf("%s: %s is none of our schemas", at, ref)
			return
		}
		node = load(t, name).node
	}
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if token == "" {
			continue
		}
		m, _ := node.(map[string]any)
		if node = m[token]; node == nil {
			t.Errorf("%s: %s leads nowhere", at, ref)
			return
		}
	}
}

// TestAsyncAPISubjects: the channels have the subjects that the program has, and with another prefix those that the
// document says it has then.
func TestAsyncAPISubjects(t *testing.T) {
	document := asyncAPI(t)
	const prefix = "agents"
	renamed := func(s string) string {
		if rest, ok := strings.CutPrefix(s, contracts.DefaultPrefix+"."); ok {
			s = prefix + "." + rest
		}
		return strings.ReplaceAll(s, "TOOLS_", strings.ToUpper(prefix)+"_")
	}
	for _, as := range []struct {
		prefix string
		rename func(string) string
	}{{"", func(s string) string { return s }}, {prefix, renamed}} {
		s, err := contracts.NewSubjects(as.prefix)
		if err != nil {
			t.Fatal(err)
		}
		is := map[string][]string{ // by the method that makes them
			"Run":      {s.Run(), s.Run() + ".{engine}"},
			"Stream":   {s.Stream(), s.Stream() + ".{engine}"},
			"Follow":   {s.Follow()},
			"Discover": {s.Discover()},
			"Exec":     {s.Exec("{engine}", ""), s.Exec("{engine}", "{priority}")},
			"Bell":     {s.Bell("{engine}"), s.Bell("{engine}") + ".{priority}"},
			"Cancel":   {s.Cancel("{id}")},
			"Dead":     {s.Dead("{engine}")},
			"Limit":    {s.Limit("{limit}", "{place}")},
			"Status":   {s.Status("{id}")},
			"Output":   {s.Output("{id}")},
			"Result":   {s.Result("{id}")},
			"Name":     {"$KV." + s.Name("EXECUTORS") + ".{executor}", "$KV." + s.Name("CONTRACTS") + ".{contract}"},
			"":         {"$SRV.{verb}", "$SRV.{verb}.executor", "$SRV.{verb}.executor.{instance}"},
		}
		noSubjects := []string{"Consumer", "ExecAll", "ParseExec", "Prefix", "Reply"}
		for m := range reflect.TypeFor[contracts.Subjects]().NumMethod() {
			name := reflect.TypeFor[contracts.Subjects]().Method(m).Name
			if _, has := is[name]; !has && !slices.Contains(noSubjects, name) {
				t.Errorf("Subjects.%s is not compared with the document", name)
			}
		}
		var want, got []string
		for _, list := range is {
			want = append(want, list...)
		}
		for name, channel := range part(document, "channels") {
			address, ok := channel.(map[string]any)["address"].(string)
			if !ok && name != "inbox" {
				t.Errorf("the channel %s has no address", name)
			}
			if ok {
				got = append(got, as.rename(address))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the subjects are\n%q, the document has\n%q", want, got)
		}
		// The streams hold them.
		streams := part(document, "x-streams")
		for name, channel := range part(document, "channels") {
			stream, ok := channel.(map[string]any)["x-stream"].(string)
			if !ok {
				continue
			}
			subjects, _ := part(streams, stream)["subjects"].([]any)
			address := channel.(map[string]any)["address"].(string)
			if !slices.ContainsFunc(subjects, func(pattern any) bool { return holds(pattern.(string), address) }) {
				t.Errorf("the channel %s is not in the stream %s, which has %v", name, stream, subjects)
			}
		}
		var all []string
		for _, one := range part(streams, "TOOLS_EXEC")["subjects"].([]any) {
			all = append(all, as.rename(one.(string)))
		}
		if !slices.Equal(all, s.ExecAll()) {
			t.Errorf("the queues are %q, the document has %q", s.ExecAll(), all)
		}
	}
}

// holds reports whether a stream's subject takes what is sent to a channel.
func holds(pattern, address string) bool {
	p, a := strings.Split(pattern, "."), strings.Split(address, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(a) > i
		case i >= len(a) || token != "*" && token != a[i] && !strings.HasPrefix(a[i], "{"):
			return false
		}
	}
	return len(a) == len(p)
}

// TestAsyncAPIClosedSets: what the document lists is what there is.
func TestAsyncAPIClosedSets(t *testing.T) {
	document := asyncAPI(t)
	parameters := part(document, "components", "parameters")
	var engines, priorities []any
	for _, e := range contracts.Engines {
		engines = append(engines, e)
	}
	for _, p := range contracts.Priorities {
		if p != contracts.PriorityNormal {
			priorities = append(priorities, p)
		}
	}
	if got := part(parameters, "engine")["enum"]; !reflect.DeepEqual(got, engines) {
		t.Errorf("engines: %v, want %v", got, engines)
	}
	if got := part(parameters, "priority")["enum"]; !reflect.DeepEqual(got, priorities) {
		t.Errorf("priorities: %v, want %v", got, priorities)
	}
	if got := binding(document)["queue"]; got != contracts.DefaultPrefix {
		t.Errorf("the queue group of the service is %v", got)
	}
}
