//go:build linux

package dagger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
)

// praxisTools are the examples for Dagger in the documentation of the Praxis SDK, as they stand there.
const praxisTools = `
tools:
  - name: "python_analyzer"
    description: "Analyze data using an external Python script via Dagger"
    engine: "dagger"
    engineSpec:
      image: "python:3.11-slim"
      command: ["python", "/shared/analyzer.py"]
      mounts:
        ./shared: /shared
`

const praxisProcessor = `
name: python_data_processor
engine: dagger
engine_spec:
  image: "python:3.11-slim"
  command:
    - "python"
    - "/app/tools/python_data_processor/main.py"
  mounts:
    "/app/tools": "/app/tools"
    "/app/data": "/app/data"
  env:
    PYTHONPATH: "/app"
    PYTHONIOENCODING: "utf-8"
    PYTHONUNBUFFERED: "1"
  env_passthrough:
    - "PATH"
    - "HOME"
`

// The contracts that come with the SDK mount one directory into another.
const praxisCounter = `
name: word_counter
engine: dagger
engineSpec:
  image: "python:3.11-slim"
  command: ["python", "/shared/tools/word_counter/main.py"]
  mounts:
    ./shared: /shared
    ./tools: /shared/tools
  env_passthrough: ["FILE_PATH", "file_path"]
`

func TestPraxisExamples(t *testing.T) {
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("SKIPPED: needs /usr/bin/python3: apt-get install python3")
	}
	root := t.TempDir()
	for file, text := range map[string]string{
		"shared/analyzer.py":                      "import os\nopen('/shared/report.txt', 'w').write('analyzed')\nprint('analyzed in', os.getcwd())\n",
		"app/tools/python_data_processor/main.py": "import os, sys\nprint(os.environ['HOME'], os.environ['ARG_OPERATION'], os.environ['PYTHONPATH'], open('/app/data/numbers').read(), sys.version_info[0])\n",
		"app/data/numbers":                        "1,2,3",
		"tools/word_counter/main.py":              "import os\ntext = open('/shared/' + os.environ['ARG_FILE_PATH']).read()\nopen('/shared/counted', 'w').write(str(len(text.split())))\nprint(len(text.split()))\n",
		"shared/words.txt":                        "one two three",
	} {
		do(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
		do(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
	}
	image := daggertest.MakeImage(t, true)
	_, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"python:3.11-slim": image}}, Config{MountRoots: []string{root + ":rw"}})
	praxis := func(text string, args map[string]any, passed ...string) ended {
		t.Helper()
		list, err := contracts.ParseContracts("praxis.yaml", []byte(text))
		do(t, err)
		list[0].BaseDir = root
		passthrough := map[string]string{}
		for _, entry := range passed {
			name, value, _ := strings.Cut(entry, "=")
			passthrough[name] = value
		}
		return succeeded(t, run(t, e, &engines.Job{ID: "id", Attempt: 1, Contract: list[0], Spec: list[0].Spec, Args: args, Passthrough: passthrough,
			Starting: func() error { return nil }, Progress: func(string, string, float64) {}}))
	}
	if r := praxis(praxisTools, nil); r.stdout != "analyzed in /work\n" {
		t.Errorf("python_analyzer printed %q %q", r.stdout, r.stderr)
	}
	if text, err := os.ReadFile(filepath.Join(root, "shared/report.txt")); err != nil || string(text) != "analyzed" {
		t.Errorf("its report is %q, %v: in this dialect mounts are written back", text, err)
	}
	// The host's /app is elsewhere here; all else is as written.
	here := strings.NewReplacer(`"/app/tools":`, `"`+root+`/app/tools":`, `"/app/data":`, `"`+root+`/app/data":`).Replace(praxisProcessor)
	if r := praxis(here, map[string]any{"operation": "numbers"}, "PATH=/nowhere:/opt/bin", "HOME=/root"); r.stdout != "/root numbers /app 1,2,3 3\n" {
		t.Errorf("python_data_processor printed %q %q", r.stdout, r.stderr)
	}
	if r := praxis(here, map[string]any{"operation": "numbers"}); r.stdout != "/work numbers /app 1,2,3 3\n" {
		t.Errorf("without what it wants passed through, python_data_processor printed %q %q", r.stdout, r.stderr)
	}
	if r := praxis(praxisCounter, map[string]any{"file_path": "words.txt"}); r.stdout != "3\n" || len(r.Notes) > 0 {
		t.Errorf("word_counter printed %q %q, notes %q", r.stdout, r.stderr, r.Notes)
	}
	if text, err := os.ReadFile(filepath.Join(root, "shared/counted")); err != nil || string(text) != "3" {
		t.Errorf("its count is %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "shared/tools")); err == nil {
		t.Error("the place of one mount in another was brought back, which no tool made")
	}
}
