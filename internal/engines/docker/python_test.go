package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	imageapi "github.com/docker/docker/api/types/image"
)

// pythonImage makes an image with Debian's python and returns its name. What takes long, a tree made by debootstrap, is kept as an
// archive in EXECUTOR_TEST_CACHE, by default a directory of the user's caches.
func pythonImage(t *testing.T) string {
	t.Helper()
	api := daemonFor(t)
	dir := os.Getenv("EXECUTOR_TEST_CACHE")
	if dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(caches, "executor-test")
	}
	archive := filepath.Join(dir, "python3-bookworm.tar")
	if _, err := os.Stat(archive); err != nil {
		if _, err := exec.LookPath("debootstrap"); err != nil || os.Geteuid() != 0 {
			if os.Getenv("EXECUTOR_TEST_DOCKER") == "1" {
				t.Fatalf("EXECUTOR_TEST_DOCKER=1, but there is no %s, and debootstrap, which makes it, is not here or we are not root", archive)
			}
			t.Skipf("SKIPPED, there is no %s, and debootstrap, which makes it, is not here or we are not root; EXECUTOR_TEST_DOCKER=1 makes this a failure", archive)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		makeArchive(t, archive)
	}
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	name := fmt.Sprintf("executor-test-python:%d", os.Getpid())
	answer, err := api.ImageImport(t.Context(), imageapi.ImportSource{Source: file, SourceName: "-"}, name, imageapi.ImportOptions{Changes: []string{"ENV LANG=C.UTF-8"}})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	if _, err := io.Copy(io.Discard, answer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.ImageRemove(context.Background(), name, imageapi.RemoveOptions{Force: true}) })
	return name
}

// makeArchive makes the tree and packs it.
func makeArchive(t *testing.T, archive string) {
	t.Helper()
	root, err := os.MkdirTemp("/var/tmp", "executor-test-python") // not every /tmp takes devices
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if text, err := exec.Command("debootstrap", "--variant=minbase", "--include=python3", "bookworm", root).CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %s\n%.4000s", err, text)
	}
	file, err := os.CreateTemp(filepath.Dir(archive), "new")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file.Name())
	w := tar.NewWriter(file)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return addToArchive(w, root, path, entry)
	})
	if err = errors.Join(err, w.Close(), file.Close()); err == nil {
		err = os.Rename(file.Name(), archive)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func addToArchive(w *tar.Writer, root, path string, entry fs.DirEntry) error {
	name, err := filepath.Rel(root, path)
	if err != nil || name == "." {
		return err
	}
	for _, skipped := range []string{"proc", "sys", "dev", "var/cache", "var/lib/apt", "usr/share/doc", "usr/share/locale", "usr/share/man"} {
		if name == skipped {
			return fs.SkipDir
		}
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if header.Name = name; info.IsDir() {
		header.Name += "/"
	}
	header.Uname, header.Gname = "", ""
	if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}

// TestPython: the sample tools in Python run in a container by contracts as Praxis has them.
func TestPython(t *testing.T) {
	image := pythonImage(t)
	tools, err := filepath.Abs("../../../configs/tools")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, func(c *Config) { c.MountRoots = []string{tools} })
	for name, one := range map[string]struct {
		contract string
		args     map[string]any
		stdin    string
		want     []string
	}{
		"engine_spec of dagger": {
			contract: `
name: python_data_processor
version: "1.0.0"
engine: dagger
language: python
engine_spec:
  image: "IMAGE"
  command: ["python3", "/app/tools/python_data_processor/main.py"]
  working_dir: "/app"
  timeout: 180
  mounts:
    "TOOLS": "/app/tools"
  env: {PYTHONPATH: "/app", PYTHONIOENCODING: "utf-8", PYTHONUNBUFFERED: "1"}
  env_passthrough: ["PATH", "HOME"]
parameters:
  type: object
  properties:
    operation: {type: string, enum: ["stats", "numbers", "text", "file"], default: "stats"}
    data: {type: string, default: ""}
    format: {type: string, enum: ["text", "json"], default: "text"}
  required: []
`,
			args: map[string]any{"operation": "numbers", "data": "1,2,3,4,5", "format": "json"},
			want: []string{`"mean"`, "3"},
		},
		"engineSpec of docker": {
			contract: `
name: simple_python_tool
engine: docker-sdk
params:
  - name: input_file
    type: string
    required: "true"
engineSpec:
  image: "IMAGE"
  command: ["sh", "-c", "python3 /shared/tools/simple_python_tool/main.py \"$input_file\""]
  mounts:
    TOOLS: /shared/tools
  env_passthrough: ["INPUT_FILE", "input_file"]
`,
			args: map[string]any{"input_file": "/shared/tools/simple_python_tool/sample.txt"},
			want: []string{"4", "sample.txt"},
		},
		"ours": {
			contract: `
name: text_analyzer
engine: docker
engine_spec:
  image: "IMAGE"
  command: ["python3", "main.py"]
  cwd: /tool
  mounts: {TOOLS/text_analyzer: /tool}
`,
			stdin: "to be or not to be",
			want:  []string{`"be"`, "2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := parse(t, strings.NewReplacer("IMAGE", image, "TOOLS", tools).Replace(one.contract))
			j.Args, j.Stdin = one.args, []byte(one.stdin)
			got := run(t, e, j)
			for _, part := range one.want {
				if !strings.Contains(got, part) {
					t.Errorf("%q is not in what it printed:\n%s", part, got)
				}
			}
		})
	}
}
