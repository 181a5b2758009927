package docker

import (
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestSuite(t *testing.T) {
	toolIn(t)
	at := func(argv ...string) contracts.Command { return contracts.Command{Argv: argv} }
	refused := func(c contracts.ContainerSpec) contracts.Spec {
		c.Command.Argv = []string{"true"}
		if c.Image == "" {
			c.Image = testImage
		}
		return &contracts.DockerSpec{ContainerSpec: c}
	}
	for _, kind := range []struct {
		name   string
		change func(*Config)
	}{{"on demand", func(*Config) {}}, {"made ahead", func(c *Config) { c.Warm = Default().Warm }}} {
		t.Run(kind.name, func(t *testing.T) {
			enginetest.Run(t, enginetest.Suite{
				Engine: contracts.EngineDocker,
				New: func(tb testing.TB, grace time.Duration) engines.Engine {
					return newEngine(tb, kind.change, func(c *Config) { c.KillGrace = grace })
				},
				Tool: []string{"/bin/testtool"},
				Spec: func(c contracts.CommonSpec) contracts.Spec { return specOf(c) },
				Left: func(e engines.Engine) []string { return left(e.(*Engine)) },
				Refused: map[string]contracts.Spec{
					"an image that is no name":      refused(contracts.ContainerSpec{Image: "UPPER:CASE:"}),
					"the network of another":        refused(contracts.ContainerSpec{CommonSpec: contracts.CommonSpec{Network: "container:other"}}),
					"gpus":                          refused(contracts.ContainerSpec{GPUs: "all"}),
					"a cache in the place of ours":  refused(contracts.ContainerSpec{CommonSpec: contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "/.executor"}}}}),
					"caches at the same place":      refused(contracts.ContainerSpec{CommonSpec: contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "a", Path: "~/x"}, {Name: "b", Path: "~/x"}}}}),
					"a tmpfs in the place of /proc": refused(contracts.ContainerSpec{Tmpfs: contracts.Tmpfs{"/proc/sys": 0}}),
				},
				Unstartable: map[string]contracts.CommonSpec{
					"a file as its working directory": {Command: at("/bin/testtool"), Cwd: "/data/readme"},
					"a device":                        {Command: at("/dev/null")},
					"a name with PATH of a contract":  {Command: at("testtool"), Env: contracts.Variables{"PATH": "/nowhere"}},
				},
				Concurrent: 24,
				ExitCodes:  []int{0, 1, 2, 3, 7, 42, 63, 100, 125, 126, 127, 128, 129, 130, 137, 143, 192, 254, 255},
			})
		})
	}
}
