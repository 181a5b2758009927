package contracts

import (
	"encoding/json"
	"fmt"
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
	Shell bool `json:"shell,omitempty"` // run the command by /bin/sh -c
}

// Engine is EngineLocal.
func (*LocalSpec) Engine() string { return EngineLocal }

// ContainerSpec is what the engine_specs of docker and dagger have beyond CommonSpec.
type ContainerSpec struct {
	CommonSpec
	Image      string `json:"image,omitempty"`
	User       string `json:"user,omitempty"`
	Privileged bool   `json:"privileged,omitempty"`
	ReadOnly   *bool  `json:"read_only,omitempty"` // root file system; nil: as the operator configured
}

// DockerSpec is the engine_spec of the docker engine.
type DockerSpec struct{ ContainerSpec }

// Engine is EngineDocker.
func (*DockerSpec) Engine() string { return EngineDocker }

// DaggerSpec is the engine_spec of the dagger engine. Its image may be left to the operator's default_image.
type DaggerSpec struct{ ContainerSpec }

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
		return json.Marshal(c.Shell)
	}
	return json.Marshal(c.Argv)
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
	d.pairs(n, path, func(key, value *yaml.Node) {
		at := join(path, key.Value)
		for value.Kind == yaml.AliasNode {
			value = value.Alias
		}
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
	}, func(key string) string { return key })
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
	return json.Marshal(list)
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
		if !strings.HasPrefix(one.Target, "/") {
			d.problem(n, at, "%s is where the tool sees the mount and must be absolute", quote(one.Target))
			return
		}
		one.Target = posix.Clean(one.Target)
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
	return json.Marshal(list)
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
			if home {
				target = "~/" + posix.Clean(below)
			}
			*c = append(*c, CacheMount{Name: name, Path: target})
		}
	})
}

// placements decodes what mounts and cache_mounts have in common: pairs written as a mapping or as "left:right".
func (d *decoder) placements(n *yaml.Node, path, what string, each func(n *yaml.Node, at, left, right string)) {
	if n.Kind == yaml.MappingNode {
		d.pairs(n, path, func(key, value *yaml.Node) {
			var right string
			before := len(d.problems)
			if d.into(value, &right, join(path, key.Value)); len(d.problems) == before {
				each(value, join(path, key.Value), key.Value, right)
			}
		}, func(key string) string { return key })
		return
	}
	var list []string
	before := len(d.problems)
	if d.into(n, &list, path); len(d.problems) > before {
		return
	}
	for i, one := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		left, right, ok := strings.Cut(one, ":")
		if !ok || left == "" {
			d.problem(n.Content[i], at, "%s lacks a part; write %q", quote(one), what+":path")
			continue
		}
		each(n.Content[i], at, left, right)
	}
}
