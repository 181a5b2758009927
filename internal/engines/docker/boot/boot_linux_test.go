package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMounts: what is mounted is compared with what was looked at where the numbers of both are of the same kernel.
func TestMounts(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kernel  string
		mount   Mount
		refused bool
	}{
		"what it was":                     {"", Mount{dir, stat.Dev, stat.Ino}, false},
		"behind a link":                   {"", Mount{link, stat.Dev, stat.Ino}, false},
		"another file":                    {"", Mount{dir, stat.Dev, stat.Ino + 1}, true},
		"another file system":             {"", Mount{dir, stat.Dev + 1, stat.Ino}, true},
		"another file of this kernel":     {Kernel(), Mount{dir, stat.Dev, stat.Ino + 1}, true},
		"numbers of another kernel":       {"another", Mount{dir, stat.Dev + 1, stat.Ino + 1}, false},
		"nothing there, another kernel's": {"another", Mount{dir + "/nothing", stat.Dev, stat.Ino}, true},
	} {
		b := &boot{request: &Request{Kernel: c.kernel, Mounts: []Mount{c.mount}, Dir: dir, Argv: []string{os.Args[0]}}}
		refusal := b.prepare()
		if b.stdin != nil {
			b.stdin.Close()
		}
		if (refusal != nil) != c.refused || refusal != nil && (!refusal.Denied || !strings.Contains(refusal.Message, "is not what was looked at")) {
			t.Errorf("%s: %+v", name, refusal)
		}
	}
}
