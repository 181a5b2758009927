package contracts

import (
	posix "path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// require reports a key that is missing in both of its spellings.
func (d *decoder) require(n *yaml.Node, path, key, what string) {
	if child(n, key) == nil && child(n, spelling[key]) == nil {
		d.problem(n, join(path, key), "is missing; %s", what)
	}
}

// checker returns what reports problems about the keys of a mapping whose types are right.
func (d *decoder) checker(n *yaml.Node, path string) func(key, format string, a ...any) {
	return func(key, format string, a ...any) {
		if where, p := locate(n, path, key); !d.flawed(p) {
			d.problem(where, p, format, a...)
		}
	}
}

// oneOf reports a value that is not among those allowed.
func (d *decoder) oneOf(n *yaml.Node, path, key, value string, allowed ...string) {
	if child(n, key) != nil && !slices.Contains(allowed, value) {
		d.checker(n, path)(key, "unknown value %s; %s", quote(value), didYouMean(value, allowed))
	}
}

// checkFallback finds what is wrong about the list of other engines.
func (c *Contract) checkFallback(d *decoder, n *yaml.Node, path string) {
	list, path := locate(n, path, "fallback")
	for i, f := range c.Fallback {
		n, p := list.Content[i], element(path, i)
		if f.Spec != nil {
			where, at := locate(n, p, "engine_spec")
			d.checkSpec(where, at, f.Spec, c.Parameters)
		}
		switch {
		case d.flawed(p):
		case f.Engine == c.Engine:
			d.problem(n, p, "%q is the engine of the contract; an engine is tried once", f.Engine)
		case slices.ContainsFunc(c.Fallback[:i], func(o Fallback) bool { return o.Engine == f.Engine }):
			d.problem(n, p, "%q is there already; an engine is tried once", f.Engine)
		case f.Spec != nil || c.Spec == nil || c.SpecFor(f.Engine) != nil:
		case c.Engine == EngineDagger && f.Engine == EngineDocker:
			d.problem(n, p, "docker needs an image, and the engine_spec names none; add one, or write {engine: docker, engine_spec: …}")
		default:
			d.problem(n, p, "the engine_spec of %s does not fit %s; write {engine: %s, engine_spec: …}", c.Engine, f.Engine, f.Engine)
		}
	}
}

// checkSpec finds what is wrong about a spec beyond its types.
func (d *decoder) checkSpec(n *yaml.Node, path string, spec Spec, params Parameters) {
	if n.Kind != yaml.MappingNode {
		return
	}
	common, bad := spec.Common(), d.checker(n, path)
	d.require(n, path, "command", `write the program and its arguments, as ["python3", "main.py"]`)
	d.checkCommand(n, path, spec, params)
	positive := func(key string, ok bool) {
		if child(n, key) != nil && !ok {
			bad(key, "must be above 0")
		}
	}
	positive("timeout", common.Timeout > 0)
	positive("memory_limit", common.MemoryLimit > 0)
	positive("pids_limit", common.PidsLimit > 0)
	passthrough, at := locate(n, path, "env_passthrough")
	for i, name := range common.EnvPassthrough {
		if !variableName.MatchString(name) && !d.flawed(element(at, i)) {
			d.problem(passthrough.Content[i], element(at, i), "%s is not a name of an environment variable (letters, digits and _, no digit first)", quote(name))
		}
	}
	if strings.ContainsAny(common.Network, " /\x00") {
		bad("network", "%s is not a network; write none, bridge, host or the name of one", quote(common.Network))
	}
	if strings.Contains(common.Cwd, "\x00") {
		bad("cwd", "holds a NUL character, which no path can")
	}
	if local, ok := spec.(*LocalSpec); ok {
		d.oneOf(n, path, "sandbox", local.Sandbox, Sandboxes...)
	}
	container, ok := containerOf(spec)
	if !ok {
		return
	}
	if container.Image == "" && spec.Engine() == EngineDocker {
		bad("image", "is missing; name the image to start, as python:3.12-slim")
	}
	if strings.ContainsFunc(container.Image, notGraphic) {
		bad("image", "%s is not the name of an image: it holds white space or control characters", quote(container.Image))
	}
	if strings.ContainsFunc(container.User, notGraphic) {
		bad("user", "%s is not a user: it holds white space or control characters", quote(container.User))
	}
	if child(n, "shm_size") != nil && container.ShmSize <= 0 {
		bad("shm_size", "must be above 0")
	}
	if child(n, "platform") != nil && !platformText.MatchString(container.Platform) {
		bad("platform", "%s is not a platform; write the system and the processor, as linux/amd64 or linux/arm/v7", quote(container.Platform))
	}
}

func containerOf(spec Spec) (*ContainerSpec, bool) {
	switch s := spec.(type) {
	case *DockerSpec:
		return &s.ContainerSpec, true
	case *DaggerSpec:
		return &s.ContainerSpec, true
	}
	return nil, false
}

// notGraphic is true for white space and control characters.
func notGraphic(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// shells take text after -c, as an element of a list.
var shells = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"}

// checkCommand finds arguments where they must not be: in shell text, and where no parameter has that name.
func (d *decoder) checkCommand(n *yaml.Node, path string, spec Spec, params Parameters) {
	bad := d.checker(n, path)
	command := spec.Common().Command
	local, _ := spec.(*LocalSpec)
	shell := local != nil && local.Shell
	switch {
	case command.Shell != "" && !shell && local != nil:
		bad("command", `is one string; write a list, as ["ls", "-l"], or add shell: true`)
	case command.Shell != "" && !shell:
		bad("command", `is one string; write a list, as ["ls", "-l"], or ["sh", "-c", "…"] for shell text`)
	case shell && placeholder.MatchString(command.Text()):
		bad("command", "holds %s: arguments are never put into shell text; use $ARG_<NAME> in it", placeholder.FindString(command.Text()))
	}
	list, path := locate(n, path, "command")
	for i, text := range command.Argv {
		at := element(path, i)
		switch {
		case shell || d.flawed(at) || !placeholder.MatchString(text) || i >= len(list.Content): // the key is there twice, which is told
		case shellText(command.Argv, i):
			d.problem(list.Content[i], at, "holds %s: arguments are never put into shell text; use \"$ARG_<NAME>\" in it", placeholder.FindString(text))
		default:
			d.checkPlaceholders(list.Content[i], at, text, params)
		}
	}
}

// checkPlaceholders finds placeholders of arguments that no parameter has.
func (d *decoder) checkPlaceholders(n *yaml.Node, at, text string, params Parameters) {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if params.Declared && m[1] == "args" && params.Find(m[2]) == nil {
			d.problem(n, at, "holds %s, but the contract has no such parameter; %s", m[0], didYouMean(m[2], params.Names()))
		}
	}
}

// shellText reports whether element i of a command is what a shell runs, as in ["sh", "-c", "…"].
func shellText(argv []string, i int) bool {
	isShell := func(program string) bool { return slices.Contains(shells, posix.Base(program)) }
	return i >= 2 && (isShell(argv[0]) || isShell(argv[i-2])) && shellOption.MatchString(argv[i-1])
}

var shellOption = regexp.MustCompile(`^-[a-z]*c$`)
