package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Contract is the declarative description of a tool: what to run, on which engine, with which arguments and limits.
// Contracts are shared between runs and must not be changed after they were parsed.
type Contract struct {
	Name        string     `json:"name"`
	Version     string     `json:"version,omitempty"`
	Description string     `json:"description,omitempty"`
	Engine      string     `json:"engine"`
	Spec        Spec       `json:"engine_spec" alias:"engineSpec"`
	Parameters  Parameters `json:"parameters,omitzero" alias:"params"`
	ArgsEnv     ArgsEnv    `json:"args_env,omitempty"`
	Fallback    []Fallback `json:"fallback,omitempty"`

	// OnOutputLimit says what happens at max_output_bytes: "drop" (the default) reads on and publishes no more, "stop"
	// ends the run with the code output_limit.
	OnOutputLimit string `json:"on_output_limit,omitempty"`

	// BaseDir is what relative paths are relative to. A contract that was read from a file has the file's directory.
	BaseDir string `json:"base_dir,omitempty"`

	// What Praxis contracts carry for people and catalogues. It is kept and shown, and changes nothing about a run.
	Language        string         `json:"language,omitempty"`
	Examples        []any          `json:"examples,omitempty"`
	SampleDataFiles []any          `json:"sample_data_files,omitempty"`
	Integration     map[string]any `json:"integration,omitempty"`

	// Praxis is true where the document says engineSpec: there mounts without a mode were written back to the host.
	Praxis bool `json:"-"`

	// File and Line say where the contract was read; "" and 0 for one that came over the bus.
	File string `json:"-"`
	Line int    `json:"-"`
}

// ArgsEnv says under which names a tool finds its arguments in the environment.
type ArgsEnv string

// The values of args_env.
const (
	ArgsPrefixed ArgsEnv = "prefixed" // ARG_<NAME> only; the default
	ArgsRaw      ArgsEnv = "raw"      // also <name>, as container contracts of Praxis expect
)

// The values of on_output_limit.
const (
	OutputDrop = "drop"
	OutputStop = "stop"
)

// Fallback is another engine on which a contract may run, with a spec of its own where the contract's does not fit.
type Fallback struct {
	Engine string `json:"engine"`
	Spec   Spec   `json:"engine_spec,omitempty" alias:"engineSpec"`
}

var (
	toolName    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)
	toolVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// SpecFor returns the spec with which the contract runs on an engine, or nil where it has none. docker and dagger
// share theirs, because both start a container from an image.
func (c *Contract) SpecFor(engine string) Spec {
	if c.Engine == engine {
		return c.Spec
	}
	for _, f := range c.Fallback {
		if f.Engine == engine && f.Spec != nil {
			return f.Spec
		}
	}
	switch s := c.Spec.(type) {
	case *DockerSpec:
		if engine == EngineDagger {
			return &DaggerSpec{s.ContainerSpec}
		}
	case *DaggerSpec:
		if engine == EngineDocker && s.Image != "" {
			return &DockerSpec{s.ContainerSpec}
		}
	}
	return nil
}

// LoadFile reads the contracts of a YAML or JSON file. An error is of type Problems, or says why the file cannot be read.
func LoadFile(file string) ([]*Contract, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := ParseContracts(file, text)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if !filepath.IsAbs(c.BaseDir) {
			c.BaseDir = filepath.Join(dir, c.BaseDir)
		}
	}
	return list, nil
}

// ParseContracts reads a text that holds one contract, several documents, or a list under the key "tools". The file is
// named in messages only. An error is of type Problems and has all that is wrong.
func ParseContracts(file string, text []byte) ([]*Contract, error) {
	documents, err := parseDocuments(file, text)
	if err != nil {
		return nil, err
	}
	d := decoder{file: file}
	var list []*Contract
	for _, root := range documents {
		if tools := child(root, "tools"); tools != nil && len(root.Content) == 2 {
			if tools.Kind != yaml.SequenceNode {
				d.problem(tools, "tools", "is %s; it must be a list of contracts", describe(tools))
				continue
			}
			for i, n := range tools.Content {
				list = append(list, d.contract(n, fmt.Sprintf("tools[%d]", i)))
			}
			continue
		}
		list = append(list, d.contract(root, ""))
	}
	if len(documents) == 0 {
		return nil, Problems{{File: file, Message: "holds no contract; it needs at least name, engine and engine_spec"}}
	}
	for i, c := range list {
		if j := slices.IndexFunc(list[:i], func(o *Contract) bool { return o.Name == c.Name && o.Version == c.Version && c.Name != "" }); j >= 0 {
			d.problems = append(d.problems, Problem{File: file, Line: c.Line, Column: 1,
				Message: fmt.Sprintf("the tool %q is already defined in line %d; give it another name or version", c.Name, list[j].Line)})
		}
	}
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return list, nil
}

// parseDocuments takes a text for JSON if it begins like JSON and is; else for YAML, of which most JSON is a part.
func parseDocuments(file string, text []byte) ([]*yaml.Node, error) {
	if strings.EqualFold(filepath.Ext(file), ".json") || bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) && json.Valid(text) {
		root, err := ParseJSON(file, text)
		return []*yaml.Node{root}, err
	}
	return ParseYAML(file, text)
}

func (d *decoder) contract(n *yaml.Node, path string) *Contract {
	c := &Contract{}
	c.decodeAt(d, n, path)
	c.File, c.Line = d.file, n.Line
	return c
}

// UnmarshalJSON reads a contract that a program of ours wrote: unlike ParseContracts it passes over keys that a newer
// version may have added.
func (c *Contract) UnmarshalJSON(text []byte) error {
	n, err := ParseJSON("", text)
	if err != nil {
		return err
	}
	d := decoder{lenient: true}
	c.decodeAt(&d, n, "")
	if len(d.problems) > 0 {
		return d.problems
	}
	return nil
}

// MarshalJSON writes the contract so that reading it gives the same, dialect included.
func (c *Contract) MarshalJSON() ([]byte, error) {
	type plain Contract
	if !c.Praxis {
		return marshalJSON((*plain)(c))
	}
	return marshalJSON(struct {
		*plain
		Spec  Spec `json:"engine_spec,omitempty"` // hides the field of plain
		Spec2 Spec `json:"engineSpec"`
	}{plain: (*plain)(c), Spec2: c.Spec})
}

// marshalJSON is json.Marshal without HTML escaping, which would make six bytes of every "<".
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

func (c *Contract) decodeNode(d *decoder, n *yaml.Node, path string) { c.decodeAt(d, n, path) }

// decodeAt decodes and checks a contract. The engine is read first, because it gives engine_spec its type.
func (c *Contract) decodeAt(d *decoder, n *yaml.Node, path string) {
	before := len(d.problems)
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "is %s; a contract is a mapping with name, engine and engine_spec", describe(n))
		return
	}
	c.Engine, c.Spec = d.engine(n, path)
	type plain Contract // without decodeNode
	d.into(n, (*plain)(c), path)
	if name, ok := engineAliases[c.Engine]; ok {
		c.Engine = name
	}
	c.Praxis = child(n, "engineSpec") != nil

	require := func(key string, missing bool, what string) {
		if missing && child(n, key) == nil && child(n, spelling[key]) == nil {
			d.problem(n, join(path, key), "is missing; %s", what)
		}
	}
	require("name", c.Name == "", "give the tool a name")
	require("engine", c.Engine == "", "write "+strings.Join(Engines, ", or "))
	require("engine_spec", true, "it says what to run")
	at := func(keys ...string) (*yaml.Node, string) { return locate(n, path, keys...) }

	if c.Name != "" && !toolName.MatchString(c.Name) {
		where, p := at("name")
		d.problem(where, p, "%s is not a tool name: letters, digits, '_' and '-', 64 at most", quote(c.Name))
	}
	if c.Version != "" && !toolVersion.MatchString(c.Version) {
		where, p := at("version")
		d.problem(where, p, "%s is not a version: letters, digits, '.', '_' and '-', 64 at most, as 1.0.0", quote(c.Version))
	}
	d.oneOf(n, path, "args_env", string(c.ArgsEnv), string(ArgsPrefixed), string(ArgsRaw))
	d.oneOf(n, path, "on_output_limit", c.OnOutputLimit, OutputDrop, OutputStop)
	if strings.Contains(c.BaseDir, "\x00") {
		where, p := at("base_dir")
		d.problem(where, p, "holds a NUL character")
	}
	if c.Spec != nil && len(d.problems) == before {
		where, p := at("engine_spec")
		d.checkSpec(where, p, c.Spec, c.Parameters)
	}
	for i, f := range c.Fallback {
		list, p := at("fallback")
		p = fmt.Sprintf("%s[%d]", p, i)
		if f.Spec != nil && len(d.problems) == before {
			where, p := locate(list.Content[i], p, "engine_spec")
			d.checkSpec(where, p, f.Spec, c.Parameters)
		}
		if f.Engine == c.Engine || slices.ContainsFunc(c.Fallback[:i], func(o Fallback) bool { return o.Engine == f.Engine }) {
			d.problem(list.Content[i], p, "%q is there already; an engine is tried once", f.Engine)
		}
		if f.Spec == nil && c.Spec != nil && newSpec(f.Engine) != nil && c.SpecFor(f.Engine) == nil {
			d.problem(list.Content[i], p, "the engine_spec of %s does not fit %s; write {engine: %s, engine_spec: …}", c.Engine, f.Engine, f.Engine)
		}
	}
}

// engine reads the key engine of a contract or fallback ahead of the rest.
func (d *decoder) engine(n *yaml.Node, path string) (string, Spec) {
	e := child(n, "engine")
	if e == nil || e.Kind != yaml.ScalarNode || e.Tag != "!!str" {
		return "", nil // the decoder says what is wrong with it
	}
	name := e.Value
	if other, ok := engineAliases[name]; ok {
		name = other
	}
	spec := newSpec(name)
	if spec == nil {
		d.problem(e, join(path, "engine"), "unknown engine %s; %s", quote(name), didYouMean(name, Engines))
	}
	return name, spec
}

func (d *decoder) oneOf(n *yaml.Node, path, key, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		where, p := locate(n, path, key)
		d.problem(where, p, "unknown value %s; %s", quote(value), didYouMean(value, allowed))
	}
}

func (f *Fallback) decodeNode(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode {
		d.into(n, &f.Engine, path)
		if name, ok := engineAliases[f.Engine]; ok {
			f.Engine = name
		}
		if f.Engine != "" && newSpec(f.Engine) == nil {
			d.problem(n, path, "unknown engine %s; %s", quote(f.Engine), didYouMean(f.Engine, Engines))
		}
		return
	}
	f.Engine, f.Spec = d.engine(n, path)
	type plain Fallback
	d.into(n, (*plain)(f), path)
	if name, ok := engineAliases[f.Engine]; ok {
		f.Engine = name
	}
	if child(n, "engine_spec") == nil && child(n, "engineSpec") == nil {
		f.Spec = nil
	}
}

// MarshalJSON writes the name alone where there is no spec.
func (f Fallback) MarshalJSON() ([]byte, error) {
	if f.Spec == nil {
		return json.Marshal(f.Engine)
	}
	type plain Fallback
	return marshalJSON(plain(f))
}

// checkSpec finds what is wrong about a spec beyond its types.
func (d *decoder) checkSpec(n *yaml.Node, path string, spec Spec, params Parameters) {
	common := spec.Common()
	bad := func(key, format string, a ...any) {
		where, p := locate(n, path, key)
		d.problem(where, p, format, a...)
	}
	if child(n, "command") == nil {
		bad("command", `is missing; write the program and its arguments, as ["python3", "main.py"]`)
	}
	shell := false
	switch s := spec.(type) {
	case *LocalSpec:
		shell = s.Shell
	case *DockerSpec:
		if s.Image == "" {
			bad("image", "is missing; name the image to start")
		}
	}
	switch {
	case common.Command.Shell != "" && !shell && spec.Engine() == EngineLocal:
		bad("command", `is one string; write a list, as ["ls", "-l"], or add shell: true`)
	case common.Command.Shell != "" && !shell:
		bad("command", `is one string; write a list, as ["sh", "-c", "…"] for shell text`)
	case shell && placeholder.MatchString(common.Command.Text()):
		bad("command", "holds %s: arguments are never put into shell text; use $ARG_<NAME> in it", placeholder.FindString(common.Command.Text()))
	case params.Declared:
		for _, m := range placeholder.FindAllStringSubmatch(strings.Join(common.Command.Argv, "\n"), -1) {
			if m[1] == "args" && params.Find(m[2]) == nil {
				bad("command", "holds %s, but the contract has no such parameter; %s", m[0], didYouMean(m[2], params.Names()))
			}
		}
	}
	if child(n, "timeout") != nil && common.Timeout <= 0 {
		bad("timeout", "must be above 0")
	}
	if child(n, "memory_limit") != nil && common.MemoryLimit <= 0 {
		bad("memory_limit", "must be above 0")
	}
	if child(n, "pids_limit") != nil && common.PidsLimit <= 0 {
		bad("pids_limit", "must be above 0")
	}
	for _, name := range common.EnvPassthrough {
		if !variableName.MatchString(name) {
			bad("env_passthrough", "%s is not a name of an environment variable", quote(name))
		}
	}
	if strings.ContainsAny(common.Network, " /\x00") {
		bad("network", "%s is not a network; write none, bridge, host or the name of one", quote(common.Network))
	}
	if strings.Contains(common.Cwd, "\x00") {
		bad("cwd", "holds a NUL character")
	}
}

// spelling is the other spelling of a key.
var spelling = map[string]string{"engine_spec": "engineSpec", "parameters": "params", "cwd": "working_dir"}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode || key == "" {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			v := n.Content[i+1]
			for v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			return v
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			if v := child(n.Content[i+1], key); v != nil {
				return v
			}
		}
	}
	return nil
}

// locate follows keys down a tree, in either spelling, as far as it goes; it returns where that is and its path.
func locate(n *yaml.Node, path string, keys ...string) (*yaml.Node, string) {
	for _, key := range keys {
		next := child(n, key)
		if next == nil && spelling[key] != "" {
			if next = child(n, spelling[key]); next != nil {
				key = spelling[key]
			}
		}
		path = join(path, key)
		if next == nil {
			return n, path
		}
		n = next
	}
	return n, path
}

// Locate follows keys down a tree as far as it goes; it returns where that is, and the path for messages.
func Locate(root *yaml.Node, keys ...string) (*yaml.Node, string) { return locate(root, "", keys...) }
