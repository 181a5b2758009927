package contracts

import (
	posix "path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Names of the engines.
const (
	EngineLocal  = "local"
	EngineDocker = "docker"
	EngineDagger = "dagger"
)

// Engines are the names that a contract may give as its engine.
var Engines = []string{EngineLocal, EngineDocker, EngineDagger}

// engineAliases are other spellings of engine names found in Praxis contracts.
var engineAliases = map[string]string{"docker-sdk": EngineDocker, "docker_sdk": EngineDocker}

// DefaultTimeout is the timeout of a contract that names none.
const DefaultTimeout = Duration(300 * time.Second)

// Spec is what one engine needs to run a tool: a *LocalSpec, *DockerSpec or *DaggerSpec.
type Spec interface {
	// Engine is the name of the engine that the spec is for.
	Engine() string
	// Common returns the part that all engines share; it is never nil and may be read only.
	Common() *CommonSpec
}

// CommonSpec is the part of an engine_spec that all engines share. Which of it an engine can do is said by the engine's
// Check; what it cannot do is refused, never ignored.
type CommonSpec struct {
	Command        Command     `json:"command"`
	Cwd            string      `json:"cwd,omitempty" alias:"working_dir"`
	Env            Variables   `json:"env,omitempty"`
	EnvPassthrough []string    `json:"env_passthrough,omitempty"`
	Timeout        Duration    `json:"timeout,omitempty"` // 0: DefaultTimeout
	Stdin          string      `json:"stdin,omitempty"`   // what the tool reads where the request gives nothing
	MemoryLimit    Size        `json:"memory_limit,omitempty"`
	CPULimit       CPU         `json:"cpu_limit,omitempty"`
	PidsLimit      int64       `json:"pids_limit,omitempty"`
	Network        string      `json:"network,omitempty"` // "": none, where the engine can isolate
	Mounts         Mounts      `json:"mounts,omitempty"`
	CacheMounts    CacheMounts `json:"cache_mounts,omitempty"`
	CaptureOutput  *bool       `json:"capture_output,omitempty"` // nil: true
}

// Common returns the spec itself.
func (s *CommonSpec) Common() *CommonSpec { return s }

// Captures reports whether the output of the tool is published (capture_output).
func (s *CommonSpec) Captures() bool { return s.CaptureOutput == nil || *s.CaptureOutput }

// LocalSpec is the engine_spec of the local engine.
type LocalSpec struct {
	CommonSpec
	Shell   bool   `json:"shell,omitempty"`   // run the command by /bin/sh -c
	Sandbox string `json:"sandbox,omitempty"` // one of Sandboxes; "": that of the executor, whichever it is
}

// The values of sandbox in the engine_spec of the local engine.
const (
	SandboxNamespaces = "namespaces" // this tier of isolation or a stronger one, else the run is refused
	SandboxBubblewrap = "bubblewrap" // the same
	SandboxLandlock   = "landlock"   // the same
	SandboxNone       = "none"       // no sandbox: an ordinary process, where the operator consents
)

// Sandboxes are all of them, the strongest first.
var Sandboxes = []string{SandboxNamespaces, SandboxBubblewrap, SandboxLandlock, SandboxNone}

// Engine is EngineLocal.
func (*LocalSpec) Engine() string { return EngineLocal }

// ContainerSpec is what the engine_specs of docker and dagger have beyond CommonSpec.
type ContainerSpec struct {
	CommonSpec
	Image      string     `json:"image,omitempty"`
	Entrypoint Entrypoint `json:"entrypoint,omitzero"` // stands before the command; nil: the image's
	User       string     `json:"user,omitempty"`
	Privileged bool       `json:"privileged,omitempty"`
	ReadOnly   *bool      `json:"read_only,omitempty"` // root file system; nil: as the operator configured
	Tmpfs      Tmpfs      `json:"tmpfs,omitempty"`
	ShmSize    Size       `json:"shm_size,omitempty"` // of /dev/shm; 0: as the operator configured
	Ulimits    Ulimits    `json:"ulimits,omitempty"`
	GPUs       GPUs       `json:"gpus,omitempty"`
	Platform   string     `json:"platform,omitempty"`    // of the image, as linux/arm64; "": the daemon's
	BestEffort bool       `json:"best_effort,omitempty"` // limits and isolation that the engine cannot enforce are left out, and the result says so
}

// DockerSpec is the engine_spec of the docker engine.
type DockerSpec struct{ ContainerSpec }

// Engine is EngineDocker.
func (*DockerSpec) Engine() string { return EngineDocker }

// DaggerSpec is the engine_spec of the dagger engine. Its image may be left to the operator's default_image.
type DaggerSpec struct {
	ContainerSpec
	Cache bool `json:"cache,omitempty"` // what was run before with the same image, files, arguments and variables is not run again
}

// Engine is EngineDagger.
func (*DaggerSpec) Engine() string { return EngineDagger }

func newSpec(engine string) Spec {
	switch engine {
	case EngineLocal:
		return &LocalSpec{}
	case EngineDocker:
		return &DockerSpec{}
	case EngineDagger:
		return &DaggerSpec{}
	}
	return nil
}

// Command is the program and its arguments. Written as one string it is shell text, which takes shell: true.
type Command struct {
	Argv  []string
	Shell string // the text, where the command was written as one string
}

// MarshalJSON writes the form that was read.
func (c Command) MarshalJSON() ([]byte, error) {
	if c.Shell != "" {
		return marshalJSON(c.Shell)
	}
	return marshalJSON(c.Argv)
}

// Text is the command as shell text. Like Praxis does, the elements of a list are joined by spaces, not quoted.
func (c Command) Text() string {
	if c.Shell != "" {
		return c.Shell
	}
	return strings.Join(c.Argv, " ")
}

func (c *Command) decodeNode(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		c.Shell = n.Value
	} else {
		d.into(n, &c.Argv, path)
	}
	switch {
	case d.flawed(path):
	case c.Shell == "" && len(c.Argv) == 0 || len(c.Argv) > 0 && c.Argv[0] == "":
		d.problem(n, path, `is empty; write the program and its arguments, as ["python3", "main.py"]`)
	case strings.Contains(c.Text(), "\x00"):
		d.problem(n, path, "holds a NUL character, which no command can")
	}
}

// Variables are environment variables. A number or truth value is taken as it is written.
type Variables map[string]string

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (v *Variables) decodeNode(d *decoder, n *yaml.Node, path string) {
	*v = Variables{}
	d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
		switch {
		case !variableName.MatchString(key.Value):
			d.problem(key, at, "is not a name of an environment variable (letters, digits and _, no digit first)")
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			d.problem(value, at, "is %s; a variable holds text", describe(value))
		case strings.Contains(value.Value, "\x00"):
			d.problem(value, at, "holds a NUL character, which no variable can")
		default:
			(*v)[key.Value] = value.Value
		}
	})
}

// Mount makes a directory or file of the host visible to a tool.
type Mount struct {
	Source string // on the host; relative to the contract's base directory
	Target string // where the tool sees it
	Mode   string // "ro", "rw", or "" where the contract does not say: ro, but see Contract.Praxis
}

// Mounts are written as a mapping {source: "target[:ro|:rw]"} or as a list of "source:target[:ro|:rw]".
type Mounts []Mount

// MarshalJSON writes the list form.
func (m Mounts) MarshalJSON() ([]byte, error) {
	list := make([]string, len(m))
	for i, one := range m {
		list[i] = one.Source + ":" + one.Target
		if one.Mode != "" {
			list[i] += ":" + one.Mode
		}
	}
	return marshalJSON(list)
}

func (m *Mounts) decodeNode(d *decoder, n *yaml.Node, path string) {
	d.placements(n, path, "host path", func(n *yaml.Node, at, source, target string) {
		one := Mount{Source: source, Target: target}
		if i := strings.LastIndexByte(target, ':'); i >= 0 {
			one.Target, one.Mode = target[:i], target[i+1:]
			if one.Mode != "ro" && one.Mode != "rw" {
				d.problem(n, at, "%s ends in %q; a mount ends in :ro (the default) or :rw", quote(target), ":"+one.Mode)
				return
			}
		}
		if strings.Contains(source+one.Target, ":") {
			d.problem(n, at, "%s has more colons than host path:path:mode, and a path in it cannot hold one", quote(source+":"+target))
			return
		}
		if one.Target = posix.Clean(one.Target); !strings.HasPrefix(one.Target, "/") || one.Target == "/" {
			d.problem(n, at, "%s is where the tool sees the mount: write an absolute path below /", quote(one.Target))
			return
		}
		if slices.ContainsFunc(*m, func(o Mount) bool { return o.Target == one.Target }) {
			d.problem(n, at, "%s is mounted twice", quote(one.Target))
			return
		}
		*m = append(*m, one)
	})
}

// CacheMount is a directory that persists between runs under a name, as pip's or Go's cache.
type CacheMount struct {
	Name string
	Path string // absolute, or "~/…" below the tool's HOME
}

// CacheMounts are written as a mapping {name: path} or as a list of "name:path".
type CacheMounts []CacheMount

// MarshalJSON writes the list form.
func (c CacheMounts) MarshalJSON() ([]byte, error) {
	list := make([]string, len(c))
	for i, one := range c {
		list[i] = one.Name + ":" + one.Path
	}
	return marshalJSON(list)
}

var cacheName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (c *CacheMounts) decodeNode(d *decoder, n *yaml.Node, path string) {
	d.placements(n, path, "cache name", func(n *yaml.Node, at, name, target string) {
		below, home := strings.CutPrefix(target, "~/")
		switch {
		case !cacheName.MatchString(name):
			d.problem(n, at, "%s is not a name of a cache (letters, digits, '.', '_' and '-', 64 at most)", quote(name))
		case home && !filepath.IsLocal(below), !home && !strings.HasPrefix(target, "/"):
			d.problem(n, at, `%s is not a place for a cache; write an absolute path, or "~/.cache/pip" for one below the tool's HOME`, quote(target))
		default:
			if target = posix.Clean(target); home {
				target = "~/" + posix.Clean(below)
			}
			if slices.ContainsFunc(*c, func(o CacheMount) bool { return o.Path == target }) {
				d.problem(n, at, "%s has a cache already", quote(target))
				return
			}
			*c = append(*c, CacheMount{Name: name, Path: target})
		}
	})
}

// placements decodes what mounts and cache_mounts have in common: pairs written as a mapping or as "left:right".
func (d *decoder) placements(n *yaml.Node, path, what string, each func(n *yaml.Node, at, left, right string)) {
	one := func(n *yaml.Node, at, left, right string) {
		switch {
		case d.flawed(at):
		case left == "" || right == "":
			d.problem(n, at, "%s lacks a part; write %q", quote(left+":"+right), what+":path")
		case strings.Contains(left+right, "\x00"):
			d.problem(n, at, "holds a NUL character, which no path can")
		default:
			each(n, at, left, right)
		}
	}
	if n.Kind == yaml.MappingNode {
		if d.tooMany(n, path, len(n.Content)/2) {
			return
		}
		d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
			var right string
			d.into(value, &right, at)
			one(value, at, key.Value, right)
		})
		return
	}
	var list []string
	d.into(n, &list, path)
	for i, pair := range list {
		left, right, _ := strings.Cut(pair, ":")
		one(n.Content[i], element(path, i), left, right)
	}
}
