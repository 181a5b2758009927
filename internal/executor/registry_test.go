package executor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func contract(name, version string) string {
	return "{name: " + name + ", version: '" + version + "', engine: local, engine_spec: {command: [x]}}"
}

func TestRegistryLoadsContractsAndNothingElse(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"top.yaml":                 contract("top", "1.0.0"),
		"list.yml":                 "tools: [" + contract("a", "1") + ", " + contract("b", "1") + "]",
		"one.json":                 `{"name": "json", "engine": "local", "engine_spec": {"command": ["x"]}}`,
		"folder/contract.yaml":     contract("folder", "1"),
		"folder/data.json":         `{"not": "a contract"}`,
		"folder/compose.yaml":      "services: {}",
		"folder/my.contract.yml":   contract("suffix", "1"),
		".hidden/contract.yaml":    contract("hidden", "1"),
		"folder/deep/contract.yml": contract("deep", "1"),
		"README.md":                "# not yaml",
	})
	r := NewRegistry()
	if err := r.Load([]string{dir}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range r.List() {
		names = append(names, c.Name)
		if want := filepath.Dir(c.File); c.BaseDir != want {
			t.Errorf("%s: base directory %s, want %s", c.Name, c.BaseDir, want)
		}
	}
	if want := []string{"a", "b", "deep", "folder", "json", "suffix", "top"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestRegistryNamesWhatIsWrongAndKeepsTheRest(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"a.yaml":     contract("good", "1.0.0"),
		"b.yaml":     "name: bad\nengine: local\n",
		"twice.yaml": contract("good", "1.0.0"),
	})
	r := NewRegistry()
	err := r.Load([]string{dir, filepath.Join(dir, "missing")})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"b.yaml:1:1: engine_spec: is missing", `the tool "good" is already defined in ` + filepath.Join(dir, "a.yaml") + ":1", "missing: no such file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if r.Len() != 1 {
		t.Errorf("%d contracts", r.Len())
	}
}

func TestRegistryVersions(t *testing.T) {
	r := NewRegistry()
	files := map[string]string{}
	for i, v := range []string{"1.9.2", "1.10.0", "1.10.0-rc2", "1.10.0-rc10", "0.9"} {
		files[string(rune('a'+i))+".yaml"] = contract("tool", v)
	}
	if err := r.Load([]string{writeTree(t, files)}); err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, c := range r.List() {
		versions = append(versions, c.Version)
	}
	if want := []string{"1.10.0", "1.10.0-rc10", "1.10.0-rc2", "1.9.2", "0.9"}; !slices.Equal(versions, want) {
		t.Errorf("%v, want %v", versions, want)
	}
	for version, want := range map[string]string{"": "1.10.0", "0.9": "0.9"} {
		if c, err := r.Find("tool", version); err != nil || c.Version != want {
			t.Errorf("version %q: %v, %v", version, c, err)
		}
	}
	for _, test := range []struct{ name, version, want string }{
		{"tool", "2", `has no version "2"; it has 1.10.0, 1.10.0-rc10`},
		{"tol", "", `did you mean "tool"?`},
		{"completely-else", "", "known are tool"},
	} {
		_, err := r.Find(test.name, test.version)
		if e := contracts.AsError(err); e.Code != contracts.UnknownTool || !strings.Contains(e.Message, test.want) {
			t.Errorf("%s %s: %v", test.name, test.version, err)
		}
	}
}

// Of a file that is not taken one mistake is told: an unknown key before one that is missing, and how many more there are.
func TestRefusedTellsTheMistakeThatMatters(t *testing.T) {
	for _, test := range []struct{ text, want, more string }{
		{"naem: a\nengine: local\nengine_spec: {command: [x]}\n", `:1:1: naem: unknown key; did you mean "name"?`, " (and 1 more; executor validate FILE)"},
		{"engine: local\nengine_spec: {command: [x]}\n", "name: is missing; ", ""},
		{"name: a\nengine: local\nengine_spec: {command: [x]}\nfallbak: []\n", `fallbak: unknown key; did you mean "fallback"?`, ""},
		{"name: a.b\nengine: local\nengine_spec: {command: [x]}\nfallbak: []\n", "name: ", " (and 1 more; executor validate FILE)"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "a.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := NewRegistry()
		if err := r.Load([]string{dir}); err == nil {
			t.Errorf("%q is taken", test.text)
		}
		refused := r.Refused()
		if len(refused) != 1 {
			t.Errorf("%q: %+v", test.text, refused)
			continue
		}
		more := strings.ReplaceAll(test.more, "FILE", file)
		if got := refused[0].Reason; !strings.Contains(got, test.want) || !strings.HasSuffix(got, more) || more == "" && strings.Contains(got, "more") {
			t.Errorf("%q: %q", test.text, got)
		}
	}
}
