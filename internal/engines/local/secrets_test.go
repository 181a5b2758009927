//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Secrets are not seen wherever they lie in what is shown, by whatever way it is shown.
func TestSecretsAreNotSeen(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, dir + "/a", dir + "/a/hidden", dir + "/a/open", dir + "/a/open/open", dir + "/a/closed", dir + "/b"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"/a/password", "/a/hidden/token", "/a/open/shown", "/a/open/open/shown", "/a/closed/key"} {
		if err := os.WriteFile(dir+f, []byte("content-of-"+filepath.Base(f)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir+"/a/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/a", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	const read = `for d in "$@"; do cat $d/password $d/hidden/token $d/open/shown $d/closed/key; done 2>/dev/null; exit 0`
	secrets := func(c *Config) {
		c.Sandbox.Secrets = []string{dir + "/link/password", dir + "/a/hidden", dir + "/b/not/there", dir + "/a/hidden/token", dir + "/a/closed/key"}
		c.Sandbox.MountRoots = []string{dir + ":rw"}
	}
	for _, c := range []struct {
		name  string
		paths []string
		base  string // of the contract, which is the operator's
		mount string // on /mnt
		see   string // where
		want  string // "": it is not run
	}{
		{"a path", []string{dir + "/a"}, "", "", dir + "/a", "content-of-shown\n"},
		{"a path above", []string{dir}, "", "", dir + "/a", "content-of-shown\n"},
		{"a path by a link in it", []string{dir}, "", "", dir + "/link", "content-of-shown\n"},
		{"the secret itself as a path", []string{dir + "/a/password", dir + "/a/hidden", dir + "/a/open"}, "", "", dir + "/a", "content-of-shown\n"},
		{"a path inside of the secret", []string{dir + "/a/hidden/token", dir + "/a/open"}, "", "", dir + "/a", "content-of-shown\n"},
		{"patterns", []string{dir + "/a/*"}, "", "", dir + "/a", "content-of-shown\n"},
		{"the contract's directory", nil, dir + "/a", "", dir + "/a", "content-of-shown\n"},
		{"the contract's directory is one", nil, dir + "/a/hidden", "", dir + "/a", ""},
		{"a mount", nil, "", dir + "/a", "/mnt", "content-of-shown\n"},
		{"a mount by a link", nil, "", dir + "/link", "/mnt", "content-of-shown\n"},
		{"a mount to write", nil, "", dir + "/a:rw", "/mnt", ""},
		{"a mount to write, where one may come to be", nil, "", dir + "/b:rw", "/mnt", ""},
		{"a mount to write below", nil, "", dir + "/a/open:rw", "/mnt", "content-of-shown\n"},
		{"a mount of one", nil, "", dir + "/a/hidden", "/mnt", ""},
		{"a mount of a file", nil, "", dir + "/link/password", "/mnt", ""},
		{"a mount out of one", nil, "", dir + "/a/hidden/token", "/mnt", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t, sandboxed(t), secrets, func(config *Config) { config.Sandbox.Paths = append(config.Sandbox.Paths, c.paths...) })
			j := job("/bin/sh", "-c", read, "sh", c.see)
			if c.base != "" {
				j.Contract.BaseDir, j.Contract.File = c.base, c.base+"/tool.yaml"
			}
			if source, mode, _ := strings.Cut(c.mount, ":"); source != "" {
				j.Spec.Common().Mounts = contracts.Mounts{{Source: source, Target: "/mnt", Mode: mode}}
			}
			var stdout strings.Builder
			_, err := e.Run(t.Context(), j, &stdout, nil)
			if c.want == "" {
				if errorCode(err) != contracts.PolicyDenied || !strings.Contains(err.Error(), "the executor's own") {
					t.Errorf("%v; it printed %q", err, stdout.String())
				}
				return
			}
			if err != nil || stdout.String() != c.want {
				t.Errorf("%v; it printed %q, and %q is right", err, stdout.String(), c.want)
			}
		})
	}
	t.Run("without secrets all is seen", func(t *testing.T) { // so the test can fail
		want := 6
		if os.Geteuid() != 0 {
			want = 8 // the closed directory is that user's
		}
		e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.Paths = append(c.Sandbox.Paths, dir) })
		if got := run(t, e, job("/bin/sh", "-c", read, "sh", dir+"/a", dir+"/link")); strings.Count(got, "content-of-") != want {
			t.Errorf("it printed %q", got)
		}
	})
}
