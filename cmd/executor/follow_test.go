package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// executor run and executor logs -f are processes that outlive restarts of the NATS server, twice, while a tool prints
// numbered lines: each has every line once, in order, and the tool's exit code.
func TestFollowersOutliveRestartsOfNATS(t *testing.T) {
	for name, test := range map[string]struct {
		lines  int
		script string
	}{
		"at full speed": {300_000, `seq -f 'line %.0f' 0 299999`},
		"slowly":        {600, `i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); sleep 0.005; done`},
	} {
		t.Run(name, func(t *testing.T) {
			s := startNATS(t)
			startServe(t, s.URL())
			contract := writeFile(t, "lines.yaml", fmt.Sprintf("name: lines\nengine: local\nengine_spec:\n  shell: true\n  command: |\n    %s\n    echo at the end >&2; exit 7\n", test.script))
			id := "numbered"
			run, ran := startFollower(t, s.URL(), "run", "--id", id, contract)
			logs, logged := startFollower(t, s.URL(), "logs", "-f", "--exit-code", id)
			for _, part := range []int64{0, 3} {
				eventually(t, "both show more", func() bool {
					all := int64(test.lines) * 8
					return size(ran) > part*all/10 && size(logged) > 0
				})
				s.Stop()
				s.start()
			}
			var want strings.Builder
			for i := range test.lines {
				fmt.Fprintln(&want, "line", i)
			}
			for _, f := range []struct {
				*instance
				out *os.File
			}{{run, ran}, {logs, logged}} {
				select {
				case <-f.ended:
				case <-time.After(60 * time.Second):
					t.Fatalf("executor %s did not end", f.cmd.Args[1])
				}
				if code := f.exitCode(); code != 7 {
					t.Errorf("executor %s: exit code %d", f.cmd.Args[1], code)
				}
				got, err := os.ReadFile(f.out.Name())
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != want.String() {
					t.Errorf("executor %s: %d bytes, want %d; they differ at byte %d", f.cmd.Args[1], len(got), want.Len(), differAt(string(got), want.String()))
				}
				if said := f.log.String(); said != "at the end\n" {
					t.Errorf("executor %s said %q", f.cmd.Args[1], said)
				}
			}
		})
	}
}

// startFollower starts a command that writes to a file.
func startFollower(t *testing.T, url string, args ...string) (*instance, *os.File) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return start(t, out, append(args, "--server", url)...), out
}

func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// differAt is the first place where two texts differ.
func differAt(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
