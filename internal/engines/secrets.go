package engines

import (
	"path/filepath"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// WithinSecret is the secret that a path of the host is, or lies in; "" where there is none. Nothing of it is shown to a tool.
// Links are followed, as they are now.
func WithinSecret(secrets []string, path string) string {
	return secretWhere(secrets, path, func(secret, path string) bool { return below(secret, path) })
}

// HoldsSecret is a secret that lies in a directory of the host; "" where there is none.
func HoldsSecret(secrets []string, path string) string {
	return secretWhere(secrets, path, func(secret, path string) bool { return below(path, secret) })
}

func secretWhere(secrets []string, path string, is func(secret, path string) bool) string {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	for _, secret := range secrets {
		if s, err := filepath.EvalSymlinks(secret); err == nil && is(s, resolved) {
			return secret
		}
	}
	return ""
}

// below reports whether a path without links is a directory without links, or lies in it.
func below(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rest)
}

// SecretError refuses to show what is, or lies in, a secret.
func SecretError(what, secret string) error {
	return contracts.Errorf(contracts.PolicyDenied, "%s is the executor's own, or lies in what is (%s): no tool sees that; keep what tools need in another place", what, secret)
}
