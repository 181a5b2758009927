//go:build linux

package dagger

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// cannot is what no engine of Dagger can do, with or without us.
var cannot = map[enginetest.Part]string{
	enginetest.BackPressure: "an engine takes all that a tool prints, whether anybody reads it or not",
	enginetest.Endless:      "an engine keeps all that a tool prints; what is more than Config.MaxOutput is dropped (TestMostOutput)",
	enginetest.Grace:        "the end of a call kills the container at once; there is no way to ask a tool to stop",
}

// container makes a spec of the suite's.
func containerSpec(image string, mounts ...contracts.Mount) func(contracts.CommonSpec) contracts.Spec {
	return func(c contracts.CommonSpec) contracts.Spec {
		c.Mounts = append(append(contracts.Mounts{}, c.Mounts...), mounts...)
		return &contracts.DaggerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: c, Image: image}}
	}
}

func with(change func(*contracts.DaggerSpec)) contracts.Spec {
	spec := &contracts.DaggerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: []string{"true"}}}, Image: "image"}}
	change(spec)
	return spec
}

var refusedSpecs = map[string]contracts.Spec{
	"memory_limit":         with(func(s *contracts.DaggerSpec) { s.MemoryLimit = 1 << 20 }),
	"cpu_limit":            with(func(s *contracts.DaggerSpec) { s.CPULimit = 1000 }),
	"pids_limit":           with(func(s *contracts.DaggerSpec) { s.PidsLimit = 5 }),
	"network none":         with(func(s *contracts.DaggerSpec) { s.Network = "none" }),
	"network host":         with(func(s *contracts.DaggerSpec) { s.Network = "host" }),
	"network by name":      with(func(s *contracts.DaggerSpec) { s.Network = "mine" }),
	"read_only":            with(func(s *contracts.DaggerSpec) { yes := true; s.ReadOnly = &yes }),
	"shm_size":             with(func(s *contracts.DaggerSpec) { s.ShmSize = 1 << 20 }),
	"ulimits":              with(func(s *contracts.DaggerSpec) { s.Ulimits = contracts.Ulimits{"nofile": {Soft: 1, Hard: 1}} }),
	"gpus":                 with(func(s *contracts.DaggerSpec) { s.GPUs = "all" }),
	"no image at all":      with(func(s *contracts.DaggerSpec) { s.Image = "" }),
	"a mount in our place": with(func(s *contracts.DaggerSpec) { s.Mounts = contracts.Mounts{{Source: "/a", Target: "/.executor"}} }),
	"a cache in our place": with(func(s *contracts.DaggerSpec) {
		s.CacheMounts = contracts.CacheMounts{{Name: "a", Path: "/.executor-run/below"}}
	}),
	"a tmpfs in our place": with(func(s *contracts.DaggerSpec) { s.Tmpfs = contracts.Tmpfs{"/.executor-output": 0} }),
	"a tmpfs in /proc":     with(func(s *contracts.DaggerSpec) { s.Tmpfs = contracts.Tmpfs{"/proc/sys": 0} }),
	"a cache for /":        with(func(s *contracts.DaggerSpec) { s.CacheMounts = contracts.CacheMounts{{Name: "a", Path: "/"}} }),
	"a cache at a mount": with(func(s *contracts.DaggerSpec) {
		s.Mounts, s.CacheMounts = contracts.Mounts{{Source: "/a", Target: "/work/x"}}, contracts.CacheMounts{{Name: "a", Path: "~/x"}}
	}),
	"a tmpfs at a cache": with(func(s *contracts.DaggerSpec) {
		s.Tmpfs, s.CacheMounts = contracts.Tmpfs{"/x": 0}, contracts.CacheMounts{{Name: "a", Path: "/x"}}
	}),
	"a mount in a tmpfs": with(func(s *contracts.DaggerSpec) {
		s.Tmpfs, s.Mounts = contracts.Tmpfs{"/x": 0}, contracts.Mounts{{Source: "/a", Target: "/x/y"}}
	}),
	"caches at one place": with(func(s *contracts.DaggerSpec) {
		s.CacheMounts = contracts.CacheMounts{{Name: "a", Path: "~/x"}, {Name: "b", Path: "/work/x"}}
	}),
	"limits, together": with(func(s *contracts.DaggerSpec) { s.MemoryLimit, s.PidsLimit = 1<<20, 5 }),
}

// TestRealEngine runs the suite on an engine of Dagger: with EXECUTOR_TEST_DAGGER=1, where _EXPERIMENTAL_DAGGER_RUNNER_HOST says
// where it is and _EXPERIMENTAL_DAGGER_CLI_BIN which CLI to use. EXECUTOR_TEST_DAGGER_IMAGE is any image that it can pull.
func TestRealEngine(t *testing.T) {
	config := realEngine(t)
	tool := enginetest.Build(t)
	config.MountRoots = []string{filepath.Dir(tool)}
	e, err := New(config, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	enginetest.Run(t, enginetest.Suite{
		Engine: contracts.EngineDagger, Tool: []string{"/testtool/testtool"}, Cannot: cannot, Refused: refusedSpecs, Concurrent: 24,
		ExitCodes: []int{0, 1, 2, 42, 125, 126, 127, 128, 129, 137, 143, 190, 191, 192, 254, 255},
		Spec:      containerSpec(realImage(), contracts.Mount{Source: filepath.Dir(tool), Target: "/testtool"}),
		New:       func(testing.TB, time.Duration) engines.Engine { return e },
		Left:      func(engines.Engine) []string { return leftIn(e.config.DataDir) },
	})
}

func realEngine(t testing.TB) Config {
	t.Helper()
	if os.Getenv("EXECUTOR_TEST_DAGGER") != "1" {
		t.Skip("SKIPPED: needs an engine of Dagger; EXECUTOR_TEST_DAGGER=1 with _EXPERIMENTAL_DAGGER_RUNNER_HOST and _EXPERIMENTAL_DAGGER_CLI_BIN runs it")
	}
	return Config{DataDir: t.TempDir(), Networks: []string{"bridge"}, Program: daggertest.Program(t)}
}

func realImage() string {
	if image := os.Getenv("EXECUTOR_TEST_DAGGER_IMAGE"); image != "" {
		return image
	}
	return "busybox:stable"
}

// leftIn lists what is in a directory.
func leftIn(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// double starts the test double with the testtool in an image, and an engine that uses it.
func double(t testing.TB, options daggertest.Options, config Config) (*daggertest.Engine, *Engine) {
	t.Helper()
	if options.Images == nil {
		options.Images = map[string]daggertest.Image{"image": daggertest.MakeImage(t, false, enginetest.Build(t))}
	}
	d := daggertest.Start(t, options)
	d.Use(t)
	return d, open1(t, config)
}

func open1(t testing.TB, config Config) *Engine {
	t.Helper()
	if config.DataDir == "" {
		config.DataDir = t.TempDir()
	}
	if config.Program == "" {
		config.Program = daggertest.Program(t)
	}
	if config.Networks == nil {
		config.Networks = []string{"bridge"}
	}
	e, err := New(config, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestDouble runs the suite on the test double.
func TestDouble(t *testing.T) {
	_, e := double(t, daggertest.Options{}, Config{})
	enginetest.Run(t, enginetest.Suite{
		Engine: contracts.EngineDagger, Tool: []string{"testtool"}, Cannot: cannot, Refused: refusedSpecs, Concurrent: 100,
		Spec: containerSpec("image"),
		New:  func(testing.TB, time.Duration) engines.Engine { return e },
		Left: func(engines.Engine) []string { return leftIn(e.config.DataDir) },
	})
}
