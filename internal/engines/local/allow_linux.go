package local

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// allow reports whether the operator's list has a command, and returns what is to be executed: where there is a list that is
// the file itself, not a link to it, so that a link which is changed meanwhile leads nowhere else. shell says that the command
// is the shell of shell: true. An error has the code policy_denied.
func (e *Engine) allow(see *view, command string, shell bool) (string, error) {
	if len(e.config.Commands) == 0 || e.probing { // else it is the program that does nothing, with which tiers are tried
		return command, nil
	}
	inside, outside, err := see.resolve(command)
	if err != nil {
		return "", contracts.Errorf(contracts.PolicyDenied, "command: %s cannot be looked up in policy.local.commands: %s", command, err)
	}
	if listed(e.config.Commands, outside) {
		return inside, nil
	}
	what := "the command " + command
	if outside != command {
		what += " (" + outside + ")"
	}
	if shell {
		what += ", which shell: true needs,"
	}
	hint := fmt.Sprintf("add %q to it", outside)
	for _, entry := range e.config.Commands {
		if resolved, err := filepath.EvalSymlinks(entry); err == nil && !strings.HasSuffix(entry, "/") && within(resolved, outside) {
			hint = fmt.Sprintf("write %q in it, with a slash at the end, for all that is in this directory", entry+"/")
		}
	}
	return "", contracts.Errorf(contracts.PolicyDenied, "%s is not in policy.local.commands of this executor; its operator can %s", what, hint)
}

// unswayed refuses, where the operator has a list, what of a contract that came over the bus would have a program of the list do the work
// of another one: variables as LD_PRELOAD, mounts and caches over libraries. An error has the code policy_denied.
func (e *Engine) unswayed(c *contracts.Contract, spec *contracts.LocalSpec) error {
	if len(e.config.Commands) == 0 || c.File != "" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		if contracts.ReservedVariable(name) {
			return contracts.Errorf(contracts.PolicyDenied, "env: %s changes how programs are found, loaded or run, and this executor has a list of what may be (policy.local.commands): only a contract in its tools.directories may set it; leave it out", name)
		}
	}
	var targets []string
	for _, m := range spec.Mounts {
		targets = append(targets, m.Target)
	}
	for _, cache := range spec.CacheMounts {
		targets = append(targets, cache.Path) // those in HOME begin with ~/
	}
	for _, target := range targets {
		target = filepath.Clean(target)
		if target == "/" || within("/etc", target) || slices.ContainsFunc(SystemPaths, func(path string) bool { return within(path, target) || within(target, path) }) {
			return contracts.Errorf(contracts.PolicyDenied, "%s is where programs find what they need, and this executor has a list of what may be executed (policy.local.commands): only a contract in its tools.directories may mount something there; choose another target", target)
		}
	}
	return nil
}

// listed reports whether a list has a file: by its name, or a directory that it lies in, which is written with a slash at its
// end. Links in the list are followed, too.
func listed(list []string, file string) bool {
	for _, entry := range list {
		resolved, err := filepath.EvalSymlinks(entry)
		if err != nil {
			continue
		}
		if strings.HasSuffix(entry, "/") {
			if resolved != file && within(strings.TrimSuffix(resolved, "/"), file) {
				return true
			}
		} else if resolved == file {
			return true
		}
	}
	return false
}

// mostLinks is how many symbolic links the kernel follows in one path.
const mostLinks = 40

var errLinks = errors.New("there are too many symbolic links in it")

// resolve follows the symbolic links of a path as a tool would meet them: an absolute one begins at the tool's root, not at
// that of the host. It returns where the file is for the tool, and where outside.
func (v *view) resolve(file string) (inside, outside string, err error) {
	if v == nil {
		outside, err = filepath.EvalSymlinks(file)
		return outside, outside, err
	}
	inside = "/"
	links := 0
	for rest := strings.Split(file, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		next := filepath.Join(inside, name) // also of ..: what is before has no links any more
		text, err := v.link(next)
		if err != nil {
			return "", "", err
		}
		if text == "" {
			inside = next
			continue
		}
		if links++; links > mostLinks {
			return "", "", errLinks
		}
		if filepath.IsAbs(text) {
			inside = "/"
		}
		rest = append(strings.Split(text, "/"), rest...)
	}
	best, visible := v.bindOf(inside)
	if !visible {
		return "", "", v.unseen(inside)
	}
	if outside, err = filepath.EvalSymlinks(best.Source); err != nil { // the place of the mount, which the kernel followed
		return "", "", err
	}
	below, err := filepath.Rel(best.At(), inside)
	return inside, filepath.Join(outside, below), err
}

// link is what a symbolic link says that a tool sees, "" where the path is none. What leads to it has no links.
func (v *view) link(path string) (string, error) {
	for _, l := range v.plan.Links {
		if l.Path == path {
			return l.Text, nil
		}
	}
	best, visible := v.bindOf(path)
	if !visible || best.At() == path { // made for the sandbox, or the place of a mount
		return "", nil
	}
	source, err := filepath.EvalSymlinks(best.Source)
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(best.At(), path)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(filepath.Join(source, below))
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		return "", err
	}
	return os.Readlink(filepath.Join(source, below))
}

// bindOf is the mount in which a tool finds a path that has no links: of several, the innermost, and of two at one place the
// later.
func (v *view) bindOf(path string) (best sandbox.Bind, found bool) {
	for _, b := range v.plan.Binds {
		if within(b.At(), path) && (!found || len(b.At()) >= len(best.At())) {
			best, found = b, true
		}
	}
	return best, found
}
