package contracts

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// contract reads one contract of a text.
func contract(t *testing.T, text string) *Contract {
	t.Helper()
	list, err := ParseContracts("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 {
		t.Fatalf("%d contracts", len(list))
	}
	return list[0]
}

// Which spec a contract runs with on an engine: its own, that of its fallback, or that of the other container engine.
func TestSpecFor(t *testing.T) {
	const local, docker, dagger = "engine_spec: {command: [own]}\n", "engine_spec: {image: i, command: [own]}\n", "engine_spec: {command: [own]}\n"
	for _, test := range []struct {
		contract string
		want     map[string]string // engine to program; absent: no spec
	}{
		{"engine: local\n" + local, map[string]string{"local": "own"}},
		{"engine: docker\n" + docker, map[string]string{"docker": "own", "dagger": "own"}},
		{"engine: dagger\n" + docker, map[string]string{"docker": "own", "dagger": "own"}},
		{"engine: dagger\n" + dagger, map[string]string{"dagger": "own"}}, // docker needs an image
		{"engine: docker\nfallback: [dagger]\n" + docker, map[string]string{"docker": "own", "dagger": "own"}},
		{
			"engine: docker\nfallback: [{engine: local, engine_spec: {command: [other]}}, {engine: dagger, engine_spec: {command: [third]}}]\n" + docker,
			map[string]string{"docker": "own", "local": "other", "dagger": "third"},
		},
		{"engine: local\nfallback: [{engine: dagger, engine_spec: {command: [other]}}]\n" + local, map[string]string{"local": "own", "dagger": "other"}},
	} {
		c := contract(t, "name: t\n"+test.contract)
		for _, engine := range append(Engines, "podman", "") {
			spec := c.SpecFor(engine)
			want, has := test.want[engine]
			if (spec != nil) != has {
				t.Errorf("%s on %q: %+v", test.contract, engine, spec)
			} else if has && (spec.Engine() != engine || spec.Common().Command.Argv[0] != want) {
				t.Errorf("%s on %q: %s of %s, want %s", test.contract, engine, spec.Common().Command.Argv[0], spec.Engine(), want)
			}
		}
	}
}

// Only the dialect tells what a mount without a mode is: Praxis wrote it back where it says engineSpec.
func TestMountModesOfDialects(t *testing.T) {
	const mounts = ": {image: i, command: [a], mounts: {a: /a, b: /b:ro, c: /c:rw}}\n"
	want := Mounts{{"a", "/a", ""}, {"b", "/b", "ro"}, {"c", "/c", "rw"}}
	for key, praxis := range map[string]bool{"engine_spec": false, "engineSpec": true} {
		c := contract(t, "name: t\nengine: docker\n"+key+mounts)
		if c.Praxis != praxis || !reflect.DeepEqual(c.Spec.Common().Mounts, want) {
			t.Errorf("%s: %v, %v", key, c.Praxis, c.Spec.Common().Mounts)
		}
	}
}

// A file gives its contracts a directory that relative paths begin at; base_dir begins there too.
func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tools.yaml")
	write(t, file, `tools:
  - {name: a, engine: local, engine_spec: {command: [a]}}
  - {name: b, engine: local, engine_spec: {command: [a]}, base_dir: sub/../src}
  - {name: c, engine: local, engine_spec: {command: [a]}, base_dir: /srv}
`)
	list, err := LoadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Contract{{Name: "a", BaseDir: dir, Line: 2}, {Name: "b", BaseDir: filepath.Join(dir, "src"), Line: 3}, {Name: "c", BaseDir: "/srv", Line: 4}} {
		if c := list[i]; c.Name != want.Name || c.BaseDir != want.BaseDir || c.File != file || c.Line != want.Line {
			t.Errorf("%s: base_dir %s, %s:%d", c.Name, c.BaseDir, c.File, c.Line)
		}
	}
	t.Chdir(dir)
	if list, err = LoadFile("tools.yaml"); err != nil || list[0].BaseDir != dir {
		t.Errorf("by a relative path: %+v, %v", list, err)
	}
	write(t, file, "name: a\nengine: local\n")
	if _, err = LoadFile(file); err == nil || err.Error() != file+":1:1: engine_spec: is missing; it says what to run" {
		t.Errorf("%v", err)
	}
	if _, err = LoadFile(filepath.Join(dir, "absent.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A file may hold no tools where it says so. Nothing at all is a mistake.
func TestParseContractsOfNone(t *testing.T) {
	if list, err := ParseContracts("f", []byte("tools: []")); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := ParseContracts("f", []byte("# nothing")); err == nil {
		t.Error("an empty file is accepted")
	}
}

// Lists that are searched are bounded: without that, one request of 700 KB took 18 seconds of a processor before any
// policy had looked at it.
func TestListsAreBounded(t *testing.T) {
	for _, test := range []struct{ before, element, after, path string }{
		{`engine_spec: {image: i, command: [`, `"#"`, `]}`, "engine_spec.command"},
		{`engine_spec: {image: i, command: [a], mounts: [`, `"a:/#"`, `]}`, "engine_spec.mounts"},
		{`engine_spec: {image: i, command: [a], mounts: {`, `"a#": /b#`, `}}`, "engine_spec.mounts"},
		{`engine_spec: {image: i, command: [a], cache_mounts: [`, `"a:/#"`, `]}`, "engine_spec.cache_mounts"},
		{`engine_spec: {image: i, command: [a], env_passthrough: [`, `a#`, `]}`, "engine_spec.env_passthrough"},
		{`engine_spec: {image: i, command: [a]}, parameters: [`, `{name: a#}`, `]`, "parameters"},
		{`engine_spec: {image: i, command: [a]}, parameters: {properties: {`, `a#: {}`, `}}`, "parameters.properties"},
		{`engine_spec: {image: i, command: [a]}, examples: [`, `a#`, `]`, ""}, // not searched
	} {
		list := func(n int) string {
			elements := make([]string, n)
			for i := range elements {
				elements[i] = strings.ReplaceAll(test.element, "#", strconv.Itoa(i))
			}
			return "{name: t, engine: docker, " + test.before + strings.Join(elements, ", ") + test.after + "}"
		}
		if _, err := ParseContracts("", []byte(list(maxList))); err != nil {
			t.Errorf("%d: %.200s", maxList, err)
		}
		_, err := ParseContracts("", []byte(list(maxList+1)))
		if want := test.path + ": has 1001 elements; 1000 at most"; test.path != "" && (err == nil || !strings.HasSuffix(err.Error(), " "+want)) || test.path == "" && err != nil {
			t.Errorf("got %.200v\nwant %s", err, want)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What another program of ours wrote is read past keys that a newer version may have added, but not past anything else.
func TestContractUnmarshalJSONIsLenient(t *testing.T) {
	var c Contract
	text := `{"name":"t","engine":"local","engine_spec":{"command":["a"],"new":{"x":[1]}},"parameters":[{"name":"p","newer":1}],"newest":null}`
	if err := json.Unmarshal([]byte(text), &c); err != nil || c.Spec.Common().Command.Argv[0] != "a" || c.Parameters.List[0].Name != "p" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := ParseContracts("", []byte(text)); err == nil || strings.Count(err.Error(), "unknown key") != 3 {
		t.Errorf("ParseContracts: %v", err)
	}
	for _, text := range []string{`{"name":"t"}`, `{"name":"t","engine":"local","engine_spec":{"command":"a"}}`, `{"name":"t","engine":"new","engine_spec":{}}`, `[]`, `"t"`} {
		if err := json.Unmarshal([]byte(text), &Contract{}); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

// The JSON of a contract does not grow by HTML escaping: shell text is full of < and &.
func TestContractJSONIsNotHTML(t *testing.T) {
	c := contract(t, `{name: t, engine: docker, engineSpec: {image: i, command: [sh, -c, "a <b >c && d"], mounts: {"a<": "/a>"}, cache_mounts: {c: "/<"}}, fallback: [{engine: local, engine_spec: {command: ["<"]}}]}`)
	text, err := marshalJSON(c)
	want := `{"name":"t","engine":"docker","fallback":[{"engine":"local","engine_spec":{"command":["<"]}}],` +
		`"engineSpec":{"command":["sh","-c","a <b >c && d"],"mounts":["a<:/a>"],"cache_mounts":["c:/<"],"image":"i"}}`
	if err != nil || string(text) != want {
		t.Errorf("%v\n got %s\nwant %s", err, text, want)
	}
}

func TestCommandText(t *testing.T) {
	for want, c := range map[string]Command{"echo a b": {Argv: []string{"echo", "a b"}}, "echo 'a b'": {Shell: "echo 'a b'"}, "": {}} {
		if got := c.Text(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCaptures(t *testing.T) {
	for text, want := range map[string]bool{"": true, ", capture_output: true": true, ", capture_output: false": false} {
		if got := contract(t, "{name: t, engine: local, engine_spec: {command: [a]"+text+"}}").Spec.Common().Captures(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
