package docker

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// TestReadOnly: which daemons make a mount read-only with all below it, and which leave out what is below.
func TestReadOnly(t *testing.T) {
	const features = `{"mountOptions":["ro","rro"]}`
	for name, c := range map[string]struct {
		api, kernel, features string
		recursive             bool
	}{
		"new": {"1.44", "6.1.0-28-amd64", features, true}, "newer": {"1.51", "5.12", features, true},
		"old daemon": {"1.43", "6.1.0", features, false}, "old kernel": {"1.44", "5.4.0", features, false}, "no kernel": {"1.44", "", features, false},
		"a runtime that cannot": {"1.44", "6.1.0", `{"mountOptions":["ro"]}`, false}, "a runtime that says nothing": {"1.44", "6.1.0", "", false},
	} {
		api, err := client.NewClientWithOpts(client.WithVersion(c.api))
		if err != nil {
			t.Fatal(err)
		}
		e := &Engine{daemon: &daemon{Client: api}}
		info := &system.Info{KernelVersion: c.kernel, DefaultRuntime: "runc", Runtimes: map[string]system.RuntimeWithStatus{"runc": {Status: map[string]string{"org.opencontainers.runtime-spec.features": c.features}}}}
		if got := e.readOnly(info); got.ReadOnlyForceRecursive != c.recursive || got.NonRecursive == c.recursive {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestMountBelowReadOnly: what the host has mounted below a read-only mount cannot be written either.
func TestMountBelowReadOnly(t *testing.T) {
	toolIn(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(root), root} {
		os.Chmod(dir, 0o755)
	}
	below := filepath.Join(root, "below")
	if err := os.Mkdir(below, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(below, 0o777)
	mountMemory(t, below)
	e := newEngine(t, func(c *Config) { c.MountRoots = []string{root} })
	j := parse(t, `{name: a, engine: docker, base_dir: `+root+`, engine_spec: {image: "`+testImage+`", command: [/bin/testtool, "write:/m/below/x:y"], mounts: {./: /m}}}`)
	exit, err := e.Run(t.Context(), j, io.Discard, io.Discard)
	if err != nil || exit.Code == 0 {
		t.Errorf("a tool that writes below a read-only mount ends with %+v, %v", exit, err)
	}
	if _, err := os.Stat(below + "/x"); err == nil {
		t.Error("the file is there")
	}
}
