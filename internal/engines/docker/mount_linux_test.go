package docker

import (
	"testing"

	"golang.org/x/sys/unix"
)

// mountMemory mounts a directory in memory that everybody may write to, until the test ends.
func mountMemory(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=1777"); err != nil {
		t.Skipf("SKIPPED, this user may not mount anything: %s", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
