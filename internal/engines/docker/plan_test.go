package docker

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
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
	root := hostDir(t)
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

// TestBestEffort: limits that the daemon cannot enforce are refused, or left out where the contract lets them be, which the result says.
func TestBestEffort(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	weak := func(change func(*system.Info)) {
		info, err := e.daemon.look(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		change(info)
	}
	limited := func(best bool) *engines.Job {
		return with(func(s *contracts.DockerSpec) {
			s.MemoryLimit, s.CPULimit, s.PidsLimit, s.BestEffort = 64<<20, 500, 50, best
		}, "out:x")
	}
	weak(func(i *system.Info) {
		i.MemoryLimit, i.CPUCfsQuota, i.PidsLimit, i.SwapLimit = false, false, false, false
	})
	refusedWith(t, e, limited(false), contracts.Unsupported, "best_effort")
	exit, err := e.Run(t.Context(), limited(true), io.Discard, io.Discard)
	if err != nil || exit.Code != 0 || exit.Isolation.Limits != "none" || len(exit.Notes) != 1 || !strings.Contains(exit.Notes[0], "memory_limit") || !strings.Contains(exit.Notes[0], "cpu_limit") || !strings.Contains(exit.Notes[0], "pids_limit") {
		t.Errorf("without any controller: %+v, %v", exit, err)
	}
	j := limited(true)
	j.Spec.Common().Network = "container:x" // which is no limit
	refusedWith(t, e, j, contracts.Unsupported, "that of another container")
	weak(func(i *system.Info) { i.CPUCfsQuota = false })
	h := inspected(t, e, limited(true)).HostConfig
	if h.NanoCPUs != 0 || h.Memory != 64<<20 || h.MemorySwap != 64<<20 || h.PidsLimit == nil || *h.PidsLimit != 50+boot.Threads {
		t.Errorf("without a controller for processors: %+v", h.Resources)
	}
	weak(func(i *system.Info) { i.SwapLimit = false })
	exit, err = e.Run(t.Context(), limited(false), io.Discard, io.Discard)
	if err != nil || exit.Code != 0 || len(exit.Notes) != 1 || !strings.Contains(exit.Notes[0], "swap") {
		t.Errorf("where swap cannot be limited: %+v, %v", exit, err)
	}
	weak(func(*system.Info) {})
	if exit, err = e.Run(t.Context(), limited(true), io.Discard, io.Discard); err != nil || len(exit.Notes) > 0 {
		t.Errorf("with all: %+v, %v", exit, err)
	}
}

// TestApart: under which runtimes containers may have a kernel of their own.
func TestApart(t *testing.T) {
	info := &system.Info{DefaultRuntime: "runc", Runtimes: map[string]system.RuntimeWithStatus{
		"runc": {Runtime: system.Runtime{Path: "runc"}}, "mine": {Runtime: system.Runtime{Path: "/usr/local/bin/crun"}}, "gvisor": {Runtime: system.Runtime{Path: "/usr/local/bin/runsc"}}, "vm": {Runtime: system.Runtime{Type: "io.containerd.kata.v2"}},
	}}
	for runtime, want := range map[string]bool{"": false, "runc": false, "mine": false, "gvisor": true, "vm": true, "io.containerd.runc.v2": false, "io.containerd.kata.v2": true} {
		if got := (&Engine{config: Config{Runtime: runtime}}).apart(info); got != want {
			t.Errorf("that %q is apart is %t", runtime, got)
		}
	}
}

// TestMountsApart: where the numbers of files say nothing inside, what is mounted is looked at from outside.
func TestMountsApart(t *testing.T) {
	toolIn(t)
	root := hostDir(t)
	if err := os.Mkdir(root+"/m", 0o755); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, func(c *Config) { c.MountRoots = []string{root} })
	j := parse(t, `{name: a, engine: docker, base_dir: `+root+`, engine_spec: {image: "`+testImage+`", command: [/bin/testtool, "ls:/m"], mounts: {./m: /m}}}`)
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := planned(t, e, j)
	p.apart = true
	if err := p.unchanged(); err != nil {
		t.Error(err)
	}
	if (&warm{most: Default().Warm}).serves(p) {
		t.Error("containers with mounts that nobody can tell are made ahead")
	}
	if err := os.Rename(root+"/m", root+"/was"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root+"/m", 0o755); err != nil {
		t.Fatal(err)
	}
	q, err := e.request(j, j.Spec.(*contracts.DockerSpec), p)
	if err != nil {
		t.Fatal(err)
	}
	q.Kernel = "another"
	_, used, err := e.obtain(t.Context(), j, p, q)
	used()
	if got := contracts.AsError(err); err == nil || got.Code != contracts.PolicyDenied {
		t.Errorf("a directory that was replaced is mounted: %v", err)
	}
}

// TestPlatformOfMany: where a name stands for the images of several platforms, the daemon is told which.
func TestPlatformOfMany(t *testing.T) {
	var asked []string
	api := platformAPI
	daemonOf := func(driver string) *daemon {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Api-Version", api)
			asked = append(asked, q.URL.Query().Get("platform"))
			switch {
			case strings.HasSuffix(q.URL.Path, "/containers/create"):
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, `{"Id":"made"}`)
			case q.URL.Query().Has("platform"):
				io.WriteString(w, `{"Id":"sha256:1","Os":"linux","Architecture":"arm64","Variant":"v8"}`)
			default:
				io.WriteString(w, `{"Id":"sha256:1","Os":"linux","Architecture":"amd64"}`)
			}
		}))
		t.Cleanup(server.Close)
		d, err := connect(Config{Host: "tcp://" + server.Listener.Addr().String(), CallTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		d.info = &system.Info{DriverStatus: [][2]string{{"driver-type", driver}}}
		d.NegotiateAPIVersion(t.Context())
		asked = nil
		return d
	}
	named := must(engines.ImageName("python"))
	many := daemonOf("io.containerd.snapshotter.v1")
	if _, _, err := newImages(many, Config{}).inspect(t.Context(), named, "linux/arm64", true); err != nil || len(asked) != 1 || asked[0] != `{"architecture":"arm64","os":"linux"}` {
		t.Errorf("%q, %v", asked, err)
	}
	e := &Engine{daemon: many, graves: newGraves(many, zerolog.Nop())}
	if id, err := e.make(t.Context(), &container.Config{}, &container.HostConfig{}, variant(many.info, "linux/arm64/v8"), "name"); err != nil || id != "made" || asked[len(asked)-1] != "linux/arm64/v8" {
		t.Errorf("%q, %q, %v", id, asked, err)
	}
	if got := variant(many.info, ""); got != nil {
		t.Errorf("without a platform it is told of %v", got)
	}
	one := daemonOf("overlay2")
	if _, _, err := newImages(one, Config{}).inspect(t.Context(), named, "linux/arm64", true); !cerrdefs.IsNotFound(err) || len(asked) != 1 || asked[0] != "" {
		t.Errorf("%q, %v", asked, err)
	}
	api = "1.48" // does not show any but its own
	old := newImages(daemonOf("io.containerd.snapshotter.v1"), Config{})
	if _, _, err := old.inspect(t.Context(), named, "linux/arm64", false); !cerrdefs.IsNotFound(err) {
		t.Errorf("before it was pulled: %v", err)
	}
	if _, _, err := old.inspect(t.Context(), named, "linux/arm64", true); err != nil || slices.Contains(asked, "linux/arm64") {
		t.Errorf("after it was pulled: %q, %v", asked, err)
	}
}

// TestSamePlatform: platforms have several names.
func TestSamePlatform(t *testing.T) {
	for _, c := range []struct {
		wanted, architecture, variant string
		same                          bool
	}{
		{"linux/amd64", "amd64", "", true}, {"linux/x86_64", "amd64", "", true}, {"linux/aarch64", "arm64", "", true}, {"linux/arm64/v8", "arm64", "", true}, {"linux/arm64/v8", "arm64", "v8", true},
		{"linux/arm64", "arm64", "v8", true}, {"linux/arm", "arm", "v6", true}, {"linux/arm/v7", "arm", "v7", true}, {"linux/arm/v7", "arm", "", true},
		{"linux/arm/v7", "arm", "v6", false}, {"linux/arm64", "amd64", "", false}, {"linux/arm64/v9", "arm64", "", false}, {"windows/amd64", "amd64", "", false},
	} {
		if got := samePlatform(c.wanted, "linux", c.architecture, c.variant); got != c.same {
			t.Errorf("that an image for linux/%s, variant %q, is one for %s is %t", c.architecture, c.variant, c.wanted, got)
		}
	}
}

// TestAsked: what the daemon is asked for with graphics processors and another runtime.
func TestAsked(t *testing.T) {
	var asked struct{ HostConfig container.HostConfig }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Api-Version", oldestAPI)
		if strings.HasSuffix(q.URL.Path, "/containers/create") {
			asked.HostConfig = container.HostConfig{}
			if err := json.NewDecoder(q.Body).Decode(&asked); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"Id":"made"}`)
		}
	}))
	defer server.Close()
	d, err := connect(Config{Host: "tcp://" + server.Listener.Addr().String(), CallTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	e := &Engine{daemon: d, config: Default(), graves: newGraves(d, zerolog.Nop())}
	e.config.Runtime = "runsc"
	info := &system.Info{Runtimes: map[string]system.RuntimeWithStatus{"runsc": {}, "nvidia": {}}}
	ask := func(gpus contracts.GPUs) container.HostConfig {
		j := with(func(s *contracts.DockerSpec) { s.GPUs = gpus }, "out:x")
		spec := j.Spec.(*contracts.DockerSpec)
		if err := e.refuse(spec, info); err != nil {
			t.Error(err)
		}
		p, err := e.plan(j, spec, &image{id: "sha256:1"}, info)
		if err != nil {
			t.Fatal(err)
		}
		if (&warm{most: Default().Warm}).serves(p) != (gpus == "") {
			t.Errorf("with gpus %q it is wrong whether it is made ahead", gpus)
		}
		if _, err := e.make(t.Context(), &p.config, &p.host, p.platform, "name"); err != nil {
			t.Fatal(err)
		}
		return asked.HostConfig
	}
	if got := ask(""); got.Runtime != "runsc" || len(got.DeviceRequests) > 0 {
		t.Errorf("without graphics processors: %+v", got)
	}
	for gpus, want := range map[contracts.GPUs]container.DeviceRequest{"all": {Count: -1}, "2": {Count: 2}, "GPU-1,GPU-2": {DeviceIDs: []string{"GPU-1", "GPU-2"}}} {
		got := ask(gpus).DeviceRequests
		if len(got) != 1 || got[0].Count != want.Count || !slices.Equal(got[0].DeviceIDs, want.DeviceIDs) || len(got[0].Capabilities) != 1 || !slices.Equal(got[0].Capabilities[0], []string{"gpu"}) {
			t.Errorf("with gpus %q: %+v", gpus, got)
		}
	}
	delete(info.Runtimes, "nvidia")
	if got := contracts.AsError(e.refuse(with(func(s *contracts.DockerSpec) { s.GPUs = "all" }).Spec.(*contracts.DockerSpec), info)); got == nil || got.Code != contracts.Unsupported {
		t.Errorf("of a daemon without any: %v", got)
	}
}

// TestExamine: the engine is looked at by a run, which needs nothing that the operator allows or has.
func TestExamine(t *testing.T) {
	toolIn(t)
	e := newEngine(t, func(c *Config) { c.Images, c.Pull = []string{"nothing"}, PullAlways })
	found, err := e.Examine(t.Context())
	if err != nil || found.Exit.Code != 0 || found.Exit.Signal != "" || !strings.HasPrefix(found.About, "Docker ") || !strings.Contains(found.About, " at "+e.daemon.host) {
		t.Errorf("%+v, %v", found, err)
	}
	lost := newEngine(t, func(c *Config) { c.Host = "unix:///nowhere/docker.sock" })
	if _, err := lost.Examine(t.Context()); err == nil {
		t.Error("a daemon that is not there is well")
	}
}

// TestLacks: what a daemon is, and what it cannot enforce.
func TestLacks(t *testing.T) {
	d, err := connect(Config{Host: "unix:///nowhere/docker.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	e := &Engine{daemon: d}
	full := system.Info{ServerVersion: "28.5.2", DefaultRuntime: "runc", CgroupVersion: "2", MemoryLimit: true, SwapLimit: true, CPUCfsQuota: true, PidsLimit: true, SecurityOptions: []string{"name=seccomp,profile=builtin", "name=rootless"}}
	if got := e.about(&full); !strings.HasPrefix(got, "Docker 28.5.2 at unix:///nowhere/docker.sock, API ") || !strings.HasSuffix(got, ", cgroup v2, runtime runc, seccomp, rootless") {
		t.Errorf("it is %q", got)
	}
	if got := e.lacks(&full); len(got) > 0 {
		t.Errorf("of nothing it lacks %q", got)
	}
	for says, change := range map[string]func(*system.Info){
		"memory_limit is refused":            func(i *system.Info) { i.MemoryLimit, i.SwapLimit = false, false },
		"may use swap":                       func(i *system.Info) { i.SwapLimit = false },
		"cpu_limit is refused":               func(i *system.Info) { i.CPUCfsQuota = false },
		"pids_limit is refused":              func(i *system.Info) { i.PidsLimit = false },
		"system calls are not filtered":      func(i *system.Info) { i.SecurityOptions = []string{"name=rootless"} },
		"system calls are not filtered: the": func(i *system.Info) { i.SecurityOptions = []string{"name=seccomp,profile=unconfined"} },
		"mounts are refused":                 func(*system.Info) { d.local = false },
	} {
		info := full
		change(&info)
		if got := e.lacks(&info); len(got) != 1 || !strings.Contains(got[0].What, says) || got[0].Mend == "" || strings.Contains(says, "pids_limit") && !strings.Contains(got[0].Mend, "rootless") {
			t.Errorf("where %q is right, it lacks %q", says, got)
		}
		d.local = true
	}
}
