package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program as users do: testdata/script has what is typed, and what must be seen.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("ROOT", root)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("PATH", e.Getenv("PATH")+":/usr/local/go/bin")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// ready waits until the executor dev with a data directory is ready.
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				awaitFile(ts, filepath.Join(ts.MkAbs(args[0]), devURL))
			},
			// await waits until a file is there.
			"await": func(ts *testscript.TestScript, _ bool, args []string) { awaitFile(ts, ts.MkAbs(args[0])) },
			// big makes the file big of 2 MB.
			"big": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(os.WriteFile(ts.MkAbs("big"), make([]byte, 2<<20), 0o600))
			},
			// occupy listens on a port and sets PORT to it, until the script ends.
			"occupy": func(ts *testscript.TestScript, _ bool, _ []string) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				_, port, _ := net.SplitHostPort(l.Addr().String())
				ts.Setenv("PORT", port)
			},
			// connection sets NATS_URL to that of the executor dev with a data directory.
			"connection": func(ts *testscript.TestScript, _ bool, args []string) {
				text, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), devURL))
				ts.Check(err)
				ts.Setenv("NATS_URL", strings.TrimSpace(string(text)))
			},
		},
	})
}

func awaitFile(ts *testscript.TestScript, file string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear in 20 s", file)
}
