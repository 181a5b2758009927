package engines

import (
	"path/filepath"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// WithinSecret is the secret that a path of the host is, or lies in; "" where there is none. Nothing of it is shown to a tool.
// Links are followed, as they are now.
func WithinSecret(secrets []string, path string) string {
	return secretWhere(secrets, path, below, false)
}

// HoldsSecret is a secret that lies in a directory of the host; "" where there is none. One that is not there counts where its place is
// writable: a tool could put its own there, which the executor would trust.
func HoldsSecret(secrets []string, path string, writable bool) string {
	return secretWhere(secrets, path, func(secret, path string) bool { return below(path, secret) }, writable)
}

func secretWhere(secrets []string, path string, is func(secret, path string) bool, absent bool) string {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	for _, secret := range secrets {
		if s := followed(secret, absent); s != "" && is(s, resolved) {
			return secret
		}
	}
	return ""
}

// followed is a path without links; "" where it is not there, unless absent: then what there is of it is followed.
func followed(path string, absent bool) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	if parent := filepath.Dir(path); absent && parent != path {
		if parent = followed(parent, true); parent != "" {
			return filepath.Join(parent, filepath.Base(path))
		}
	}
	return ""
}

// below reports whether a path without links is a directory without links, or lies in it.
func below(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rest)
}

// SecretInMount is an error where what is mounted is a secret, lies in one or holds one; named is how the contract has it. In a sandbox
// something can be put over a secret that is only read, but what is above it could be renamed where it can be written; and an engine in a
// daemon takes what is there.
func SecretInMount(secrets []string, named, source string, writable bool) error {
	if secret := WithinSecret(secrets, source); secret != "" {
		return SecretError("mounts: "+named, secret)
	}
	if secret := HoldsSecret(secrets, source, writable); secret != "" {
		return contracts.Errorf(contracts.PolicyDenied, "mounts: %s holds what is the executor's own (%s): no tool sees that; mount a directory in it that does not, or keep what tools need in another place", named, secret)
	}
	return nil
}

// SecretError refuses to show what is, or lies in, a secret.
func SecretError(what, secret string) error {
	return contracts.Errorf(contracts.PolicyDenied, "%s is the executor's own, or lies in what is (%s): no tool sees that; keep what tools need in another place", what, secret)
}
