package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	imageapi "github.com/docker/docker/api/types/image"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// testRegistry is a registry of this process, at an address of 127.0.0.0/8, with which daemons speak without TLS.
type testRegistry struct {
	host   string
	mu     sync.Mutex
	asked  map[string]int // requests, by method and path
	gate   chan struct{}  // layers wait for it, if there is one
	user   string
	secret string
}

func newRegistry(t *testing.T, user, secret string) *testRegistry {
	t.Helper()
	r := &testRegistry{asked: map[string]int{}, user: user, secret: secret}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if name, password, ok := q.BasicAuth(); r.user != "" && (!ok || name != r.user || password != r.secret) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		r.mu.Lock()
		r.asked[q.Method+" "+q.URL.Path]++
		gate := r.gate
		r.mu.Unlock()
		if gate != nil && q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
			select {
			case <-gate:
			case <-q.Context().Done():
			}
		}
		inner.ServeHTTP(w, q)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// push puts an image with the testtool into the registry and returns its name and digest. It is removed from the daemon at the end.
func (r *testRegistry) push(t *testing.T, repository string) (image, digest string) {
	t.Helper()
	text, err := os.ReadFile(enginetest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	archive := tarOf(t, map[string][]byte{"bin/testtool": text, "unique": []byte(repository + r.host)})
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: must(img.ConfigFile()).RootFS,
		Config: v1.Config{Env: []string{"PATH=/bin", "OF_IMAGE=yes"}, WorkingDir: "/bin", Entrypoint: []string{"/bin/testtool"}}})
	if err != nil {
		t.Fatal(err)
	}
	image = r.host + "/" + repository + ":1"
	ref, err := name.ParseReference(image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	options := []remote.Option{}
	if r.user != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: r.user, Password: r.secret}))
	}
	if err := remote.Write(ref, img, options...); err != nil {
		t.Fatal(err)
	}
	sum, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	api := daemonFor(t)
	t.Cleanup(func() { api.ImageRemove(context.Background(), image, imageapi.RemoveOptions{Force: true}) })
	return image, sum.String()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// manifests is how often a manifest was asked for.
func (r *testRegistry) manifests() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for what, times := range r.asked {
		if strings.Contains(what, "/manifests/") {
			n += times
		}
	}
	return n
}

// of makes a run of the testtool in an image whose entrypoint it is.
func of(image string, script ...string) *engines.Job {
	s := specOf(contracts.CommonSpec{Command: contracts.Command{Argv: script}})
	s.Image = image
	return jobOf(s)
}

func refusedWith(t *testing.T, e *Engine, j *engines.Job, code contracts.Code, says string) {
	t.Helper()
	j.Starting = func() error { t.Error("Starting was called"); return nil }
	_, err := e.Run(t.Context(), j, io.Discard, io.Discard)
	if got := contracts.AsError(err); err == nil || got.Code != code || !strings.Contains(got.Message, says) {
		t.Errorf("Run returns %v; %s with %q is right", err, code, says)
	}
}

func TestPull(t *testing.T) {
	r := newRegistry(t, "", "")
	image, digest := r.push(t, "acme/tool")
	e := newEngine(t)
	t.Run("on demand, with progress", func(t *testing.T) {
		j := of(image, "out:pulled ", "var:OF_IMAGE", "out: ", "cwd")
		var mu sync.Mutex
		var told []string
		j.Progress = func(stage, message string, percent float64) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s: %s (%.0f)", stage, message, percent))
		}
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
		if err != nil || exit.Code != 0 || stdout.String() != "pulled yes /bin" {
			t.Fatalf("%+v, %v: %q", exit, err, stdout.String())
		}
		if exit.Stages.Pull <= 0 || exit.Stages.Create <= 0 || exit.Stages.Start <= 0 {
			t.Errorf("the stages took %+v", exit.Stages)
		}
		if len(told) < 2 || !strings.HasPrefix(told[0], "pull: "+image+": asking the registry") || !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "1 of 1 layers") }) {
			t.Errorf("it told %q", told)
		}
	})
	t.Run("missing: not again", func(t *testing.T) {
		before := r.manifests()
		run(t, e, of(image, "out:x"))
		if r.manifests() != before {
			t.Error("the registry was asked for an image that is there")
		}
	})
	t.Run("always: each time", func(t *testing.T) {
		always := newEngine(t, func(c *Config) { c.Pull = PullAlways })
		before := r.manifests()
		run(t, always, of(image, "out:x"))
		run(t, always, of(image, "out:x"))
		if n := r.manifests() - before; n < 2 {
			t.Errorf("the registry was asked %d times", n)
		}
	})
	t.Run("never", func(t *testing.T) {
		never := newEngine(t, func(c *Config) { c.Pull = PullNever })
		other, _ := r.push(t, "acme/other")
		refusedWith(t, never, of(other, "out:x"), contracts.ImageUnavailable, "execution.docker.pull")
		run(t, never, of(image, "out:x"))
	})
	t.Run("by digest", func(t *testing.T) {
		run(t, e, of(strings.TrimSuffix(image, ":1")+"@"+digest, "out:x"))
	})
	t.Run("no such image", func(t *testing.T) {
		refusedWith(t, e, of(r.host+"/acme/nothing:1", "out:x"), contracts.ImageUnavailable, "look whether name and tag are right")
	})
	t.Run("no such registry", func(t *testing.T) {
		refusedWith(t, e, of("127.0.0.1:1/acme/nothing:1", "out:x"), contracts.ImageUnavailable, "cannot reach that registry")
	})
	t.Run("another platform", func(t *testing.T) {
		j := of(image, "out:x")
		j.Spec.(*contracts.DockerSpec).Platform = "linux/arm64"
		refusedWith(t, e, j, contracts.ImageUnavailable, "")
	})
	t.Run("ahead", func(t *testing.T) {
		ahead, _ := r.push(t, "acme/ahead")
		newEngine(t, func(c *Config) { c.PrePull = []string{ahead} })
		enginetest.Eventually(t, "the image is there", func() bool {
			_, err := world.api.ImageInspect(t.Context(), ahead)
			return err == nil
		})
	})
}

func TestPullOnce(t *testing.T) {
	r := newRegistry(t, "", "")
	image, _ := r.push(t, "acme/once")
	e := newEngine(t)
	r.gate = make(chan struct{})
	before := r.manifests()
	const runs = 8
	var group sync.WaitGroup
	for i := range runs {
		group.Go(func() {
			if got := run(t, e, of(image, fmt.Sprintf("out:%d", i))); got != fmt.Sprint(i) {
				t.Errorf("run %d printed %q", i, got)
			}
		})
	}
	enginetest.Eventually(t, "all wait for the pull", func() bool {
		e.images.mu.Lock()
		defer e.images.mu.Unlock()
		for _, p := range e.images.pulls {
			return p.waiting == runs
		}
		return false
	})
	// One that is cancelled goes, and the others wait on.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := e.Run(ctx, of(image, "out:x"), io.Discard, io.Discard)
		gone <- err
	}()
	cancel()
	if err := <-gone; err != context.Canceled {
		t.Errorf("the one that was cancelled returned %v", err)
	}
	close(r.gate)
	group.Wait()
	if n := r.manifests() - before; n > 4 { // HEAD and GET, of the tag and of what it stands for
		t.Errorf("%d runs asked for the manifest %d times", runs, n)
	}
	if len(e.images.pulls) > 0 {
		t.Error("a pull is kept")
	}
}

// A pull that nobody waits for any more ends.
func TestPullGivenUp(t *testing.T) {
	r := newRegistry(t, "", "")
	image, _ := r.push(t, "acme/slow")
	e := newEngine(t)
	r.gate = make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	j := of(image, "out:x")
	begun := make(chan struct{})
	var once sync.Once
	j.Progress = func(string, string, float64) { once.Do(func() { close(begun) }) }
	gone := make(chan error)
	go func() {
		_, err := e.Run(ctx, j, io.Discard, io.Discard)
		gone <- err
	}()
	<-begun
	cancel(io.ErrClosedPipe)
	if err := <-gone; err != io.ErrClosedPipe {
		t.Errorf("Run returned %v", err)
	}
	t.Run("too slow", func(t *testing.T) {
		e := newEngine(t, func(c *Config) { c.PullTimeout = 300 * time.Millisecond })
		refusedWith(t, e, of(image, "out:x"), contracts.ImageUnavailable, "execution.docker.pull_timeout")
	})
	close(r.gate)
	run(t, e, of(image, "out:x"))
}

func TestCredentials(t *testing.T) {
	r := newRegistry(t, "robot", "s3cret")
	image, _ := r.push(t, "private/tool")
	config := func(t *testing.T, content any) string {
		dir := t.TempDir()
		text, err := json.Marshal(content)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Run("none", func(t *testing.T) {
		e := newEngine(t, func(c *Config) { c.CredentialsDir = t.TempDir() })
		refusedWith(t, e, of(image, "out:x"), contracts.ImageUnavailable, "docker login")
	})
	t.Run("wrong", func(t *testing.T) {
		e := newEngine(t, func(c *Config) {
			c.CredentialsDir = config(t, map[string]any{"auths": map[string]any{r.host: map[string]string{"auth": "cm9ib3Q6d3Jvbmc="}}})
		})
		refusedWith(t, e, of(image, "out:x"), contracts.ImageUnavailable, "docker login")
	})
	t.Run("a helper that fails", func(t *testing.T) {
		e := newEngine(t, func(c *Config) {
			c.CredentialsDir = config(t, map[string]any{"credHelpers": map[string]string{r.host: "executor-test-missing"}})
		})
		refusedWith(t, e, of(image, "out:x"), contracts.ImageUnavailable, "docker-credential-executor-test-missing")
	})
	t.Run("by a helper", func(t *testing.T) {
		bin := t.TempDir()
		script := "#!/bin/sh\necho '{\"ServerURL\":\"x\",\"Username\":\"robot\",\"Secret\":\"s3cret\"}'\n"
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-executor-test"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		e := newEngine(t, func(c *Config) {
			c.CredentialsDir = config(t, map[string]any{"credHelpers": map[string]string{r.host: "executor-test"}})
		})
		run(t, e, of(image, "out:x"))
		world.api.ImageRemove(t.Context(), image, imageapi.RemoveOptions{Force: true})
	})
	t.Run("by a helper of all registries, which leaves something behind", func(t *testing.T) {
		bin := t.TempDir()
		script := "#!/bin/sh\nread server\nsleep 20 &\necho $! > " + bin + "/pid\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"robot\\\",\\\"Secret\\\":\\\"s3cret\\\"}\"\n"
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-executor-test-store"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		e := newEngine(t, func(c *Config) {
			c.CredentialsDir = config(t, map[string]any{"credsStore": "executor-test-store"})
		})
		quick(t, "a run whose helper leaves something behind", 10*time.Second, func() { run(t, e, of(image, "out:x")) })
		world.api.ImageRemove(t.Context(), image, imageapi.RemoveOptions{Force: true})
		pid := must(strconv.Atoi(strings.TrimSpace(string(must(os.ReadFile(bin + "/pid"))))))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("what the helper left: %s", err)
		}
	})
	t.Run("a helper that hangs", func(t *testing.T) {
		bin := t.TempDir()
		script := "#!/bin/sh\necho $$ > " + bin + "/pid\nsleep 1000\n" // which it waits for
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-executor-test-hangs"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		e := newEngine(t, func(c *Config) {
			c.CallTimeout = 2 * time.Second
			c.CredentialsDir = config(t, map[string]any{"credHelpers": map[string]string{r.host: "executor-test-hangs"}})
		})
		quick(t, "a run whose helper hangs", 10*time.Second, func() {
			refusedWith(t, e, of(image, "out:x"), contracts.ImageUnavailable, "does not answer")
		})
		text, err := os.ReadFile(bin + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		pid := must(strconv.Atoi(strings.TrimSpace(string(text))))
		enginetest.Eventually(t, "nothing of the helper is left", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH && syscall.Kill(-pid, 0) == syscall.ESRCH })
	})
	t.Run("in the file", func(t *testing.T) {
		e := newEngine(t, func(c *Config) {
			c.CredentialsDir = config(t, map[string]any{"auths": map[string]any{r.host: map[string]string{"auth": "cm9ib3Q6czNjcmV0"}}})
		})
		run(t, e, of(image, "out:x"))
	})
}

func TestImagesAllowed(t *testing.T) {
	r := newRegistry(t, "", "")
	image, digest := r.push(t, "acme/allowed")
	other, _ := r.push(t, "acme/team/other")
	allow := func(patterns ...string) *Engine { return newEngine(t, func(c *Config) { c.Images = patterns }) }
	e := allow(r.host + "/acme/*")
	run(t, e, of(image, "out:x"))
	refusedWith(t, e, of(other, "out:x"), contracts.PolicyDenied, "policy.images")
	refusedWith(t, e, of(testImage, "out:x"), contracts.PolicyDenied, "policy.images")
	e = allow(digest)
	run(t, e, of(image, "out:x"))
	refusedWith(t, e, of(testImage, "out:x"), contracts.PolicyDenied, "policy.images")
	refusedWith(t, e, of(other, "out:x"), contracts.PolicyDenied, "policy.images")
	e = newEngine(t, func(c *Config) { c.Images, c.Pull = []string{digest}, PullAlways })
	run(t, e, of(image, "out:x")) // which is there
	refusedWith(t, e, of(other, "out:x"), contracts.PolicyDenied, "policy.images")
	if _, err := world.api.ImageInspect(t.Context(), other); err == nil {
		t.Error("an image was pulled that is not allowed")
	}
}
