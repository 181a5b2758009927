package daggertest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest/container"
)

// queryError is an error as an engine tells it.
type queryError struct {
	message    string
	extensions map[string]any
}

func (e *queryError) Error() string { return e.message }

// Image is one that containers are made from.
type Image struct {
	Dir        string   // its files
	Env        []string // of its configuration
	Workdir    string
	User       string
	Entrypoint []string
	Host       bool // it also has /usr of this machine, with what leads there
}

func (i *Image) binds() []container.Mount {
	if i == nil || !i.Host {
		return nil
	}
	return []container.Mount{{Source: "/usr", Target: "/usr", ReadOnly: true}}
}

// The things that a query is about.
type (
	hostThing struct{}
	pathThing struct{ kind, path string } // directory, file, cache, socket
	secret    struct{ name, value string }
	changeset struct{ before, after string }
	ctrMount  struct{ kind, path, target, owner string }
	ctr       struct {
		image   *Image
		layers  []string
		env     []string
		secrets map[string]secret
		workdir string
		user    string
		mounts  []ctrMount
		digest  string
		exec    *execution // the command whose end makes it
	}
)

// asker is one query.
type asker struct {
	engine *Engine
	ctx    context.Context
	trace  string
}

// fields answers a selection about a thing.
func (a *asker) fields(thing any, set ast.SelectionSet) (any, error) {
	if len(set) == 0 {
		return thing, nil
	}
	answer := map[string]any{}
	for _, one := range set {
		switch s := one.(type) {
		case *ast.InlineFragment:
			inner, err := a.fields(thing, s.SelectionSet)
			if err != nil {
				return nil, err
			}
			maps.Copy(answer, inner.(map[string]any))
		case *ast.Field:
			args := map[string]any{}
			for _, arg := range s.Arguments {
				value, err := arg.Value.Value(nil)
				if err != nil {
					return nil, err
				}
				args[arg.Name] = value
			}
			next, err := a.field(thing, s.Name, args)
			if err != nil {
				return nil, err
			}
			name := s.Alias
			if name == "" {
				name = s.Name
			}
			if answer[name], err = a.fields(next, s.SelectionSet); err != nil {
				return nil, err
			}
		}
	}
	return answer, nil
}

func text(args map[string]any, name string) string {
	s, _ := args[name].(string)
	return s
}

// the returns what has an id.
func the[T any](e *Engine, args map[string]any, name string) (T, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	thing, ok := e.things[text(args, name)].(T)
	if !ok {
		return thing, &queryError{message: fmt.Sprintf("%s: there is nothing with the id %q", name, text(args, name))}
	}
	return thing, nil
}

func (a *asker) id(thing any) (any, error) {
	e := a.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	id := fmt.Sprintf("thing-%d", len(e.things))
	e.things[id] = thing
	return id, nil
}

func (a *asker) field(thing any, name string, args map[string]any) (any, error) {
	if name == "id" {
		return a.id(thing)
	}
	switch t := thing.(type) {
	case nil:
		return a.root(name, args)
	case hostThing:
		return a.host(name, args)
	case pathThing:
		return a.path(t, name, args)
	case *ctr:
		return a.container(t, name, args)
	case changeset:
		return a.changes(t, name)
	}
	return nil, unknownField(thing, name)
}

func unknownField(thing any, name string) error {
	return &queryError{message: fmt.Sprintf("Cannot query field %q on type %T", name, thing)}
}

func (a *asker) root(name string, args map[string]any) (any, error) {
	e := a.engine
	switch name {
	case "version":
		return "v0.21.8", nil
	case "defaultPlatform":
		return e.platform(), nil
	case "host":
		return hostThing{}, nil
	case "container":
		return &ctr{}, nil
	case "node":
		return the[any](e, args, "id")
	case "directory":
		dir, err := os.MkdirTemp(e.dir, "empty-")
		return pathThing{"directory", dir}, err
	case "file":
		dir, err := os.MkdirTemp(e.dir, "file-")
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, text(args, "name"))
		mode := os.FileMode(0o644)
		if m, is := args["permissions"].(int64); is {
			mode = os.FileMode(m)
		}
		return pathThing{"file", file}, os.WriteFile(file, []byte(text(args, "contents")), mode)
	case "cacheVolume":
		dir := filepath.Join(e.dir, "cache-"+text(args, "key"))
		return pathThing{"cache", dir}, os.MkdirAll(dir, 0o755)
	case "setSecret":
		return secret{text(args, "name"), text(args, "plaintext")}, nil
	}
	return nil, unknownField("Query", name)
}

func (a *asker) host(name string, args map[string]any) (any, error) {
	e, path := a.engine, text(args, "path")
	if name == "unixSocket" {
		return pathThing{"socket", path}, nil
	}
	if name != "directory" && name != "file" {
		return nil, unknownField(hostThing{}, name)
	}
	if path == e.beside {
		return pathThing{"file", path}, nil // not copied: it is in every container
	}
	if args["noCache"] != true {
		return nil, &queryError{message: "the same path would be the same files all session long: noCache is missing"}
	}
	dir, err := os.MkdirTemp(e.dir, "host-")
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(dir, filepath.Base(path))
	if err := copyTree(path, copied); err != nil {
		return nil, &queryError{message: fmt.Sprintf("failed to stat %s: %s", path, err)}
	}
	return pathThing{name, copied}, nil
}

func (a *asker) path(t pathThing, name string, args map[string]any) (any, error) {
	switch name {
	case "withNewDirectory":
		dir, err := os.MkdirTemp(a.engine.dir, "with-")
		if err != nil {
			return nil, err
		}
		mode, _ := args["permissions"].(int64)
		made := filepath.Join(dir, "files", text(args, "path"))
		return pathThing{"directory", filepath.Join(dir, "files")}, errors.Join(copyTree(t.path, filepath.Join(dir, "files")), os.MkdirAll(made, 0o755), os.Chmod(made, os.FileMode(mode)))
	case "size":
		info, err := os.Stat(t.path)
		if err != nil {
			return nil, err
		}
		return info.Size(), nil
	case "digest":
		text, err := os.ReadFile(t.path)
		return fmt.Sprintf("%x", sha256.Sum256(text)), err
	case "contents":
		text, err := os.ReadFile(t.path)
		return strings.ToValidUTF8(string(text), "\uFFFD"), err
	case "export":
		to := text(args, "path")
		return to, copyTree(t.path, to)
	case "changes":
		from, err := the[pathThing](a.engine, args, "from")
		return changeset{from.path, t.path}, err
	}
	return nil, unknownField(t, name)
}

func (a *asker) changes(c changeset, name string) (any, error) {
	changed, removed, err := difference(c.before, c.after)
	if err != nil {
		return nil, err
	}
	switch name {
	case "isEmpty":
		return len(changed)+len(removed) == 0, nil
	case "removedPaths":
		return append([]string{}, removed...), nil
	case "layer":
		dir, err := os.MkdirTemp(a.engine.dir, "layer-")
		if err != nil {
			return nil, err
		}
		for _, path := range changed {
			info, err := os.Lstat(filepath.Join(c.after, path))
			if err == nil {
				err = os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755)
			}
			if err == nil {
				err = copyOne(filepath.Join(c.after, path), filepath.Join(dir, path), info)
			}
			if err != nil {
				return nil, err
			}
		}
		return pathThing{"directory", dir}, nil
	}
	return nil, unknownField(c, name)
}

// with is a changed copy, which has another digest.
func (c *ctr) with(name string, args map[string]any, change func(*ctr)) *ctr {
	next := *c
	next.env, next.mounts, next.layers = slices.Clone(c.env), slices.Clone(c.mounts), slices.Clone(c.layers)
	next.secrets = maps.Clone(c.secrets)
	if next.secrets == nil {
		next.secrets = map[string]secret{}
	}
	what := c.digest + "|" + name
	for _, key := range slices.Sorted(maps.Keys(args)) {
		what += fmt.Sprintf(" %s=%q", key, fmt.Sprint(args[key]))
	}
	sum := sha256.Sum256([]byte(what))
	next.digest = hex.EncodeToString(sum[:])
	change(&next)
	return &next
}

func (a *asker) container(c *ctr, name string, args map[string]any) (any, error) {
	e := a.engine
	place := func(m ctrMount) *ctr {
		return c.with(name, args, func(n *ctr) {
			n.mounts = append(slices.DeleteFunc(n.mounts, func(o ctrMount) bool { return o.target == m.target || strings.HasPrefix(o.target, m.target+"/") }), m)
		})
	}
	mount := func(kind, source string) (any, error) {
		from, err := the[pathThing](e, args, source)
		if err != nil {
			return nil, err
		}
		m := ctrMount{kind, from.path, text(args, "path"), text(args, "owner")}
		args[source] = e.contentOf(from)
		return place(m), nil
	}
	switch name {
	case "from":
		return e.pull(text(args, "address"), c)
	case "withLabel":
		return c.with(name, args, func(*ctr) {}), nil
	case "withUser":
		return c.with(name, args, func(n *ctr) { n.user = text(args, "name") }), nil
	case "withWorkdir":
		return c.with(name, args, func(n *ctr) { n.workdir = text(args, "path") }), nil
	case "withEnvVariable":
		return c.with(name, args, func(n *ctr) {
			n.env = append(slices.DeleteFunc(n.env, func(entry string) bool { return strings.HasPrefix(entry, text(args, "name")+"=") }), text(args, "name")+"="+text(args, "value"))
		}), nil
	case "withSecretVariable":
		s, err := the[secret](e, args, "secret")
		if err != nil {
			return nil, err
		}
		args["secret"] = s.name // its value is in no digest
		return c.with(name, args, func(n *ctr) { n.secrets[text(args, "name")] = s }), nil
	case "withDirectory": // at the root: a layer
		from, err := the[pathThing](e, args, "source")
		if err != nil || text(args, "path") != "/" {
			return nil, errors.Join(err, unknownField(c, name))
		}
		args["source"] = e.contentOf(from)
		return c.with(name, args, func(n *ctr) { n.layers = append(n.layers, from.path) }), nil
	case "withMountedTemp":
		return place(ctrMount{"temp", "", text(args, "path"), ""}), nil
	case "withMountedDirectory":
		return mount("directory", "source")
	case "withMountedFile":
		return mount("file", "source")
	case "withMountedCache":
		return mount("cache", "cache")
	case "withUnixSocket":
		return mount("socket", "source")
	case "withExec":
		return a.withExec(c, args), nil
	case "entrypoint":
		return append([]string{}, c.image.Entrypoint...), nil
	case "workdir":
		return c.workdir, nil
	case "user":
		return c.user, nil
	case "envVariable":
		for _, entry := range c.env {
			if value, is := strings.CutPrefix(entry, text(args, "name")+"="); is {
				return value, nil
			}
		}
		return nil, nil //nolint:nilnil // null is the answer
	case "exists":
		return c.exists(text(args, "path"), text(args, "expectedType"))
	}
	if c.exec != nil {
		if err := c.exec.run(a.ctx, a.trace); err != nil {
			return nil, err
		}
	}
	switch name {
	case "sync":
		return a.id(c)
	case "exitCode":
		return c.exec.code, nil
	case "stdout":
		return strings.ToValidUTF8(string(c.exec.stdout), "\uFFFD"), nil
	case "stderr":
		return strings.ToValidUTF8(string(c.exec.stderr), "\uFFFD"), nil
	case "file", "directory":
		path, err := c.find(text(args, "path"))
		return pathThing{name, path}, err
	}
	return nil, unknownField(c, name)
}

// contentOf stands for files in a digest: equal files make equal containers.
func (e *Engine) contentOf(t pathThing) string {
	sum := sha256.New()
	_ = filepath.WalkDir(t.path, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || t.kind == "cache" || t.path == e.beside {
			return nil //nolint:nilerr // sockets and the like have no content
		}
		text, _ := os.ReadFile(path)
		below, _ := filepath.Rel(t.path, path)
		fmt.Fprintf(sum, "%s %d %s", below, len(text), text)
		return nil
	})
	return t.kind + hex.EncodeToString(sum.Sum(nil))
}

// withExec adds a command, which is not run yet. What is the same was run already, in this session or another.
func (a *asker) withExec(c *ctr, args map[string]any) *ctr {
	e := a.engine
	x := &execution{engine: e, from: c, stdin: text(args, "stdin"), redirect: text(args, "redirectStderr"), anyCode: args["expect"] == "ANY", insecure: args["insecureRootCapabilities"] == true}
	list, _ := args["args"].([]any)
	for _, one := range list {
		x.argv = append(x.argv, fmt.Sprint(one))
	}
	return c.with("withExec", args, func(n *ctr) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if known := e.executions[n.digest]; known != nil {
			x = known
		}
		e.executions[n.digest] = x
		n.exec = x
	})
}

// find returns where a path of the container is, after its command has ended.
func (c *ctr) find(path string) (string, error) {
	longest := 0 // of mounts within each other the innermost counts
	for _, m := range c.mounts {
		if below, err := filepath.Rel(m.target, path); err == nil && filepath.IsLocal(below) {
			longest = max(longest, len(m.target))
		}
	}
	for i, m := range c.mounts {
		if below, err := filepath.Rel(m.target, path); err == nil && filepath.IsLocal(below) && len(m.target) == longest && (m.kind == "directory" || m.kind == "file") {
			at := m.path
			if c.exec != nil && (m.kind == "directory" || m.path != c.exec.engine.beside) {
				at = filepath.Join(c.exec.dir, "m"+strconv.Itoa(i))
			}
			return filepath.Join(at, below), nil
		}
	}
	layers := slices.Clone(c.layers)
	if c.exec != nil {
		layers = append(layers, filepath.Join(c.exec.dir, "upper"))
	}
	for _, layer := range slices.Backward(layers) {
		if _, err := os.Lstat(filepath.Join(layer, path)); err == nil {
			return filepath.Join(layer, path), nil
		}
	}
	return "", &queryError{message: fmt.Sprintf("%s: no such file or directory", path)}
}

func (c *ctr) exists(path, kind string) (any, error) {
	for _, m := range c.mounts {
		if below, err := filepath.Rel(m.target, path); err == nil && filepath.IsLocal(below) && (m.kind == "temp" || m.kind == "cache") {
			return nil, &queryError{message: fmt.Sprintf("failed to locate path %s: cannot retrieve path from %s", path, m.kind)}
		}
	}
	at, err := c.find(path)
	host := c.image != nil && c.image.Host
	if err != nil && host {
		at, err = filepath.Join("/", path), nil
	}
	if err != nil {
		return false, nil //nolint:nilerr // that is the answer
	}
	info, err := os.Stat(at)
	if err != nil && host { // a link that leads out of the image's own files
		info, err = os.Stat(path)
	}
	switch {
	case err != nil:
		return false, nil //nolint:nilerr // that is the answer
	case kind == "DIRECTORY_TYPE":
		return info.IsDir(), nil
	case kind == "REGULAR_TYPE":
		return info.Mode().IsRegular(), nil
	}
	return true, nil
}
