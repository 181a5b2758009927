package schemas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
	"github.com/praxis-sdk/executor/schemas/check"
)

func TestNames(t *testing.T) {
	want := []string{"configuration", "contract", "dead-letter", "declarations", "discover", "discovery", "event", "follow", "presence", "request", "result"}
	if got := schemas.Names(); !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	for _, name := range schemas.Names() {
		text, err := schemas.Text(name)
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			Schema      string `json:"$schema"`
			ID          string `json:"$id"`
			Title       string `json:"title"`
			Description string `json:"description"`
		}
		if err := json.Unmarshal(text, &head); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if head.Schema != "https://json-schema.org/draft/2020-12/schema" || head.ID != "https://github.com/praxis-sdk/executor/schemas/"+name+".schema.json" {
			t.Errorf("%s has $schema %q and $id %q", name, head.Schema, head.ID)
		}
		if head.Title == "" || head.Description == "" {
			t.Errorf("%s has no title or description", name)
		}
		// Each compiles on its own, and refuses what is no document of any kind.
		if err := check.JSON(name, []byte(`[]`)); err == nil {
			t.Errorf("%s accepts a list", name)
		}
	}
	for _, name := range []string{"contracts", "contract.schema.json", "../go.mod", ""} {
		const list = "there are configuration, contract, dead-letter, declarations, discover, discovery, event, follow, presence, request, result"
		if _, err := schemas.Text(name); err == nil || err.Error() != fmt.Sprintf("there is no schema %q; %s", name, list) {
			t.Errorf("Text(%q): %v", name, err)
		}
		if err := check.JSON(name, []byte(`{}`)); err == nil || !strings.HasSuffix(err.Error(), list) {
			t.Errorf("Check(%q): %v", name, err)
		}
	}
}

// schema is a part of a schema file, with references followed.
type schema struct {
	t    *testing.T
	file string
	node map[string]any
}

func load(t *testing.T, name string, pointer ...string) schema {
	t.Helper()
	text, err := schemas.Text(name)
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	s := schema{t, name, root}
	for _, key := range pointer {
		next, ok := s.node[key].(map[string]any)
		if !ok {
			t.Fatalf("%s has no %s", name, strings.Join(pointer, "/"))
		}
		s.node = next
	}
	return s
}

// ref follows a $ref, if there is one.
func (s schema) ref() (schema, bool) {
	ref, ok := s.node["$ref"].(string)
	if !ok {
		return s, false
	}
	file, pointer, _ := strings.Cut(ref, "#")
	name := s.file
	if file != "" {
		name = strings.TrimSuffix(strings.TrimPrefix(file, "https://github.com/praxis-sdk/executor/schemas/"), ".schema.json")
	}
	var path []string
	if pointer != "" {
		path = strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	}
	return load(s.t, name, path...), true
}

func (s schema) part(v any) schema {
	m, _ := v.(map[string]any)
	return schema{s.t, s.file, m}
}

// properties are those of the schema and of what it refers to.
func (s schema) properties() map[string]schema {
	all := map[string]schema{}
	if r, ok := s.ref(); ok {
		all = r.properties()
	}
	m, _ := s.node["properties"].(map[string]any)
	for name, v := range m {
		all[name] = s.part(v)
	}
	return all
}

func (s schema) required() []string {
	var names []string
	if r, ok := s.ref(); ok {
		names = r.required()
	}
	list, _ := s.node["required"].([]any)
	for _, v := range list {
		names = append(names, v.(string))
	}
	slices.Sort(names)
	return names
}

func (s schema) description() string {
	if d, ok := s.node["description"].(string); ok {
		return d
	}
	if r, ok := s.ref(); ok {
		return r.description()
	}
	return ""
}

// keyword looks for a keyword in the schema, what it refers to, and its alternatives.
func (s schema) keyword(name string) (any, schema) {
	if v, ok := s.node[name]; ok {
		return v, s
	}
	if r, ok := s.ref(); ok {
		if v, at := r.keyword(name); v != nil {
			return v, at
		}
	}
	for _, one := range s.alternatives() {
		if v, at := one.keyword(name); v != nil {
			return v, at
		}
	}
	return nil, s
}

// alternatives are the branches of anyOf, but for the one that takes a variable of the environment.
func (s schema) alternatives() []schema {
	var all []schema
	list, _ := s.node["anyOf"].([]any)
	for _, v := range list {
		if one := s.part(v); one.node["$ref"] != "#/$defs/variable" {
			all = append(all, one)
		}
	}
	return all
}

// types are the JSON types that a schema takes; none for all of them.
func (s schema) types() []string {
	set := map[string]bool{}
	switch v := s.node["type"].(type) {
	case string:
		set[v] = true
	case []any:
		for _, one := range v {
			set[one.(string)] = true
		}
	}
	values, _ := s.node["enum"].([]any)
	if c, ok := s.node["const"]; ok {
		values = append(values, c)
	}
	for _, v := range values {
		set[map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean"}[reflect.ValueOf(v).Kind()]] = true
	}
	if len(set) == 0 {
		if r, ok := s.ref(); ok {
			return r.types()
		}
		for _, one := range s.alternatives() {
			for _, name := range one.types() {
				set[name] = true
			}
		}
	}
	delete(set, "null")
	return slices.Sorted(maps.Keys(set))
}

// enum are the values of the first enum there is.
func (s schema) enum() []string {
	list, _ := s.keyword("enum")
	var values []string
	for _, v := range list.([]any) {
		values = append(values, v.(string))
	}
	return values
}

// shapes are the types whose JSON is not their Go shape.
var shapes = map[reflect.Type][]string{
	reflect.TypeFor[contracts.Duration]():    {"number", "string"},
	reflect.TypeFor[contracts.Size]():        {"integer", "string"},
	reflect.TypeFor[contracts.CPU]():         {"number", "string"},
	reflect.TypeFor[contracts.Command]():     {"array", "string"},
	reflect.TypeFor[contracts.Variables]():   {"object"},
	reflect.TypeFor[contracts.Mounts]():      {"array", "object"},
	reflect.TypeFor[contracts.CacheMounts](): {"array", "object"},
	reflect.TypeFor[contracts.Parameters]():  {"array", "object"},
	reflect.TypeFor[contracts.Tmpfs]():       {"array", "object"},
	reflect.TypeFor[contracts.Ulimit]():      {"integer", "string"},
	reflect.TypeFor[contracts.GPUs]():        {"integer", "string"},
	reflect.TypeFor[contracts.Required]():    {"boolean", "string"},
	reflect.TypeFor[contracts.Fallback]():    {"object", "string"},
	reflect.TypeFor[contracts.Spec]():        {"object"},
	reflect.TypeFor[contracts.Declaration](): {"object"},
}

// sameFields compares a struct with a schema, both ways and all the way down.
func sameFields(t *testing.T, at string, typ reflect.Type, s schema) {
	t.Helper()
	properties := s.properties()
	seen := map[string]bool{}
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "" || name == "-" {
			continue
		}
		names := []string{name}
		if alias := f.Tag.Get("alias"); alias != "" {
			names = append(names, strings.Split(alias, ",")...)
		}
		for _, name := range names {
			seen[name] = true
			p, ok := properties[name]
			if !ok {
				t.Errorf("%s.%s: %s has it, the schema %s does not", at, name, typ, s.file)
				continue
			}
			if len(p.description()) < 8 && p.node["const"] != p.description() {
				t.Errorf("%s.%s: the schema %s does not describe it", at, name, s.file)
			}
			sameType(t, at+"."+name, f.Type, p)
		}
	}
	for name := range properties {
		if !seen[name] {
			t.Errorf("%s.%s: the schema %s has it, %s does not", at, name, s.file, typ)
		}
	}
}

func sameType(t *testing.T, at string, typ reflect.Type, s schema) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want, special := shapes[typ]
	switch {
	case special:
	case typ == reflect.TypeFor[time.Time]():
		want = []string{"string"}
		if format, _ := s.keyword("format"); format != "date-time" {
			t.Errorf("%s: a time without the format date-time", at)
		}
	case typ == reflect.TypeFor[[]byte]():
		want = []string{"string"}
		if encoding, _ := s.keyword("contentEncoding"); encoding != "base64" {
			t.Errorf("%s: bytes without the contentEncoding base64", at)
		}
	default:
		want = map[reflect.Kind][]string{
			reflect.String: {"string"}, reflect.Bool: {"boolean"}, reflect.Float64: {"number"}, reflect.Int: {"integer"}, reflect.Int64: {"integer"},
			reflect.Uint64: {"integer"}, reflect.Slice: {"array"}, reflect.Map: {"object"}, reflect.Struct: {"object"}, reflect.Interface: nil,
		}[typ.Kind()]
	}
	if got := s.types(); !slices.Equal(got, want) {
		t.Errorf("%s: the schema takes %q where %s is %q", at, got, typ, want)
	}
	switch {
	case special:
		if typ == reflect.TypeFor[contracts.Parameters]() {
			items, owner := s.keyword("items")
			sameType(t, at+"[]", reflect.TypeFor[contracts.Parameter](), owner.part(items))
		}
	case typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]():
		if typ == reflect.TypeFor[contracts.Contract]() && s.file == "discovery" {
			return // open for what newer executors know
		}
		sameFields(t, at, typ, s)
	case typ.Kind() == reflect.Slice && typ != reflect.TypeFor[[]byte]():
		if items, owner := s.keyword("items"); items != nil {
			sameType(t, at+"[]", typ.Elem(), owner.part(items))
		} else if typ.Elem().Kind() != reflect.Interface {
			t.Errorf("%s: the schema does not say what the list holds", at)
		}
	case typ.Kind() == reflect.Map:
		if values, owner := s.keyword("additionalProperties"); values != nil {
			sameType(t, at+"{}", typ.Elem(), owner.part(values))
		} else if typ.Elem().Kind() != reflect.Interface {
			t.Errorf("%s: the schema does not say what the mapping holds", at)
		}
	}
}

func TestFields(t *testing.T) {
	sameFields(t, "contract", reflect.TypeFor[contracts.Contract](), load(t, "contract", "$defs", "contract"))
	sameFields(t, "fallback", reflect.TypeFor[contracts.Fallback](), load(t, "contract", "$defs", "fallback_with_spec"))
	sameFields(t, "common_spec", reflect.TypeFor[contracts.CommonSpec](), load(t, "contract", "$defs", "common_spec"))
	sameFields(t, "local_spec", reflect.TypeFor[contracts.LocalSpec](), load(t, "contract", "$defs", "local_spec"))
	sameFields(t, "docker_spec", reflect.TypeFor[contracts.DockerSpec](), load(t, "contract", "$defs", "docker_spec"))
	sameFields(t, "dagger_spec", reflect.TypeFor[contracts.DaggerSpec](), load(t, "contract", "$defs", "dagger_spec"))
	sameFields(t, "request", reflect.TypeFor[contracts.Request](), load(t, "request"))
	sameFields(t, "result", reflect.TypeFor[contracts.Result](), load(t, "result"))
	sameFields(t, "presence", reflect.TypeFor[contracts.Presence](), load(t, "presence"))
	sameFields(t, "discovery", reflect.TypeFor[contracts.Discovery](), load(t, "discovery"))
	sameFields(t, "declarations", reflect.TypeFor[contracts.Declarations](), load(t, "declarations"))
	sameFields(t, "follow", reflect.TypeFor[contracts.Follow](), load(t, "follow"))
	sameFields(t, "discover", reflect.TypeFor[contracts.Discover](), load(t, "discover"))
	sameFields(t, "dead-letter", reflect.TypeFor[contracts.DeadLetter](), load(t, "dead-letter"))
	sameFields(t, "past_event", reflect.TypeFor[contracts.PastEvent](), load(t, "dead-letter", "$defs", "past_event"))
	sameFields(t, "configuration", reflect.TypeFor[configs.Config](), load(t, "configuration"))

	// An event has the fields of its type; all types together those of the struct.
	together := schema{t, "event", map[string]any{"properties": map[string]any{}}}
	for _, kind := range eventTypes {
		maps.Copy(together.node["properties"].(map[string]any), nodes(load(t, "event", "$defs", kind).properties()))
	}
	together.node["properties"].(map[string]any)["type"] = load(t, "event", "$defs", "event").properties()["type"].node
	sameFields(t, "event", reflect.TypeFor[contracts.Event](), together)
}

var eventTypes = []string{contracts.TypeAccepted, contracts.TypeStarted, contracts.TypeProgress, contracts.TypeRunning, contracts.TypeFallback, contracts.TypeRetry, contracts.TypeFinished}

func nodes(properties map[string]schema) map[string]any {
	m := map[string]any{}
	for name, s := range properties {
		m[name] = s.node
	}
	return m
}

// TestRequired: what Go always writes is required, what it may leave out is not.
func TestRequired(t *testing.T) {
	for _, c := range []struct {
		typ    reflect.Type
		schema schema
	}{
		{reflect.TypeFor[contracts.Result](), load(t, "result")},
		{reflect.TypeFor[contracts.Error](), load(t, "result", "$defs", "error")},
		{reflect.TypeFor[contracts.Tried](), load(t, "result", "$defs", "tried")},
		{reflect.TypeFor[contracts.Timings](), load(t, "result", "$defs", "timings")},
		{reflect.TypeFor[contracts.Usage](), load(t, "result", "$defs", "usage")},
		{reflect.TypeFor[contracts.Isolation](), load(t, "result", "$defs", "isolation")},
		{reflect.TypeFor[contracts.Event](), load(t, "event", "$defs", "event")},
		{reflect.TypeFor[contracts.Presence](), load(t, "presence")},
		{reflect.TypeFor[contracts.EnginePresence](), load(t, "presence", "$defs", "engine")},
		{reflect.TypeFor[contracts.Discovery](), load(t, "discovery")},
		{reflect.TypeFor[contracts.Declarations](), load(t, "declarations")},
		{reflect.TypeFor[contracts.InputSchema](), load(t, "declarations", "$defs", "input_schema")},
		{reflect.TypeFor[contracts.Follow](), load(t, "follow")},
		{reflect.TypeFor[contracts.Discover](), load(t, "discover")},
		{reflect.TypeFor[contracts.DeadLetter](), load(t, "dead-letter")},
		{reflect.TypeFor[contracts.PastEvent](), load(t, "dead-letter", "$defs", "past_event")},
	} {
		var always []string
		for _, f := range reflect.VisibleFields(c.typ) {
			if name, options, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" && !strings.Contains(options, "omit") {
				always = append(always, name)
			}
		}
		slices.Sort(always)
		if got := c.schema.required(); !slices.Equal(got, always) {
			t.Errorf("%s: the schema requires %q, Go always writes %q", c.typ, got, always)
		}
	}
}

// TestDescribed: every property and definition of every file says what it is.
func TestDescribed(t *testing.T) {
	for _, name := range schemas.Names() {
		var walk func(at string, v any)
		walk = func(at string, v any) {
			switch v := v.(type) {
			case map[string]any:
				if defs, ok := v["$defs"].(map[string]any); ok {
					for key, one := range defs {
						if title, _ := one.(map[string]any)["title"].(string); title == "" {
							t.Errorf("%s: $defs/%s has no title", name, key)
						}
					}
				}
				for key, one := range v {
					walk(at+"/"+key, one)
				}
				// Below if, then, else and in branches properties only add conditions to those that are described.
				if condition.MatchString(at) {
					return
				}
				properties, _ := v["properties"].(map[string]any)
				for key, one := range properties {
					if p := (schema{t, name, one.(map[string]any)}); p.description() == "" {
						t.Errorf("%s: %s/properties/%s has no description", name, at, key)
					}
				}
			case []any:
				for i, one := range v {
					walk(at+"/"+strconv.Itoa(i), one)
				}
			}
		}
		walk("", load(t, name).node)
	}
}

var condition = regexp.MustCompile(`/(if|then|else|allOf|anyOf|oneOf|not|contains)(/|$)|/properties$|/\$defs/(means_|with_image)`)

func TestClosedSets(t *testing.T) {
	texts := func(list any) (all []string) {
		for v := range reflect.ValueOf(list).Len() {
			all = append(all, reflect.ValueOf(list).Index(v).String())
		}
		return all
	}
	for _, c := range []struct {
		name string
		list any
		in   schema
	}{
		{"Statuses", contracts.Statuses, load(t, "result", "$defs", "status")},
		{"Codes", contracts.Codes, load(t, "result", "$defs", "code")},
		{"Engines", contracts.Engines, load(t, "contract", "$defs", "engine")},
		{"Priorities", contracts.Priorities, load(t, "request", "properties", "priority")},
		{"Types", contracts.Types, load(t, "contract", "$defs", "parameter_type")},
		{"Types", contracts.Types[:len(contracts.Types)-1], load(t, "declarations", "$defs", "property", "properties", "type")}, // any is no type there
		{"Dialects", contracts.Dialects, load(t, "declarations", "$defs", "dialect")},
		{"ArgsEnv", []contracts.ArgsEnv{contracts.ArgsPrefixed, contracts.ArgsRaw}, load(t, "contract", "$defs", "contract", "properties", "args_env")},
		{"Delivery", []string{contracts.AtLeastOnce, contracts.AtMostOnce}, load(t, "contract", "$defs", "contract", "properties", "delivery")},
		{"RetryOn", contracts.RetryOn, load(t, "contract", "$defs", "contract", "properties", "retry", "properties", "on", "items")},
		{"OnOutputLimit", []string{contracts.OutputDrop, contracts.OutputStop}, load(t, "contract", "$defs", "contract", "properties", "on_output_limit")},
	} {
		if got, want := c.in.enum(), texts(c.list); !slices.Equal(got, want) {
			t.Errorf("%s is %q, the schema has %q", c.name, want, got)
		}
	}
	var branches []string
	for _, one := range load(t, "event").node["oneOf"].([]any) {
		ref := one.(map[string]any)["$ref"].(string)
		branches = append(branches, ref[strings.LastIndexByte(ref, '/')+1:])
	}
	if want := append(slices.Clone(eventTypes), "error", "discovery.schema.json", "declarations.schema.json"); !slices.Equal(branches, want) {
		t.Errorf("the types of events are %q, the schema has %q", want, branches)
	}
	for _, kind := range eventTypes {
		if got := load(t, "event", "$defs", kind, "properties", "type").node["const"]; got != kind {
			t.Errorf("event.schema.json: the type of %s is %v", kind, got)
		}
	}
}

// TestDefaults: the schema shows the defaults that hold.
func TestDefaults(t *testing.T) {
	var walk func(at string, v reflect.Value, s schema)
	walk = func(at string, v reflect.Value, s schema) {
		properties := s.properties()
		for _, f := range reflect.VisibleFields(v.Type()) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" {
				continue // not in files
			}
			field, p := v.FieldByIndex(f.Index), properties[name]
			if f.Type.Kind() == reflect.Struct {
				if r, ok := p.ref(); ok {
					p = r
				}
				walk(at+name+".", field, p)
				continue
			}
			if at+name == "execution.dagger.resource_limits.cpu" || at+name == "execution.docker.resource_limits.cpu" {
				continue // 0 is none, and cannot be written
			}
			var want any
			switch {
			case field.Kind() == reflect.Slice && field.Len() == 0:
				want = []any{}
			case field.Kind() == reflect.Map && field.Len() == 0:
				want = map[string]any{}
			default:
				text, err := json.Marshal(field.Interface())
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(text, &want); err != nil {
					t.Fatal(err)
				}
			}
			if got, ok := p.node["default"]; !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s%s: the schema has the default %v, Default() has %v", at, name, got, want)
			}
		}
	}
	walk("", reflect.ValueOf(configs.Default()), load(t, "configuration"))

	spec := load(t, "contract", "$defs", "common_spec").properties()
	if got, want := spec["timeout"].node["default"], time.Duration(contracts.DefaultTimeout).Seconds(); got != want {
		t.Errorf("timeout: the schema has the default %v, it is %v", got, want)
	}
}

// TestWritten: what Go writes with every field filled in, and with none but those that are always there, is valid.
func TestWritten(t *testing.T) {
	valid := func(name string, v any) {
		t.Helper()
		if err := check.Value(name, v); err != nil {
			text, _ := json.Marshal(v)
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	now := time.Date(2026, 1, 31, 15, 4, 5, 6000, time.UTC)
	for _, status := range contracts.Statuses {
		r := filled[contracts.Result](t)
		r.Type, r.Status = contracts.TypeResult, status
		valid("result", r)
		valid("result", contracts.Result{Type: contracts.TypeResult, Status: status}) // refused, and its id could not be read
	}
	for _, code := range contracts.Codes {
		r := filled[contracts.Result](t)
		r.Type, r.Error.Code, r.Tried[0].Code = contracts.TypeResult, code, code
		valid("result", r)
		valid("event", map[string]any{"type": "error", "error": r.Error})
	}
	for _, kind := range eventTypes {
		e := filled[contracts.Event](t)
		e.Type = kind
		valid("event", e)
	}
	base := contracts.Event{ID: "a", Executor: "e", Time: now, Digest: digest, ExecSeq: 1}
	for _, e := range []contracts.Event{
		{Type: contracts.TypeAccepted, Stream: "TOOLS_EXEC", Seq: 1, Reply: "tools.reply.a"},
		{Type: contracts.TypeStarted, Engine: "local", Tool: "a"},
		{Type: contracts.TypeProgress, Stage: "pull"},
		{Type: contracts.TypeRunning},
		{Type: contracts.TypeFallback, From: "docker", To: "local", Hop: 1, Code: contracts.EngineUnavailable, Reason: "no daemon"},
		{Type: contracts.TypeRetry, Code: contracts.ExecutorLost, Reason: "lost"},
		{Type: contracts.TypeFinished, Status: contracts.Succeeded},
	} {
		e.ID, e.Executor, e.Time, e.Digest, e.ExecSeq = base.ID, base.Executor, base.Time, base.Digest, base.ExecSeq
		valid("event", e)
		e.Digest = "" // of a request that could not be read
		valid("event", e)
	}
	valid("presence", filled[contracts.Presence](t))
	valid("presence", contracts.Presence{Name: "a", Version: "1", Started: now, Engines: map[string]contracts.EnginePresence{}})
	d := filled[contracts.Discovery](t)
	d.Type = "discovery"
	valid("discovery", d)
	valid("event", d)
	valid("discovery", contracts.Discovery{Type: "discovery", Prefix: "tools"})
	valid("discover", contracts.Discover{Tool: "a", As: contracts.DialectOpenAI})
	valid("discover", contracts.Discover{})
	valid("declarations", contracts.Declarations{Type: "declarations", As: contracts.DialectMCP, Tools: []contracts.Declaration{}})
	valid("follow", filled[contracts.Follow](t))
	valid("follow", contracts.Follow{ID: "a"})
	valid("dead-letter", filled[contracts.DeadLetter](t))
	valid("dead-letter", contracts.DeadLetter{Engine: "local", Seq: 1, Stored: now, Executor: "e", Time: now, Delivered: 1, Error: contracts.Errorf(contracts.InvalidRequest, "no")})

	// Contracts and requests go through Go and come out as valid, in both dialects.
	for name, text := range fullContracts {
		list, err := contracts.ParseContracts("contract.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		allSet(t, name, reflect.ValueOf(list[0]).Elem())
		allSet(t, name+".engine_spec", reflect.ValueOf(list[0].Spec).Elem())
		valid("contract", list[0])
		valid("discovery", contracts.Discovery{Type: "discovery", Prefix: "tools", Tools: list})
		for _, dialect := range contracts.Dialects {
			d, err := contracts.Declare(list, dialect)
			if err != nil {
				t.Fatal(err)
			}
			valid("declarations", d)
			valid("event", d)
			d.As = "other"
			if check.Value("declarations", d) == nil {
				t.Errorf("declarations in a dialect that there is not are valid")
			}
		}
		list[0].BaseDir = "" // requests have no files
		r := contracts.Request{ID: "a1", Contract: list[0], Args: map[string]any{"a": json.Number("1")}, Context: map[string]any{"b": nil}, StdinBase64: []byte{0xff},
			Timeout: contracts.Seconds(1.5), Deadline: now, QueueTimeout: contracts.Seconds(60), Priority: contracts.PriorityLow, Fallback: []string{"docker"},
			ReplyTo: "_INBOX.a", Labels: map[string]string{"a": "b"}}
		valid("request", r)
		r.Contract, r.Tool, r.Version, r.StdinBase64, r.Stdin = nil, "a", "1.0.0", nil, "x"
		valid("request", r)
	}
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// filled is a value with all its fields set, each to something that may be there.
func filled[T any](t *testing.T) T {
	var v T
	fill(t, "", reflect.ValueOf(&v).Elem())
	return v
}

func fill(t *testing.T, name string, v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 31, 15, 4, 5, 600, time.FixedZone("", 3600))))
		return
	case contracts.Status:
		v.SetString(string(contracts.Failed))
		return
	case contracts.Code:
		v.SetString(string(contracts.ExitNonzero))
		return
	case *contracts.Contract:
		list, err := contracts.ParseContracts("c.yaml", []byte(fullContracts["local"]))
		if err != nil {
			t.Fatal(err)
		}
		v.Set(reflect.ValueOf(list[0]))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(map[string]string{"digest": digest}[name])
		if v.String() == "" {
			v.SetString("x\u2028<\"")
		}
		if name == "id" {
			v.SetString("Az09_-")
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(math.MaxUint64)
	case reflect.Float64:
		v.SetFloat(0.25)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, name, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		if v.Type() == reflect.TypeFor[[]byte]() {
			v.SetBytes([]byte{0xff, 0x00})
			return
		}
		for i := range v.Len() {
			fill(t, name, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		one := reflect.New(v.Type().Elem()).Elem()
		fill(t, name, one)
		v.SetMapIndex(reflect.ValueOf("key"), one)
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(v.Type()) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fill(t, name, v.FieldByIndex(f.Index))
		}
	default:
		switch v.Addr().Interface().(type) {
		default:
			t.Fatalf("%s: do not know how to fill %s", name, v.Type())
		}
	}
}

// allSet finds fields that a document which should set all of them left out.
func allSet(t *testing.T, at string, v reflect.Value) {
	t.Helper()
	for _, f := range reflect.VisibleFields(v.Type()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && v.FieldByIndex(f.Index).IsZero() {
			t.Errorf("%s does not set %s", at, name)
		}
	}
}

const fullContainer = `
  entrypoint: [env, A=b]
  tmpfs: {/var/cache: 16Mi}
  shm_size: 32Mi
  ulimits: {nofile: 1024, nproc: "64:128", core: -1}
  gpus: all
  platform: linux/arm/v7`

const fullCommon = `
  cwd: .
  env: {A: "1", B: 2, C: true}
  env_passthrough: [HOME]
  timeout: 1m30s
  stdin: hello
  memory_limit: 512Mi
  cpu_limit: 1500m
  pids_limit: 64
  network: none
  mounts: {./data: "/data:rw", /srv: /srv}
  cache_mounts: {pip: ~/.cache/pip, big: /var/cache/big}
  capture_output: false
`

const fullRest = `
version: 1.0.0
description: all there is
parameters:
  - {name: a, type: integer, description: a number, required: "true", default: 1, enum: [1, 2]}
  - {name: b.c, type: any, default: {d: [null]}}
  - {name: e}
args_env: raw
on_output_limit: stop
retry: {max_attempts: 3, backoff: 2s, max_backoff: 10, on: [failed, lost]}
delivery: at_least_once
concurrency: 4
concurrency_key: "{{args.a}}"
base_dir: tools
language: python
examples: [{name: one, parameters: {a: 1}}]
sample_data_files: [data.csv]
integration: {p2p: {enabled: true}}
`

// fullContracts have every key that there is.
var fullContracts = map[string]string{
	"local": "name: a\nengine: local\nengine_spec:\n  command: [sh, -c, 'echo $ARG_A']\n  shell: true\n  sandbox: namespaces" + fullCommon + fullRest +
		"fallback: [{engine: docker, engine_spec: {command: [a], image: b}}, {engine: dagger, engine_spec: {command: [a]}}]\n",
	"docker": "name: a\nengine: docker\nengine_spec:\n  command: [a, '{{args.a}}', '{{context.b}}']\n  image: busybox\n  user: nobody\n  privileged: true\n  read_only: true\n  best_effort: true" + fullContainer + fullCommon + fullRest +
		"fallback: [dagger, {engine: local, engine_spec: {command: [a]}}]\n",
	"dagger": "name: a\nengine: dagger\nengine_spec:\n  command: [a]\n  image: busybox\n  user: nobody\n  privileged: true\n  read_only: false\n  best_effort: true\n  cache: true" + fullContainer + fullCommon + fullRest +
		"fallback: [docker]\n",
	"praxis": "name: a\nengine: docker-sdk\nengineSpec:\n  command: [a]\n  image: busybox\n  user: nobody\n  privileged: true\n  read_only: true\n  best_effort: true" + fullContainer + fullCommon + fullRest +
		"fallback: [{engine: dagger, engineSpec: {command: [a]}}]\n",
}

// TestExamples: everything that people may copy is valid, and is loaded by the program.
func TestExamples(t *testing.T) {
	checked := map[string]int{}
	files, err := filepath.Glob("../configs/tools/*/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		example(t, file, "contract", text)
		checked["contract"]++
	}
	if checked["contract"] == 0 {
		t.Error("there are no contracts below configs/tools")
	}
	golden, err := filepath.Glob("../internal/contracts/testdata/contracts/valid/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range golden {
		if ext := filepath.Ext(file); ext != ".yaml" && ext != ".json" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		example(t, file, "contract", text)
		checked["golden contracts"]++
	}
	t.Setenv("NATS_CREDS", "/etc/executor/nats.creds")
	t.Setenv("PATH", "/usr/bin:/bin")
	for _, file := range []string{"executor.yaml", "development.yaml", "production.yaml"} {
		text, err := os.ReadFile("../configs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		example(t, file, "configuration", text)
		checked["configuration"]++
	}
	pages := []string{"../README.md"}
	more, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(string(text)) {
			if !slices.Contains(schemas.Names(), b.schema) {
				continue
			}
			example(t, fmt.Sprintf("%s:%d", page, b.line), b.schema, []byte(b.text))
			checked[b.schema]++
			checked["on pages"]++
		}
	}
	t.Logf("checked %v", checked)
}

// block is a fenced block of Markdown whose info string is a language and a schema, as in "```yaml contract".
type block struct {
	line         int
	schema, text string
}

var fence = regexp.MustCompile("^( *)```+ *(yaml|json) +([a-z-]+) *$")

func blocks(page string) []block {
	var found []block
	var open *block
	indent := ""
	for i, line := range strings.Split(page, "\n") {
		switch m := fence.FindStringSubmatch(line); {
		case open == nil && m != nil:
			indent = m[1]
			open = &block{line: i + 1, schema: m[3]}
		case open != nil && strings.HasPrefix(strings.TrimSpace(line), "```"):
			found = append(found, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	return found
}

func TestBlocks(t *testing.T) {
	got := blocks("a\n```yaml contract\nname: x\n```\n\n- b\n\n  ```json request\n  {\"a\":\n   1}\n  ```\n```yaml\nnot: this\n```\n")
	want := []block{{2, "contract", "name: x\n"}, {8, "request", "{\"a\":\n 1}\n"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

func example(t *testing.T, where, name string, text []byte) {
	t.Helper()
	if err := bySchema(name, text); err != nil {
		t.Errorf("%s: the schema %s refuses it: %v", where, name, err)
	}
	for _, m := range variable.FindAllStringSubmatch(string(text), -1) {
		if _, set := os.LookupEnv(m[1]); !set && name == "configuration" {
			t.Setenv(m[1], "x")
		}
	}
	if err := byGo(t, name, text); err != nil {
		t.Errorf("%s: the program refuses it: %v", where, err)
	}
}

// bySchema checks a text, YAML or JSON, by a schema: each of its documents.
func bySchema(name string, text []byte) error {
	if trimmed := bytes.TrimSpace(text); name != "contract" && name != "configuration" || bytes.HasPrefix(trimmed, []byte("{")) && json.Valid(trimmed) {
		return check.JSON(name, text)
	}
	documents, err := contracts.ParseYAML("", text)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if err := check.Value(name, plain(d, 0)); err != nil {
			return err
		}
	}
	return nil
}

// byGo has the program read a text.
func byGo(t *testing.T, name string, text []byte) error {
	strict := func(into any) error { return json.Unmarshal(text, into) }
	switch name {
	case "contract", "request", "follow", "discover":
		return read(name, text)
	case "configuration":
		file := filepath.Join(t.TempDir(), "executor.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := configs.Load(file, configs.Default())
		return err
	case "result":
		return strict(&contracts.Result{})
	case "event":
		return strict(&contracts.Event{})
	case "presence":
		return strict(&contracts.Presence{})
	case "discovery":
		return strict(&contracts.Discovery{})
	case "declarations":
		return strict(&contracts.Declarations{})
	case "dead-letter":
		return strict(&contracts.DeadLetter{})
	}
	return nil
}

// plain is a YAML tree as a YAML reader gives it to a JSON Schema validator.
func plain(n *yaml.Node, depth int) any {
	if depth > 100 {
		return nil // an alias to what it is in
	}
	switch n.Kind {
	case yaml.AliasNode:
		return plain(n.Alias, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, one := range n.Content {
			list[i] = plain(one, depth+1)
		}
		return list
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			for key.Kind == yaml.AliasNode {
				key = key.Alias
			}
			if key.Tag != "!!merge" {
				m[key.Value] = plain(n.Content[i+1], depth+1)
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Tag != "!!merge" {
				continue
			}
			from := plain(n.Content[i+1], depth+1)
			list, ok := from.([]any)
			if !ok {
				list = []any{from}
			}
			for _, one := range list {
				merged, _ := one.(map[string]any)
				for key, value := range merged {
					if _, has := m[key]; !has {
						m[key] = value
					}
				}
			}
		}
		return m
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 0, 64); err == nil && strings.HasPrefix(strings.TrimLeft(n.Value, "+-"), "0") {
			return i
		}
		if digits := strings.TrimPrefix(strings.ReplaceAll(n.Value, "_", ""), "+"); json.Valid([]byte(digits)) {
			return json.Number(digits)
		}
	case "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	return n.Value
}
