package local

import (
	"os"
	"path/filepath"
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
	for _, secret := range secrets {
		resolved, err := filepath.EvalSymlinks(secret)
		if err != nil {
			continue
		}
		info, err := os.Stat(resolved)
		if err != nil {
			continue
		}
		for _, p := range all {
			below, inside := strings.CutPrefix(resolved, strings.TrimSuffix(p.source, "/")+"/")
			if !inside {
				continue
			}
			over := sandbox.Bind{Source: empty, Target: filepath.Join(p.at, below)}
			if !info.IsDir() {
				over.Source = "/dev/null"
			}
			v.plan.Binds, v.covered = append(v.plan.Binds, over), append(v.covered, resolved)
		}
	}
}
