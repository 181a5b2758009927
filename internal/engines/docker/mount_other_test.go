//go:build !linux

package docker

import "testing"

func mountMemory(t *testing.T, _ string) {
	t.Helper()
	t.Skip("SKIPPED, mounts of tests are for Linux")
}
