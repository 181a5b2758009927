package docker

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	imageapi "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// testImage holds nothing but the testtool and a directory. Each process has its own.
var testImage = cmp.Or(os.Getenv(asImage), fmt.Sprintf("executor-test-tool:%d", os.Getpid()))

// asImage tells a helper which image it is to use.
const asImage = "EXECUTOR_TEST_DOCKER_IMAGE"

// world is what all tests share: the program that containers start with, and an image.
var world struct {
	once    sync.Once
	why     string // there is no daemon
	err     error
	dir     string
	program string
	api     *client.Client
}

// daemonFor returns a client of the daemon, after the images of tests were made on it. A test without a daemon is skipped, unless
// EXECUTOR_TEST_DOCKER=1 says that there has to be one.
func daemonFor(tb testing.TB) *client.Client {
	tb.Helper()
	world.once.Do(makeWorld)
	if world.why != "" {
		if os.Getenv("EXECUTOR_TEST_DOCKER") == "1" {
			tb.Fatalf("EXECUTOR_TEST_DOCKER=1, but %s", world.why)
		}
		tb.Skipf("SKIPPED, %s; EXECUTOR_TEST_DOCKER=1 makes this a failure", world.why)
	}
	if world.err != nil {
		tb.Fatal(world.err)
	}
	return world.api
}

func makeWorld() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if world.api, world.err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); world.err != nil {
		return
	}
	if _, err := world.api.Ping(ctx); err != nil {
		world.why = "no Docker daemon answers: " + err.Error()
		return
	}
	if world.dir, world.err = os.MkdirTemp("", "executor-docker-test"); world.err != nil {
		return
	}
	world.program = filepath.Join(world.dir, "executor")
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", world.program, "github.com/praxis-sdk/executor/cmd/executor")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		world.err = fmt.Errorf("build the program that containers start with: %w\n%s", err, text)
	}
}

func removeWorld() {
	if world.dir != "" {
		os.RemoveAll(world.dir)
	}
	if world.api != nil {
		if world.why == "" {
			world.api.ImageRemove(context.Background(), testImage, imageapi.RemoveOptions{Force: true})
		}
		world.api.Close()
	}
}

var toolImage struct {
	once sync.Once
	err  error
}

// toolIn makes the image that has the testtool, once.
func toolIn(tb testing.TB) {
	tb.Helper()
	api := daemonFor(tb)
	file := enginetest.Build(tb)
	toolImage.once.Do(func() {
		text, err := os.ReadFile(file)
		if err == nil {
			err = importImage(tb.Context(), api, testImage, map[string][]byte{"bin/testtool": text, "data/readme": []byte("text of the image\n")})
		}
		toolImage.err = err
	})
	if toolImage.err != nil {
		tb.Fatalf("make the image of the testtool: %s", toolImage.err)
	}
}

// importImage makes an image of files, all of which are programs; one that is called "name -> place" is a link.
func importImage(ctx context.Context, api *client.Client, name string, files map[string][]byte, changes ...string) error {
	archive, err := tarText(files)
	if err != nil {
		return err
	}
	answer, err := api.ImageImport(ctx, imageapi.ImportSource{Source: bytes.NewReader(archive), SourceName: "-"}, name, imageapi.ImportOptions{Changes: changes})
	if err != nil {
		return err
	}
	defer answer.Close()
	_, err = io.Copy(io.Discard, answer)
	return err
}

func tarOf(tb testing.TB, files map[string][]byte) []byte {
	tb.Helper()
	text, err := tarText(files)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func tarText(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range files {
		head := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(text))}
		if name, to, is := strings.Cut(path, " -> "); is {
			head = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
		}
		if err := w.WriteHeader(head); err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// newEngine makes an engine which ends with the test, and leaves nothing then.
func newEngine(tb testing.TB, change ...func(*Config)) *Engine {
	tb.Helper()
	api := daemonFor(tb)
	config := Default()
	config.Program, config.KillGrace = world.program, 300*time.Millisecond
	config.Warm = Warm{}
	for _, c := range change {
		c(&config)
	}
	e, err := New(config, zerolog.New(zerolog.NewTestWriter(tb)).Level(zerolog.WarnLevel))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		e.Close()
		if left := leftOf(api, e.name); len(left) > 0 {
			tb.Errorf("after Close there are still %q", left)
		}
	})
	return e
}

// leftOf lists containers, volumes and networks of an engine on the daemon.
func leftOf(api *client.Client, owner string) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	mine := filters.NewArgs(filters.Arg("label", labelOwner+"="+owner))
	list, err := api.ContainerList(ctx, container.ListOptions{All: true, Filters: mine})
	if err != nil {
		return []string{err.Error()}
	}
	for _, c := range list {
		left = append(left, fmt.Sprintf("container %s (%s, %s)", strings.Join(c.Names, " "), c.State, c.Labels[labelRole]))
	}
	volumes, err := api.VolumeList(ctx, volume.ListOptions{Filters: mine})
	if err != nil {
		return []string{err.Error()}
	}
	for _, v := range volumes.Volumes {
		left = append(left, "volume "+v.Name)
	}
	return left
}

// left lists what runs of an engine left: all of its containers but the current anchor and those that wait for a run.
func left(e *Engine) (found []string) {
	e.graves.wait()
	e.anchor.mu.Lock()
	current := e.anchor.called
	e.anchor.mu.Unlock()
	for _, one := range leftOf(world.api, e.name) {
		if (current == "" || !strings.HasPrefix(one, "container /"+current+" ")) && !strings.Contains(one, roleWarm) {
			found = append(found, one)
		}
	}
	return found
}

func specOf(common contracts.CommonSpec) *contracts.DockerSpec {
	return &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: common, Image: testImage}}
}

// jobOf makes a run of a spec.
func jobOf(spec *contracts.DockerSpec) *engines.Job {
	c := &contracts.Contract{Name: "tool", Engine: contracts.EngineDocker, Spec: spec}
	return &engines.Job{ID: "id", Attempt: 1, Contract: c, Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

// tool makes a run of the testtool.
func tool(script ...string) *engines.Job {
	return jobOf(specOf(contracts.CommonSpec{Command: contracts.Command{Argv: append([]string{"/bin/testtool"}, script...)}}))
}

// run runs a job to its end, which must be an exit with 0, and returns what it printed.
func run(tb testing.TB, e *Engine, j *engines.Job) string {
	tb.Helper()
	var stdout, stderr strings.Builder
	exit, err := e.Run(tb.Context(), j, &stdout, &stderr)
	if err != nil || exit.Code != 0 || exit.Signal != "" {
		tb.Fatalf("the tool ended with code %d, signal %q, error %v; stderr: %s", exit.Code, exit.Signal, err, stderr.String())
	}
	return stdout.String()
}

func removeImages(api *client.Client, name string) {
	api.ImageRemove(context.Background(), name, imageapi.RemoveOptions{Force: true})
}

// hostDir is an empty directory for mounts, its path without links, into which the users of containers can look.
func hostDir(t testing.TB) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(root), root} {
		os.Chmod(dir, 0o755)
	}
	return root
}

// planned is the plan of a job on the image of tests, which makes nothing yet.
func planned(t *testing.T, e *Engine, j *engines.Job) *plan {
	t.Helper()
	info, err := e.daemon.look(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	img, _, err := e.images.get(t.Context(), testImage, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.plan(j, j.Spec.(*contracts.DockerSpec), img, info)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
