package contracts

import (
	posix "path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Entrypoint stands before the command. nil is that of the image; an empty one is none.
type Entrypoint []string

func (e *Entrypoint) decodeNode(d *decoder, n *yaml.Node, path string) {
	var list []string
	if d.into(n, &list, path); d.flawed(path) {
		return
	}
	*e = append(Entrypoint{}, list...)
	switch {
	case len(list) > 0 && list[0] == "":
		d.problem(n, path, `has no program; write it first, as ["python3"], or [] for none`)
	case slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "\x00") }):
		d.problem(n, path, "holds a NUL character, which no command can")
	}
}

var platformText = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$`)

// Tmpfs are directories of a container in memory, by their paths; a size of 0 is as the operator configured. They are
// written as a mapping {path: size} or as a list of paths.
type Tmpfs map[string]Size

func (t *Tmpfs) decodeNode(d *decoder, n *yaml.Node, path string) {
	*t = Tmpfs{}
	add := func(n *yaml.Node, at, target string, size Size) {
		clean := posix.Clean(target)
		_, twice := (*t)[clean]
		switch {
		case d.flawed(at):
		case !strings.HasPrefix(clean, "/") || clean == "/" || strings.ContainsAny(target, "\x00:,"):
			d.problem(n, at, "%s is not a place for a directory in memory: write an absolute path below /, without colons and commas", quote(target))
		case twice:
			d.problem(n, at, "%s is there twice", quote(clean))
		default:
			(*t)[clean] = size
		}
	}
	if n.Kind == yaml.MappingNode {
		if d.tooMany(n, path, len(n.Content)/2) {
			return
		}
		d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
			var size Size
			if d.into(value, &size, at); size <= 0 && !d.flawed(at) {
				d.problem(value, at, "must be above 0")
			}
			add(key, at, key.Value, size)
		})
		return
	}
	var list []string
	d.into(n, &list, path)
	for i, target := range list {
		add(n.Content[i], element(path, i), target, 0)
	}
}

// MarshalJSON writes the mapping, or the list where no directory has a size.
func (t Tmpfs) MarshalJSON() ([]byte, error) {
	list := make([]string, 0, len(t))
	for path, size := range t {
		if size != 0 {
			sizes := map[string]Size{}
			for path, size := range t {
				sizes[path] = size
			}
			return marshalJSON(sizes)
		}
		list = append(list, path)
	}
	slices.Sort(list)
	return marshalJSON(list)
}

// Ulimit is a limit of each process of a container; -1 is no limit.
type Ulimit struct{ Soft, Hard int64 }

// Ulimits are by their names (nofile, nproc, …); each is written as a number, or as "soft:hard".
type Ulimits map[string]Ulimit

// ulimitNames are those that Linux has.
var ulimitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

var ulimitText = regexp.MustCompile(`^(-1|[0-9]{1,18})(?::(-1|[0-9]{1,18}))?$`)

func (u *Ulimits) decodeNode(d *decoder, n *yaml.Node, path string) {
	*u = Ulimits{}
	d.pairs(n, path, nil, func(key, value *yaml.Node, at string) {
		m := ulimitText.FindStringSubmatch(value.Value)
		switch {
		case !slices.Contains(ulimitNames, key.Value):
			d.problem(key, at, "is not a limit of processes; %s", didYouMean(key.Value, ulimitNames))
			return
		case value.Kind != yaml.ScalarNode || value.Tag != "!!str" && value.Tag != "!!int" || m == nil:
			d.problem(value, at, `%s is not a limit; write a number, "soft:hard", or -1 for none`, describe(value))
			return
		}
		soft, _ := strconv.ParseInt(m[1], 10, 64)
		hard := soft
		if m[2] != "" {
			hard, _ = strconv.ParseInt(m[2], 10, 64)
		}
		if hard >= 0 && (soft < 0 || soft > hard) {
			d.problem(value, at, "has a soft limit above the hard one")
			return
		}
		(*u)[key.Value] = Ulimit{soft, hard}
	})
}

// MarshalJSON writes "soft:hard".
func (u Ulimit) MarshalJSON() ([]byte, error) {
	return marshalJSON(strconv.FormatInt(u.Soft, 10) + ":" + strconv.FormatInt(u.Hard, 10))
}

// GPUs says which graphics processors a container gets: how many, "all", or their ids with commas between them ("": none).
type GPUs string

var (
	gpusText   = regexp.MustCompile(`^[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*$`)
	gpusNumber = regexp.MustCompile(`^[1-9][0-9]{0,2}$`)
)

func (g *GPUs) decodeNode(d *decoder, n *yaml.Node, path string) {
	ok := n.Kind == yaml.ScalarNode && (n.Tag == "!!str" && gpusText.MatchString(n.Value) || n.Tag == "!!int" && gpusNumber.MatchString(n.Value))
	if !ok {
		d.problem(n, path, "%s does not say which graphics processors; write all, how many, or ids with commas between them", describe(n))
		return
	}
	*g = GPUs(n.Value)
}

// ArgumentNames is args_env as it holds in a container. Contracts of Praxis, whose container engines had arguments under their own
// names, are read as they were meant.
func (c *Contract) ArgumentNames() ArgsEnv {
	if c.ArgsEnv == "" && c.Praxis {
		return ArgsRaw
	}
	return c.ArgsEnv
}
