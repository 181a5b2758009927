package contracts

import (
	"bytes"
	"encoding/json"
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

	// Retry says after which ends the tool is started again; nil: only where executors died under it.
	Retry *Retry `json:"retry,omitempty"`
	// Delivery is AtLeastOnce (the default, ""), or AtMostOnce: never a second start, and where it is not known whether the
	// tool ran the status is unknown.
	Delivery string `json:"delivery,omitempty"`
	// Concurrency is how many runs of this tool there may be at a time in the whole fleet; 0: no bound. Where there is a
	// ConcurrencyKey, whose placeholders are filled from args and context, it counts for each value by itself.
	Concurrency    int    `json:"concurrency,omitempty"`
	ConcurrencyKey string `json:"concurrency_key,omitempty"`

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
			return &DaggerSpec{ContainerSpec: s.ContainerSpec}
		}
	case *DaggerSpec:
		if engine == EngineDocker && s.Image != "" {
			return &DockerSpec{ContainerSpec: s.ContainerSpec}
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
	return ParseFile(file, text)
}

// ParseFile is LoadFile for a file that was read already.
func ParseFile(file string, text []byte) ([]*Contract, error) {
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

// ParseContracts reads a text that holds one contract, several documents, or a list under the key "tools", which may be
// empty. The file is named in messages only. An error is of type Problems and has all that is wrong.
func ParseContracts(file string, text []byte) ([]*Contract, error) {
	documents, err := parseDocuments(file, text)
	if err != nil {
		return nil, err
	}
	d := decoder{file: file}
	var roots []*yaml.Node
	var list []*Contract
	add := func(n *yaml.Node, path string) {
		c := &Contract{File: file, Line: n.Line}
		d.since = len(d.problems)
		c.decodeAt(&d, n, path)
		i := slices.IndexFunc(list, func(o *Contract) bool { return o.Name == c.Name && o.Version == c.Version })
		if c.Name != "" && i >= 0 {
			where, p := locate(n, path, "name")
			d.problem(where, p, "the tool %s is already defined in line %d; give it another name or version", quote(c.Name), roots[i].Line)
		}
		roots, list = append(roots, n), append(list, c)
	}
	for _, root := range documents {
		tools := child(root, "tools")
		switch {
		case tools == nil:
			add(root, "")
		case len(root.Content) > 2:
			d.problem(root, "tools", "is not the only key; a document is either one contract, or a list of contracts under tools")
		case tools.Kind != yaml.SequenceNode:
			d.problem(tools, "tools", "is %s; it must be a list of contracts", describe(tools))
		default:
			for i, n := range tools.Content {
				add(n, element("tools", i))
			}
		}
	}
	if problems := d.found(); len(problems) > 0 {
		return nil, problems
	}
	if len(documents) == 0 {
		return nil, Problems{{File: file, Message: "holds no contract; it needs at least name, engine and engine_spec"}}
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

// UnmarshalJSON reads a contract that a program of ours wrote: unlike ParseContracts it passes over keys that a newer
// version may have added.
func (c *Contract) UnmarshalJSON(text []byte) error {
	n, err := ParseJSON("", text)
	if err != nil {
		return err
	}
	d := decoder{lenient: true}
	c.decodeAt(&d, n, "")
	if problems := d.found(); len(problems) > 0 {
		return problems
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
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "is %s; a contract is a mapping with name, engine and engine_spec", describe(n))
		return
	}
	c.Engine, c.Spec = d.engine(n, path)
	type plain Contract // without decodeNode
	d.into(n, (*plain)(c), path)
	c.Engine = engineName(c.Engine)
	c.Praxis = child(n, "engineSpec") != nil
	spec, specPath := locate(n, path, "engine_spec")
	if spec == n {
		c.Spec = nil // there is none
	}

	d.require(n, path, "name", "give the tool a name")
	d.require(n, path, "engine", "write "+strings.Join(Engines, ", or "))
	d.require(n, path, "engine_spec", "it says what to run")
	bad := d.checker(n, path)
	if !toolName.MatchString(c.Name) {
		bad("name", "%s is not a tool name: letters, digits, '_' and '-', 64 at most", quote(c.Name))
	}
	if child(n, "version") != nil && !toolVersion.MatchString(c.Version) {
		bad("version", "%s is not a version: letters, digits, '.', '_' and '-', 64 at most, as 1.0.0", quote(c.Version))
	}
	d.oneOf(n, path, "args_env", string(c.ArgsEnv), string(ArgsPrefixed), string(ArgsRaw))
	d.oneOf(n, path, "on_output_limit", c.OnOutputLimit, OutputDrop, OutputStop)
	if strings.Contains(c.BaseDir, "\x00") {
		bad("base_dir", "holds a NUL character, which no path can")
	}
	if c.Spec != nil {
		d.checkSpec(spec, specPath, c.Spec, c.Parameters)
	}
	c.checkFallback(d, n, path)
	c.checkDelivery(d, n, path)
}

// engineName is the name of an engine in our own spelling.
func engineName(name string) string {
	if other, ok := engineAliases[name]; ok {
		return other
	}
	return name
}

// engine reads the key engine of a contract or fallback ahead of the rest.
func (d *decoder) engine(n *yaml.Node, path string) (string, Spec) {
	e := child(n, "engine")
	if e == nil || e.Kind != yaml.ScalarNode || e.Tag != "!!str" {
		return "", nil // the decoder says what is wrong with it
	}
	name := engineName(e.Value)
	d.knownEngine(e, join(path, "engine"), name)
	return name, newSpec(name)
}

func (d *decoder) knownEngine(n *yaml.Node, path, name string) {
	if newSpec(name) == nil {
		d.problem(n, path, "unknown engine %s; %s", quote(name), didYouMean(name, Engines))
	}
}

func (f *Fallback) decodeNode(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode {
		if d.into(n, &f.Engine, path); !d.flawed(path) {
			f.Engine = engineName(f.Engine)
			d.knownEngine(n, path, f.Engine)
		}
		return
	}
	if n.Kind == yaml.SequenceNode {
		d.problem(n, path, "is a list; write the name of an engine, or {engine: …, engine_spec: …}")
		return
	}
	f.Engine, f.Spec = d.engine(n, path)
	type plain Fallback
	d.into(n, (*plain)(f), path)
	f.Engine = engineName(f.Engine)
	d.require(n, path, "engine", "write "+strings.Join(Engines, ", or "))
	if child(n, "engine_spec") == nil && child(n, "engineSpec") == nil {
		f.Spec = nil
	}
}

// MarshalJSON writes the name alone where there is no spec.
func (f Fallback) MarshalJSON() ([]byte, error) {
	if f.Spec == nil {
		return marshalJSON(f.Engine)
	}
	type plain Fallback
	return marshalJSON(plain(f))
}

// spelling is the other spelling of a key.
var spelling = map[string]string{"engine_spec": "engineSpec", "parameters": "params", "cwd": "working_dir"}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.MappingNode && key != "" {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i+1]
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
