package engines

import (
	"path/filepath"
	"strings"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// MountSource resolves what a contract mounts, links followed, and looks again whether it may: links can have changed since
// the policy was asked. roots are as policy.mounts has them. An error has the code policy_denied.
func MountSource(c *contracts.Contract, m contracts.Mount, roots []string) (source string, writable bool, err error) {
	source = m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(c.BaseDir, source)
	}
	if source, err = filepath.EvalSymlinks(source); err != nil {
		return "", false, contracts.Errorf(contracts.PolicyDenied, "mounts: %s: it must be there before it can be mounted (%s)", m.Source, err)
	}
	writable = m.Mode == "rw" || m.Mode == "" && c.Praxis && BelowRoots(roots, source, true)
	if !BelowRoots(roots, source, writable) {
		return "", false, contracts.Errorf(contracts.PolicyDenied, "mounts: %s is not below a directory that this executor may mount; its operator can allow it by policy.mounts", m.Source)
	}
	return source, writable, nil
}

// BelowRoots reports whether a resolved path lies in one of the roots, which are as policy.mounts has them; with write, in one
// that allows writing.
func BelowRoots(roots []string, path string, write bool) bool {
	for _, root := range roots {
		root, writable := strings.CutSuffix(root, ":rw")
		if write && !writable {
			continue
		}
		if root, err := filepath.EvalSymlinks(root); err == nil {
			if rest, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rest) {
				return true
			}
		}
	}
	return false
}
