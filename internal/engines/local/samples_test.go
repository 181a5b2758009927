//go:build linux

package local

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// The sample tools, those in Python and Go among them, run in the sandbox as it is by default, by their contracts: with the
// parameters of their examples, or without any.
func TestSampleToolsRunInTheSandbox(t *testing.T) {
	files, err := filepath.Glob("../../../configs/tools/*/contract.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d contracts, %v", len(files), err)
	}
	path := DefaultPath
	e := newEngine(t, sandboxed(t), func(c *Config) {
		if root, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
			dir := strings.TrimSpace(string(root))
			path += ":" + dir + "/bin"
			c.Path, c.Sandbox.Paths = path, append(c.Sandbox.Paths, dir)
		}
	})
	programs := map[string]bool{}
	for _, file := range files {
		list, err := contracts.LoadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			var asked []map[string]any
			for _, one := range c.Examples {
				if m, ok := one.(map[string]any); ok {
					if args, ok := m["parameters"].(map[string]any); ok {
						asked = append(asked, args)
					}
				}
			}
			if len(asked) == 0 {
				asked = []map[string]any{{}}
			}
			t.Run(c.Name, func(t *testing.T) {
				argv := c.Spec.Common().Command.Argv
				if _, err := lookUp(nil, argv[0], "/", path); err != nil {
					t.Skipf("SKIPPED: %s", err)
				}
				if argv[0] == "go" && testing.Short() {
					t.Skip("SKIPPED: the first time Go compiles its library, which takes long (-short)")
				}
				programs[argv[0]] = true
				if err := e.Check(c); err != nil {
					t.Fatal(err)
				}
				for _, args := range asked {
					complete, err := c.Parameters.Complete(args)
					if err != nil {
						t.Fatal(err)
					}
					j := &engines.Job{ID: "sample", Attempt: 1, Contract: c, Spec: c.Spec, Args: complete, Stdin: []byte("The cat saw the dog. It slept.\n"),
						Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
					var stdout, stderr strings.Builder
					begun := time.Now()
					exit, err := e.Run(t.Context(), j, &stdout, &stderr)
					if err != nil || exit.Code != 0 || exit.Signal != "" || stdout.Len() == 0 || exit.Isolation.Tier != TierNamespaces || exit.Isolation.Network != "none" {
						t.Errorf("%v: %+v, %v; it printed %q, and on stderr %q", args, exit, err, stdout.String(), stderr.String())
					}
					t.Logf("%v: %s", args, time.Since(begun).Round(time.Millisecond))
				}
			})
		}
	}
	t.Logf("programs: %v", programs)
	if len(programs) == 0 {
		t.Error("no sample was run")
	}
}
