package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// place is where a mount leads to: a directory or file of the host without links, and where tools see it.
type place struct{ source, at string }

// placesOf are those of mounts. Of a mount that is not there nothing is seen.
func placesOf(binds []sandbox.Bind) (list []place) {
	for _, b := range binds {
		if source, err := filepath.EvalSymlinks(b.Source); err == nil {
			list = append(list, place{source, b.At()})
		}
	}
	return list
}

// cover puts nothing over secrets that lie in what is visible: an empty directory, or /dev/null. It is done for each run,
// because links may have changed and files come since the last. The executor's own directories of the run, which are what
// the run is to see, lie in a secret; what else does is not shown at all (see engines.WithinSecret).
func (v *view) cover(secrets []string, empty string) {
	all := placesOf(v.plan.Binds)
	there := resolvedOf(secrets)
	for _, secret := range there {
		if slices.ContainsFunc(there, func(other string) bool { return other != secret && within(other, secret) }) {
			continue // that is covered, and nothing is below
		}
		for _, p := range all {
			if below, err := filepath.Rel(p.source, secret); err == nil && filepath.IsLocal(below) && below != "." {
				v.coverBelow(p, below, empty)
			}
		}
	}
}

// coverBelow covers a secret in what is shown, or the first directory above it that the tool's user cannot enter: nor can who
// makes the sandbox, being that user outside.
func (v *view) coverBelow(p place, secret, empty string) {
	if info, err := os.Stat(p.source); err != nil || !v.mayExecute(p.source, info) {
		return // nobody sees anything below
	}
	hidden, over := p.source, sandbox.Bind{Source: empty, Target: p.at}
	for name := range strings.SplitSeq(secret, "/") {
		hidden, over.Target = filepath.Join(hidden, name), filepath.Join(over.Target, name)
		info, err := os.Stat(hidden)
		if err != nil {
			return // it went away meanwhile
		}
		if !info.IsDir() {
			over.Source = "/dev/null"
		} else if !v.mayExecute(hidden, info) {
			break
		}
	}
	if slices.Contains(v.plan.Binds, over) {
		return
	}
	v.plan.Binds, v.covered = append(v.plan.Binds, over), append(v.covered, hidden)
}

// resolvedOf are secrets without links, as far as they are there, each once.
func resolvedOf(secrets []string) (list []string) {
	for _, secret := range secrets {
		if resolved, err := filepath.EvalSymlinks(secret); err == nil && !slices.Contains(list, resolved) {
			list = append(list, resolved)
		}
	}
	return list
}
