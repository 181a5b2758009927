package contracts

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Where an executor has a contract from.
const (
	SourceDirectory = "directory" // a file in one of its own directories
	SourceBucket    = "bucket"    // the registry of contracts: a bucket that all executors of the fleet read
)

// keyNoVersion is the version in the key of a contract that has none. It is the version of no contract.
const keyNoVersion = "_"

// Key is where the registry has a contract: name/version.
func Key(name, version string) string {
	if version == "" {
		version = keyNoVersion
	}
	return name + "/" + version
}

// ParseKey splits a key of the registry. It is false for what is no key.
func ParseKey(key string) (name, version string, ok bool) {
	name, version, _ = strings.Cut(key, "/")
	if version == keyNoVersion {
		return name, "", toolName.MatchString(name)
	}
	return name, version, toolName.MatchString(name) && toolVersion.MatchString(version)
}

// DecodeRegistered reads and checks a value of the registry: one contract, in JSON. It is as strict as ParseContracts is
// about a file: what a newer program wrote there and this one does not know may be a limit, which must not be passed over.
// An error is of type Problems.
func DecodeRegistered(key string, value []byte) (*Contract, error) {
	n, err := ParseJSON(key, value)
	if err != nil {
		return nil, err
	}
	d := decoder{file: key}
	c := &Contract{}
	c.decodeAt(&d, n, "")
	if problems := d.found(); len(problems) > 0 {
		return nil, problems
	}
	if want := Key(c.Name, c.Version); key != want {
		return nil, Problems{{File: key, Path: "name", Message: fmt.Sprintf("this contract belongs under the key %s", want)}}
	}
	if problems := c.unregistrable(key, 0); len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// CheckRegistrable reports why a contract cannot be in the registry: executors read it on many machines, so that there is
// nothing which relative paths could be relative to. An error is of type Problems.
func (c *Contract) CheckRegistrable() error {
	if problems := c.unregistrable(c.File, c.Line); len(problems) > 0 {
		return problems
	}
	return nil
}

func (c *Contract) unregistrable(file string, line int) (found Problems) {
	problem := func(path, format string, a ...any) {
		if len(found) == maxProblems {
			return
		}
		found = append(found, Problem{File: file, Line: line, Path: path, Message: fmt.Sprintf(format, a...)})
	}
	if strings.HasSuffix(c.Version, ".") || strings.Contains(c.Version, "..") {
		problem("version", "%s cannot be in the registry: a dot has something on both sides there", quote(c.Version))
	}
	if filepath.IsAbs(c.BaseDir) {
		return found
	}
	if c.BaseDir != "" {
		problem("base_dir", "%s is relative, and a contract of the registry has no directory; write an absolute path, which all executors have", quote(c.BaseDir))
		return found
	}
	for _, one := range c.specs() {
		for _, where := range relativePaths(one.spec) {
			problem(join(one.path, where.path), "%s is relative, and a contract of the registry has no directory; write an absolute path, or add an absolute base_dir, which all executors have", quote(where.value))
		}
	}
	return found
}

type specAt struct {
	path string
	spec Spec
}

// specs are all specs of a contract, with their paths.
func (c *Contract) specs() []specAt {
	list := []specAt{{"engine_spec", c.Spec}}
	for i, f := range c.Fallback {
		if f.Spec != nil {
			list = append(list, specAt{join(element("fallback", i), "engine_spec"), f.Spec})
		}
	}
	return list
}

type pathAt struct{ path, value string }

// relativePaths are those paths of a spec which begin at the contract's base directory. In a container cwd and command are
// paths of the image.
func relativePaths(spec Spec) (list []pathAt) {
	common := spec.Common()
	if _, local := spec.(*LocalSpec); local {
		if common.Cwd != "" && !filepath.IsAbs(common.Cwd) {
			list = append(list, pathAt{"cwd", common.Cwd})
		}
		if argv := common.Command.Argv; common.Cwd == "" && len(argv) > 0 && strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]) && !strings.Contains(argv[0], "{{") {
			list = append(list, pathAt{element("command", 0), argv[0]})
		}
	}
	for i, m := range common.Mounts {
		if !filepath.IsAbs(m.Source) {
			list = append(list, pathAt{element("mounts", i), m.Source})
		}
	}
	return list
}
