package local

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// hiding is the secret that a path of the host is, or lies in; "" where there is none. Nothing of it is shown to a tool.
func hiding(secrets []string, path string) string {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	for _, secret := range secrets {
		if s, err := filepath.EvalSymlinks(secret); err == nil && within(s, resolved) {
			return secret
		}
	}
	return ""
}

func secretError(what, secret string) error {
	return contracts.Errorf(contracts.PolicyDenied, "%s is the executor's own, or lies in what is (%s): no tool sees that; keep what tools need in another place", what, secret)
}

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
// the run is to see, lie in a secret; what else does is not shown at all (see hiding).
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
