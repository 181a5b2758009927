package executor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Registry holds the contracts that requests may name. They are from directories of this instance, and from the registry
// that the fleet shares, a bucket. A name that a directory has is that directory's, with all its versions: nobody who
// writes to the bucket can put his own under it, not even as a newer version.
type Registry struct {
	reading     sync.Mutex // held while directories are read
	directories []*directory
	lookAgain   time.Duration

	mu      sync.RWMutex
	onMiss  func()
	tools   map[string][]*contracts.Contract // by name; the newest version first
	sources map[string]string                // of tools
	refused []contracts.Refusal
	loaded  []loaded               // what the directories have
	stored  map[string]*registered // what the bucket has, by key
}

// NewRegistry makes an empty one.
func NewRegistry() *Registry {
	return &Registry{lookAgain: lookAgain, tools: map[string][]*contracts.Contract{}, sources: map[string]string{}, stored: map[string]*registered{}}
}

// Load reads the contracts below directories and replaces what the registry held of directories. Which files count as
// contracts is said by ContractFiles. The error joins all that is wrong; the contracts that are right are there all the
// same. Watch then sees what changes.
func (r *Registry) Load(dirs []string) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.directories = nil
	for _, dir := range dirs {
		r.directories = append(r.directories, &directory{path: dir})
	}
	r.scan()
	refused := r.merge(zerolog.Nop())
	var wrong []error
	for _, one := range refused {
		if one.Source == contracts.SourceDirectory {
			wrong = append(wrong, errors.New(one.Reason))
		}
	}
	return errors.Join(wrong...)
}

// merge makes of what directories and bucket have what requests find. It logs what is other than before: a refusal once.
func (r *Registry) merge(log zerolog.Logger) []contracts.Refusal {
	r.mu.Lock()
	m := merger{tools: map[string][]*contracts.Contract{}, sources: map[string]string{}}
	for _, file := range r.loaded {
		m.file(file)
	}
	for _, key := range slices.Sorted(maps.Keys(r.stored)) {
		m.entry(key, r.stored[key])
	}
	for _, versions := range m.tools {
		slices.SortFunc(versions, func(a, b *contracts.Contract) int {
			return cmp.Or(compareVersions(b.Version, a.Version), strings.Compare(b.Version, a.Version))
		})
	}
	tools, refused := r.tools, r.refused
	r.tools, r.sources, r.refused = m.tools, m.sources, m.refused
	r.mu.Unlock()

	for _, one := range m.refused {
		if !slices.Contains(refused, one) {
			log.Warn().Str("source", one.Source).Str("where", one.Where).Str("tool", one.Name).Str("reason", one.Reason).
				Msg("a contract is not taken; one that was right before stays")
		}
	}
	logChanges(log, tools, m.tools)
	return m.refused
}

// merger joins what the sources have: first all files, then all entries of the bucket.
type merger struct {
	tools   map[string][]*contracts.Contract
	sources map[string]string
	refused []contracts.Refusal
}

func (m *merger) file(f loaded) {
	if f.err != nil {
		m.refused = append(m.refused, contracts.Refusal{Source: contracts.SourceDirectory, Where: f.path, Reason: f.err.Error()})
	}
	for _, c := range f.list {
		i := slices.IndexFunc(m.tools[c.Name], func(o *contracts.Contract) bool { return o.Version == c.Version })
		switch {
		case i < 0:
			m.tools[c.Name], m.sources[c.Name] = append(m.tools[c.Name], c), contracts.SourceDirectory
		case !f.absent:
			m.refused = append(m.refused, contracts.Refusal{Name: c.Name, Version: c.Version, Source: contracts.SourceDirectory, Where: f.path,
				Reason: fmt.Sprintf("%s:%d: the tool %q is already defined in %s:%d; give it another name or version",
					c.File, c.Line, c.Name, m.tools[c.Name][i].File, m.tools[c.Name][i].Line)})
		}
	}
}

func (m *merger) entry(key string, is *registered) {
	name, version, ok := contracts.ParseKey(key)
	refusal := contracts.Refusal{Source: contracts.SourceBucket, Where: key}
	if ok {
		refusal.Name, refusal.Version = name, version
	}
	switch {
	case ok && m.sources[name] == contracts.SourceDirectory:
		refusal.Reason = fmt.Sprintf("the name %q belongs to a directory of this executor, which has it in %s; use another name, or remove it there", name, m.tools[name][0].File)
		m.refused = append(m.refused, refusal)
		return
	case is.err != nil:
		refusal.Reason = is.err.Error()
		m.refused = append(m.refused, refusal)
	}
	if is.contract != nil {
		m.tools[name], m.sources[name] = append(m.tools[name], is.contract), contracts.SourceBucket
	}
}

// logChanges names the contracts that came, changed and went.
func logChanges(log zerolog.Logger, before, after map[string][]*contracts.Contract) {
	was, is := byKey(before), byKey(after)
	var added, changed, removed []string
	for _, key := range slices.Sorted(maps.Keys(is)) {
		switch old := was[key]; {
		case old == nil:
			added = append(added, key)
		case old != is[key]:
			changed = append(changed, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if is[key] == nil {
			removed = append(removed, key)
		}
	}
	if len(added)+len(changed)+len(removed) > 0 {
		log.Info().Strs("added", added).Strs("changed", changed).Strs("removed", removed).Int("tools", len(is)).Msg("the contracts have changed")
	}
}

func byKey(tools map[string][]*contracts.Contract) map[string]*contracts.Contract {
	list := map[string]*contracts.Contract{}
	for _, versions := range tools {
		for _, c := range versions {
			list[contracts.Key(c.Name, c.Version)] = c
		}
	}
	return list
}

// OnMiss has call called before a tool is said to be unknown; it is looked for again after that. What was registered a
// moment ago, and is still on its way to this instance, is found so.
func (r *Registry) OnMiss(call func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onMiss = call
}

// Find returns the contract of a tool: the version asked for, or the newest. An error has the code unknown_tool and names
// what is near.
func (r *Registry) Find(name, version string) (*contracts.Contract, error) {
	c, err := r.find(name, version)
	if err == nil {
		return c, nil
	}
	r.mu.RLock()
	onMiss := r.onMiss
	r.mu.RUnlock()
	if onMiss == nil {
		return nil, err
	}
	onMiss()
	return r.find(name, version)
}

func (r *Registry) find(name, version string) (*contracts.Contract, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	versions := r.tools[name]
	if len(versions) == 0 {
		names := r.names()
		if len(names) == 0 {
			return nil, contracts.Errorf(contracts.UnknownTool, "there is no tool %q: this executor knows no contracts; start it with --tools DIR, or register one: executor tools push FILE", name)
		}
		if near := contracts.Closest(name, names); near != "" {
			return nil, contracts.Errorf(contracts.UnknownTool, "there is no tool %q; did you mean %q?", name, near)
		}
		const most = 20
		if len(names) > most {
			names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
		}
		return nil, contracts.Errorf(contracts.UnknownTool, "there is no tool %q; known are %s", name, strings.Join(names, ", "))
	}
	if version == "" {
		return versions[0], nil
	}
	var known []string
	for _, c := range versions {
		if c.Version == version {
			return c, nil
		}
		known = append(known, cmp.Or(c.Version, "one without a version"))
	}
	return nil, contracts.Errorf(contracts.UnknownTool, "the tool %q has no version %q; it has %s", name, version, strings.Join(known, ", "))
}

func (r *Registry) names() []string {
	names := make([]string, 0, len(r.tools))
	for name := range r.tools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// List returns all contracts by name, the newest version first.
func (r *Registry) List() []*contracts.Contract {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []*contracts.Contract{}
	for _, name := range r.names() {
		list = append(list, r.tools[name]...)
	}
	return list
}

// Sources says by name where the contracts of List are from: contracts.SourceDirectory or contracts.SourceBucket.
func (r *Registry) Sources() map[string]string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.sources)
}

// Bounds of Refused: it is for people, and part of an answer to agents.
const (
	mostRefused      = 20
	mostRefusedBytes = 300
)

// Refused lists contracts that are there and not taken, the first of them, each with one line of the reason. The log has
// all.
func (r *Registry) Refused() []contracts.Refusal {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := slices.Clone(r.refused[:min(len(r.refused), mostRefused)])
	for i := range list {
		list[i].Reason = shortReason(list[i])
	}
	return list
}

// shortReason is one line of a reason, and how many more there are. A key that is not known comes before one that is missing:
// often it is the same key, and misspelt.
func shortReason(one contracts.Refusal) string {
	lines := strings.Split(one.Reason, "\n")
	reason := lines[0]
	if strings.Contains(reason, ": is missing; ") {
		if i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, ": unknown key; ") }); i > 0 {
			reason = lines[i]
		}
	}
	if len(reason) > mostRefusedBytes {
		reason = strings.ToValidUTF8(reason[:mostRefusedBytes], "") + "…"
	}
	switch more := len(lines) - 1; {
	case more == 0:
		return reason
	case one.Source == contracts.SourceDirectory:
		return fmt.Sprintf("%s (and %d more; executor validate %s)", reason, more, one.Where)
	default: // there is no file
		return fmt.Sprintf("%s (and %d more)", reason, more)
	}
}

// Len is how many contracts there are.
func (r *Registry) Len() int { return len(r.List()) }

// compareVersions orders versions as people do: 1.10.0 after 1.9.2, 1.0.0 after 1.0.0-rc1, none before all.
func compareVersions(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(len(a), len(b))
	}
	coreA, preA, hasPreA := strings.Cut(a, "-")
	coreB, preB, hasPreB := strings.Cut(b, "-")
	if c := compareRuns(coreA, coreB); c != 0 {
		return c
	}
	if hasPreA != hasPreB { // what has a suffix comes before what has none
		if hasPreA {
			return -1
		}
		return 1
	}
	return compareRuns(preA, preB)
}

// compareRuns compares runs of digits by their number and all else by its letters.
func compareRuns(a, b string) int {
	for a != "" && b != "" {
		x, restA := leading(a)
		y, restB := leading(b)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
		} else if c := strings.Compare(x, y); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return cmp.Compare(len(a), len(b))
}

func isDigit(c byte) bool { return unicode.IsDigit(rune(c)) }

func leading(s string) (run, rest string) {
	i := 1
	for i < len(s) && isDigit(s[i]) == isDigit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}
