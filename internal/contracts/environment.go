package contracts

import (
	"maps"
	"slices"
	"strings"
)

// Bounds of what args and context may add to an environment.
const (
	maxEnvironment = 1 << 20 // as the kernel counts: "NAME=value", a closing NUL, and a pointer for each entry
	entryOverhead  = 1 + 8
	maxOmitted     = 64 << 10 // bytes of ARGS_OMITTED
)

// Environment is what a run's variables are made of. Later parts win over earlier ones.
type Environment struct {
	Base        map[string]string // PATH, HOME, TMPDIR, LANG and what else the engine gives
	Contract    Variables         // env of the engine_spec
	Passthrough map[string]string // env_passthrough, as far as the operator's list and the executor's environment have it
	Args        map[string]any
	Context     map[string]any
	ArgsEnv     ArgsEnv
	Declared    []string // names of the declared parameters, for ArgsRaw
	ArgsFile    string   // path of the file with all args and context, as the tool sees it
}

// VariableName is the part of a variable's name that stands for an argument: ASCII upper case, "-" and "." as "_".
func VariableName(argument string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == '.':
			return '_'
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, argument)
}

// Variables returns the environment as sorted NAME=value entries. Entries of args and context beyond 128 KiB, or beyond
// 1 MiB together, are left out and named in ARGS_OMITTED, with commas between them; where those names are too many, the
// list ends in "...". An error has the code invalid_args: names that meet in one
// variable, a NUL character.
func (e Environment) Variables() ([]string, error) {
	vars := maps.Clone(e.Base)
	if vars == nil {
		vars = map[string]string{}
	}
	maps.Copy(vars, e.Contract)
	maps.Copy(vars, e.Passthrough)

	var omitted []string
	size := 0
	add := func(name, value string) {
		entry := len(name) + len("=") + len(value)
		if entry >= maxElement || size+entry+entryOverhead > maxEnvironment {
			omitted = append(omitted, name)
			delete(vars, name) // what the contract's env has there is not the argument
			return
		}
		size += entry + entryOverhead
		vars[name] = value
	}
	for _, part := range []struct {
		what, prefix string
		values       map[string]any
	}{{"argument", "ARG_", e.Args}, {"context value", "CONTEXT_", e.Context}} {
		from := make(map[string]string, len(part.values))
		for _, name := range slices.Sorted(maps.Keys(part.values)) {
			value := part.values[name]
			if !argumentName.MatchString(name) {
				return nil, Errorf(InvalidArgs, "the %s %s is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most", part.what, quote(name))
			}
			variable := part.prefix + VariableName(name)
			if other, taken := from[variable]; taken {
				return nil, Errorf(InvalidArgs, "the %ss %q and %q would both be %s in the tool's environment; rename one", part.what, other, name, variable)
			}
			from[variable] = name
			if value == nil {
				continue
			}
			text := Text(value)
			if strings.Contains(text, "\x00") {
				return nil, Errorf(InvalidArgs, "the %s %q holds a NUL character, which no variable can", part.what, name)
			}
			add(variable, text)
		}
	}
	if e.ArgsEnv == ArgsRaw {
		for _, name := range e.Declared {
			_, taken := vars[name]
			if value := e.Args[name]; value != nil && !taken && variableName.MatchString(name) && !ReservedVariable(name) {
				add(name, Text(value))
			}
		}
	}
	if e.ArgsFile != "" {
		vars["ARGS_FILE"] = e.ArgsFile
	}
	if len(omitted) > 0 {
		vars["ARGS_OMITTED"] = omittedList(omitted)
	}
	list := make([]string, 0, len(vars))
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

func omittedList(names []string) string {
	slices.Sort(names)
	list := strings.Join(names, ",")
	if len(list) <= maxOmitted {
		return list
	}
	return list[:strings.LastIndexByte(list[:maxOmitted], ',')] + ",..."
}

// reservedNames change how programs are found, loaded or run; an argument must never set them.
var reservedNames = []string{"PATH", "HOME", "SHELL", "USER", "LOGNAME", "TMPDIR", "IFS", "ENV", "BASH_ENV", "PS4", "SHELLOPTS", "BASHOPTS", "CDPATH", "GLOBIGNORE",
	"NODE_OPTIONS", "NODE_PATH", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "GCONV_PATH", "LOCPATH", "NLSPATH",
	"GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE", "LUA_INIT", "LUA_PATH", "LUA_CPATH", "PHPRC", "PHP_INI_SCAN_DIR", "DOTNET_STARTUP_HOOKS", "MAKEFLAGS", "PROMPT_COMMAND",
	"OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"GOFLAGS", "GOENV", "GOROOT", "GOPATH", "GOPROXY", "GOTOOLCHAIN", "HOSTALIASES", "RES_OPTIONS", "EDITOR", "VISUAL", "PAGER", "BROWSER", "TERMINFO", "TERMCAP", "ARGS_FILE", "ARGS_OMITTED"}

var reservedPrefixes = []string{"LD_", "DYLD_", "PYTHON", "PERL", "GIT_", "BASH_FUNC_", "GLIBC_", "MALLOC_", "CORECLR_", "COR_", "NPM_CONFIG_", "npm_config_", "PIP_",
	"ARG_", "CONTEXT_"}

// ReservedVariable reports whether a variable changes how programs are found, loaded or run.
func ReservedVariable(name string) bool {
	return slices.Contains(reservedNames, name) || slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
