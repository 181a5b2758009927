package executor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Registry holds the contracts that requests may name.
type Registry struct {
	mu    sync.RWMutex
	tools map[string][]*contracts.Contract // by name; the newest version first
}

// NewRegistry makes an empty one.
func NewRegistry() *Registry { return &Registry{tools: map[string][]*contracts.Contract{}} }

// Load reads the contracts below directories and replaces what the registry held. Which files count as contracts is said
// by ContractFiles. The error joins all that is wrong; the contracts that are right are there all the same.
func (r *Registry) Load(dirs []string) error {
	tools := map[string][]*contracts.Contract{}
	var wrong []error
	for _, dir := range dirs {
		files, err := ContractFiles(dir)
		if err != nil {
			wrong = append(wrong, err)
		}
		for _, file := range files {
			list, err := contracts.LoadFile(file)
			if err != nil {
				wrong = append(wrong, err)
			}
			for _, c := range list {
				if i := slices.IndexFunc(tools[c.Name], func(o *contracts.Contract) bool { return o.Version == c.Version }); i >= 0 {
					wrong = append(wrong, fmt.Errorf("%s:%d: the tool %q is already defined in %s:%d; give it another name or version",
						c.File, c.Line, c.Name, tools[c.Name][i].File, tools[c.Name][i].Line))
					continue
				}
				tools[c.Name] = append(tools[c.Name], c)
			}
		}
	}
	for _, versions := range tools {
		slices.SortFunc(versions, func(a, b *contracts.Contract) int { return compareVersions(b.Version, a.Version) })
	}
	r.mu.Lock()
	r.tools = tools
	r.mu.Unlock()
	return errors.Join(wrong...)
}

// ContractFiles lists the files of a directory that hold contracts: every .yaml, .yml and .json file in the directory
// itself, and below it those named contract.yaml or ending in .contract.yaml (.yml, .json alike), because the folder of
// a tool has other files as well.
func ContractFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != dir && strings.HasPrefix(entry.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(path)
		if ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		if stem := strings.TrimSuffix(entry.Name(), ext); filepath.Dir(path) == filepath.Clean(dir) || stem == "contract" || strings.HasSuffix(stem, ".contract") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return files, fmt.Errorf("read the contracts in %s: %w", dir, err)
	}
	return files, nil
}

// Find returns the contract of a tool: the version asked for, or the newest. An error has the code unknown_tool and names
// what is near.
func (r *Registry) Find(name, version string) (*contracts.Contract, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	versions := r.tools[name]
	if len(versions) == 0 {
		names := r.names()
		if len(names) == 0 {
			return nil, contracts.Errorf(contracts.UnknownTool, "there is no tool %q: this executor knows no contracts; start it with --tools DIR", name)
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
