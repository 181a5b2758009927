package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// with makes a run of the testtool with a spec that was changed.
func with(change func(*contracts.DockerSpec), script ...string) *engines.Job {
	j := tool(script...)
	change(j.Spec.(*contracts.DockerSpec))
	return j
}

// parse makes a run of a contract as it is written.
func parse(t *testing.T, text string) *engines.Job {
	t.Helper()
	list, err := contracts.ParseContracts("contract.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	list[0].File = "contract.yaml"
	spec := list[0].SpecFor(contracts.EngineDocker)
	return &engines.Job{ID: "id", Attempt: 1, Contract: list[0], Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

// inspected is what the daemon says about the container of a run that waits.
func inspected(t *testing.T, e *Engine, j *engines.Job) container.InspectResponse {
	t.Helper()
	e.graves.wait() // the container of a run before it may be there still
	var found container.InspectResponse
	j.Starting = func() error {
		list, err := world.api.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+e.name), filters.Arg("label", labelRole+"="+roleRun))})
		if err != nil || len(list) != 1 {
			t.Errorf("%d containers, %v", len(list), err)
			return nil
		}
		found, err = world.api.ContainerInspect(t.Context(), list[0].ID)
		return err
	}
	if exit, err := e.Run(t.Context(), j, io.Discard, io.Discard); err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
	return found
}

// TestHardened: what a container has that a contract asks nothing special of, as the daemon says and as the tool sees it.
func TestHardened(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	j := tool("out:x")
	j.ID = "run-17"
	c := inspected(t, e, j)
	h := c.HostConfig
	if !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges") || !h.ReadonlyRootfs || h.Privileged || h.PidsLimit == nil || *h.PidsLimit != 1024+boot.Threads ||
		h.LogConfig.Type != "none" || !h.AutoRemove || !c.Config.NetworkDisabled || len(c.NetworkSettings.Networks) > 0 && c.NetworkSettings.Networks["none"] == nil || c.Config.User != "65534:65534" || len(h.CapAdd) > 0 || len(h.Binds) > 0 {
		t.Errorf("the container has %+v", h)
	}
	for label, want := range map[string]string{labelManaged: "true", labelOwner: e.name, labelRun: "run-17", labelTool: "tool", labelRole: roleRun} {
		if got := c.Config.Labels[label]; got != want {
			t.Errorf("the label %s is %q, %q is right", label, got, want)
		}
	}
	if strings.Contains(strings.Join(c.Config.Env, " ")+strings.Join(c.Args, " "), "out:x") {
		t.Error("what the run is to do can be read from its container")
	}
	status := run(t, e, tool("read:/proc/self/status"))
	for _, line := range []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, line) {
			t.Errorf("the tool has not %q:\n%s", line, status)
		}
	}
	if links := run(t, e, tool("ls:/sys/class/net")); strings.TrimSpace(links) != "lo" {
		t.Errorf("the tool has the networks %q", links)
	}
	for _, place := range []string{"/", "/bin", "/data", "/.executor", "/etc"} {
		exit, err := e.Run(t.Context(), tool("write:"+place+"/x:y"), io.Discard, io.Discard)
		if err != nil || exit.Code == 0 {
			t.Errorf("the tool can write to %s (%+v, %v)", place, exit, err)
		}
	}
	// The first process, which has the tool's user, keeps what it knows.
	for _, file := range []string{"/proc/1/environ", "/proc/1/mem", "/proc/1/fd/0", "/proc/1/maps"} {
		exit, err := e.Run(t.Context(), tool("read:"+file), io.Discard, io.Discard)
		if err != nil || exit.Code == 0 {
			t.Errorf("the tool can read %s (%+v, %v)", file, exit, err)
		}
	}
	exit, err := e.Run(t.Context(), tool("kill:parent:KILL", "kill:parent:STOP", "out:x"), io.Discard, io.Discard)
	if err != nil || exit.Code != 0 {
		t.Errorf("a tool that kills its parent ends with %+v, %v", exit, err)
	}
}

func TestSpec(t *testing.T) {
	toolIn(t)
	daemonFor(t)
	const image = "executor-test-spec:latest"
	text, err := os.ReadFile(enginetest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := importImage(t.Context(), world.api, image, map[string][]byte{"opt/testtool": text, "opt/app/file": nil, "etc/passwd": []byte("root:x:0:0::/:\nsomebody:x:1234:1234::/:\n"), "etc/group": []byte("root:x:0:\n")},
		"ENV PATH=/opt", "ENV OF_IMAGE=yes", "ENV LANG=de_DE.UTF-8", "WORKDIR /opt/app", "USER somebody", `ENTRYPOINT ["/opt/testtool"]`, "HEALTHCHECK --interval=1s CMD /opt/testtool exit:1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(image) })
	e := newEngine(t, func(c *Config) { c.Env = map[string]string{"OF_OPERATOR": "1", "OF_IMAGE_TOO": "1"} })
	in := func(change func(*contracts.DockerSpec), script ...string) *engines.Job {
		j := of(image, script...)
		if change != nil {
			change(j.Spec.(*contracts.DockerSpec))
		}
		return j
	}
	gives := func(t *testing.T, j *engines.Job, want string) {
		t.Helper()
		if got := run(t, e, j); got != want {
			t.Errorf("it printed %q; %q is right", got, want)
		}
	}
	t.Run("entrypoint of the image", func(t *testing.T) { gives(t, in(nil, "out:x"), "x") })
	t.Run("entrypoint of the contract", func(t *testing.T) {
		gives(t, in(func(s *contracts.DockerSpec) { s.Entrypoint = contracts.Entrypoint{"testtool", "out:a "} }, "out:b"), "a b")
	})
	t.Run("no entrypoint", func(t *testing.T) {
		gives(t, in(func(s *contracts.DockerSpec) { s.Entrypoint = contracts.Entrypoint{} }, "testtool", "out:x"), "x")
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.Entrypoint = contracts.Entrypoint{} }, "out:x"), contracts.SpawnFailed, "no program")
	})
	t.Run("directory and variables of the image", func(t *testing.T) {
		gives(t, in(nil, "cwd", "out: ", "var:PATH", "out: ", "var:OF_IMAGE", "out: ", "var:LANG", "out: ", "var:OF_OPERATOR", "out: ", "var:HOME", "out: ", "var:TMPDIR"),
			"/opt/app /opt yes de_DE.UTF-8 1 /work /tmp")
	})
	t.Run("relative cwd", func(t *testing.T) {
		gives(t, in(func(s *contracts.DockerSpec) { s.Cwd = ".." }, "cwd"), "/opt")
	})
	t.Run("user of the image", func(t *testing.T) {
		if got := run(t, e, in(nil, "read:/proc/self/status")); !strings.Contains(got, "Uid:\t1234\t") {
			t.Error(got)
		}
		gives(t, in(nil, "write:$HOME/x:y", "read:$HOME/x"), "y")
	})
	t.Run("user of the contract", func(t *testing.T) {
		if got := run(t, e, in(func(s *contracts.DockerSpec) { s.User = "4321:99" }, "read:/proc/self/status")); !strings.Contains(got, "Uid:\t4321\t") || !strings.Contains(got, "Gid:\t99\t") {
			t.Error(got)
		}
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.User = "stranger" }, "out:x"), contracts.SpawnFailed, "no such user")
	})
	t.Run("root", func(t *testing.T) {
		for _, user := range []string{"root", "0", "0:0", "00"} {
			refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.User = user }, "out:x"), contracts.PolicyDenied, "policy.root")
		}
		allowed := newEngine(t, func(c *Config) { c.Root = true })
		if got := run(t, allowed, in(func(s *contracts.DockerSpec) { s.User = "root" }, "read:/proc/self/status")); !strings.Contains(got, "Uid:\t0\t") || !strings.Contains(got, "CapEff:\t0000000000000000") {
			t.Error(got)
		}
	})
	t.Run("privileged", func(t *testing.T) {
		j := in(func(s *contracts.DockerSpec) { s.Privileged = true }, "read:/proc/self/status")
		var status strings.Builder
		exit, err := e.Run(t.Context(), j, &status, io.Discard)
		// A daemon that has not all rights itself cannot give them away.
		made := must(world.api.ContainerCreate(t.Context(), &container.Config{Image: testImage, Cmd: []string{"/bin/testtool"}, Labels: e.labels(roleRun, e.now())}, &container.HostConfig{Privileged: true}, nil, nil, ""))
		bare := world.api.ContainerStart(t.Context(), made.ID, container.StartOptions{})
		e.graves.bury(made.ID, false)
		switch {
		case bare != nil && (err == nil || !strings.Contains(err.Error(), "unable to apply caps")):
			t.Errorf("the daemon says %v, the engine %+v, %v", bare, exit, err)
		case bare == nil && (err != nil || !strings.Contains(status.String(), "Uid:\t0\t") || strings.Contains(status.String(), "CapEff:\t0000000000000000")):
			t.Errorf("%+v, %v: %s", exit, err, status.String())
		}
	})
	t.Run("a root that can be written", func(t *testing.T) {
		write := false
		gives(t, in(func(s *contracts.DockerSpec) { s.ReadOnly = &write; s.User = "1234" }, "write:/opt/app/../../work/x:y", "out:x"), "x")
		got := inspected(t, e, in(func(s *contracts.DockerSpec) { s.ReadOnly = &write }, "out:x"))
		if got.HostConfig.ReadonlyRootfs {
			t.Error("the root is read-only")
		}
		if h := got.Config.Healthcheck; h == nil || !slices.Equal(h.Test, []string{"NONE"}) {
			t.Errorf("the health check of the image runs: %+v", h)
		}
	})
	t.Run("limits, tmpfs, shm, ulimits", func(t *testing.T) {
		j := parse(t, `{name: a, engine: docker, engine_spec: {image: `+image+`, command: ["read:/proc/self/limits", "out:|", "read:/proc/self/mounts"], memory_limit: 64Mi, cpu_limit: 1500m, pids_limit: 77,
			tmpfs: {/var/cache: 3Mi}, shm_size: 5Mi, ulimits: {nofile: "99:111", core: 0}}}`)
		c := inspected(t, e, j)
		h := c.HostConfig
		if h.Memory != 64<<20 || h.MemorySwap != 64<<20 || h.NanoCPUs != 1_500_000_000 || *h.PidsLimit != 77+boot.Threads || h.ShmSize != 5<<20 || len(h.Ulimits) != 2 {
			t.Errorf("%+v", h.Resources)
		}
		got := run(t, e, j)
		limits, mounts, _ := strings.Cut(got, "|")
		if !strings.Contains(limits, " 111                  files") {
			t.Error(limits)
		}
		for _, mount := range []string{"/var/cache tmpfs rw,nosuid,nodev,relatime,size=3072k", "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=5120k", "/work tmpfs rw,nosuid,nodev,relatime,size=1048576k,mode=700"} {
			if !strings.Contains(mounts, mount) && mount[1] != 'w' {
				t.Errorf("%q is not among\n%s", mount, mounts)
			}
		}
	})
	t.Run("a limit that the daemon refuses", func(t *testing.T) {
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.MemoryLimit = 1 << 20 }, "out:x"), contracts.Unsupported, "memory")
	})
	t.Run("limits with which nothing starts", func(t *testing.T) {
		for says, limits := range map[string]contracts.Ulimits{"rlimit": {"nofile": {Soft: 1 << 40, Hard: 1 << 40}}, "nproc": {"nproc": {}}, "open files": {"nofile": {Soft: 1, Hard: 1}}} {
			refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.Ulimits = limits }, "out:x"), contracts.Unsupported, says)
		}
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.CPULimit = 1 }, "out:x"), contracts.Unsupported, "cpu_limit")
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.User = "99999999999" }, "out:x"), contracts.SpawnFailed, "in range")
	})
	t.Run("a network that is not there", func(t *testing.T) {
		refusedWith(t, e, in(func(s *contracts.DockerSpec) { s.Network = "executor-test-nowhere" }, "out:x"), contracts.Unsupported, "docker network create")
	})
	t.Run("a network by its name", func(t *testing.T) {
		name := fmt.Sprintf("executor-test-%d", os.Getpid())
		if _, err := world.api.NetworkCreate(t.Context(), name, network.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			e.graves.wait()
			if err := world.api.NetworkRemove(context.Background(), name); err != nil {
				t.Error(err)
			}
		})
		j := in(func(s *contracts.DockerSpec) { s.Network = name }, "out:x")
		if c := inspected(t, e, j); c.NetworkSettings.Networks[name] == nil || len(c.NetworkSettings.Networks) != 1 {
			t.Errorf("the container has the networks %+v", c.NetworkSettings.Networks)
		}
		var links strings.Builder
		exit, err := e.Run(t.Context(), in(func(s *contracts.DockerSpec) { s.Network = name }, "ls:/sys/class/net"), &links, io.Discard)
		if err != nil || exit.Code != 0 || exit.Isolation.Network != name || !strings.Contains(links.String(), "eth0") {
			t.Errorf("%+v, %v: %q", exit, err, links.String())
		}
	})
	t.Run("bridge", func(t *testing.T) {
		exit, err := e.Run(t.Context(), in(func(s *contracts.DockerSpec) { s.Network = "bridge" }, "ls:/sys/class/net"), io.Discard, io.Discard)
		if err != nil || exit.Code != 0 || exit.Isolation.Network != "bridge" {
			t.Errorf("%+v, %v", exit, err)
		}
		if got := run(t, e, in(func(s *contracts.DockerSpec) { s.Network = "bridge" }, "ls:/sys/class/net")); !strings.Contains(got, "eth0") {
			t.Errorf("networks: %q", got)
		}
	})
	t.Run("output that is not captured", func(t *testing.T) {
		no := false
		var printed strings.Builder
		if _, err := e.Run(t.Context(), in(func(s *contracts.DockerSpec) { s.CaptureOutput = &no }, "out:"), &printed, &printed); err != nil || printed.Len() > 0 {
			t.Error(err, printed.String())
		}
	})
}

// TestVolumesOfImage: where an image wants volumes there is memory, with a bound, and no volume is left.
func TestVolumesOfImage(t *testing.T) {
	toolIn(t)
	const image, cache = "executor-test-volumes:latest", "executor-test.volumes"
	if err := importImage(t.Context(), world.api, image, map[string][]byte{"bin/testtool": must(os.ReadFile(enginetest.Build(t))), "data/file": []byte("of the image")},
		"VOLUME /data", "VOLUME /cached", "VOLUME /work", "VOLUME /mine", `ENTRYPOINT ["/bin/testtool"]`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(image) })
	e := newEngine(t, func(c *Config) { c.TempSize = 3 << 20 })
	t.Cleanup(func() {
		e.graves.wait()
		if err := world.api.VolumeRemove(context.Background(), cacheVolume(cache), false); err != nil {
			t.Error(err)
		}
	})
	job := func(script ...string) *engines.Job {
		j := of(image, script...)
		spec := j.Spec.(*contracts.DockerSpec)
		spec.CacheMounts, spec.Tmpfs = contracts.CacheMounts{{Name: cache, Path: "/cached"}}, contracts.Tmpfs{"/mine": 5 << 20}
		return j
	}
	mounts := run(t, e, job("write:/data/x:y", "ls:/data", "read:/proc/self/mounts"))
	if !strings.HasPrefix(mounts, "x\n") {
		t.Errorf("in the directory in memory there is %q", mounts)
	}
	for at, want := range map[string]string{"/data": "size=3072k", "/mine": "size=5120k", "/work": "size=1048576k"} {
		_, line, _ := strings.Cut(mounts, " "+at+" ")
		if line, _, _ = strings.Cut(line, "\n"); !strings.HasPrefix(line, "tmpfs rw,") || !strings.Contains(line, want) {
			t.Errorf("at %s there is %q", at, line)
		}
	}
	var volumes []string
	for _, m := range inspected(t, e, job("out:x")).Mounts {
		if m.Destination == "/cached" && m.Name != cacheVolume(cache) {
			t.Errorf("where the contract has a cache there is %s", m.Name)
		}
		if m.Destination != "/cached" && m.Destination != boot.Dir {
			volumes = append(volumes, m.Name)
		}
	}
	e.graves.wait()
	for _, name := range volumes { // what the daemon makes for nothing
		enginetest.Eventually(t, "the volume is gone", func() bool {
			_, err := world.api.VolumeInspect(t.Context(), name)
			return err != nil
		})
	}
}

func removeImage(name string) {
	removeImages(world.api, name)
}

func TestLimits(t *testing.T) {
	toolIn(t)
	for name, change := range map[string]func(*Config){"on demand": func(*Config) {}, "made ahead": func(c *Config) { c.Warm = Default().Warm }} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, change)
			for range 3 { // the third of those made ahead is
				exit, err := e.Run(t.Context(), with(func(s *contracts.DockerSpec) { s.MemoryLimit = 48 << 20 }, "eat:200M", "out:ate"), io.Discard, io.Discard)
				if err != nil || !exit.OOMKilled || exit.Signal != "SIGKILL" || exit.Isolation.Limits != "cgroup" {
					t.Errorf("a tool that eats too much ends with %+v, %v", exit, err)
				}
				exit, err = e.Run(t.Context(), with(func(s *contracts.DockerSpec) { s.MemoryLimit = 48 << 20 }, "child:1", "eat:200M"), io.Discard, io.Discard)
				if err != nil || !exit.OOMKilled {
					t.Errorf("one whose child does ends with %+v, %v", exit, err)
				}
				exit, err = e.Run(t.Context(), with(func(s *contracts.DockerSpec) { s.PidsLimit = 20 }, many("background:1", "block")...), io.Discard, io.Discard)
				if err != nil || exit.Code == 0 {
					t.Errorf("a fork bomb ends with %+v, %v", exit, err)
				}
				exit, err = e.Run(t.Context(), tool("eat:64M", "burn:200ms"), io.Discard, io.Discard)
				if err != nil || exit.OOMKilled || exit.Usage.CPUMS < 150 || exit.Usage.MaxRSSBytes < 64<<20 || exit.Usage.MaxRSSBytes > 256<<20 {
					t.Errorf("usage: %+v, %v", exit, err)
				}
				if e.warm.most.Each > 0 {
					awaitWarm(t, e)
				}
			}
		})
	}
}

// TestOutOfMemoryOfRemoved: the daemon may have removed a container before it is asked why that ended.
func TestOutOfMemoryOfRemoved(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	for script, c := range map[string]struct {
		want bool
		code string
	}{"eat:200M": {true, "137"}, "kill:self:KILL": {false, "65"}, "block": {false, "137"}, "background:1 eat:200M wait": {false, "65"}} {
		made := must(world.api.ContainerCreate(t.Context(), &container.Config{Image: testImage, Cmd: append([]string{"/bin/testtool"}, strings.Fields(script)...), Labels: e.labels(roleRun, e.now())},
			&container.HostConfig{NetworkMode: "none", AutoRemove: true, Resources: container.Resources{Memory: 32 << 20, MemorySwap: 32 << 20}}, nil, nil, ""))
		gone, failed := world.api.ContainerWait(t.Context(), made.ID, container.WaitConditionRemoved)
		if err := world.api.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		if script == "block" { // the first process of a container cannot kill itself
			if err := world.api.ContainerKill(t.Context(), made.ID, "KILL"); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-gone:
		case err := <-failed:
			t.Fatal(err)
		}
		b := &box{daemon: e.daemon, id: made.ID}
		got, state := b.outOfMemory(t.Context(), true)
		if got != c.want || !strings.HasSuffix(state, "exit code "+c.code) {
			t.Errorf("that %s ended for lack of memory is %t; %q", script, got, state)
		}
	}
}

// TestKilledByDaemon: that a tool was lost says how its container ended.
func TestKilledByDaemon(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	j := tool("block")
	j.Starting = func() error {
		list, err := world.api.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+e.name), filters.Arg("label", labelRole+"="+roleRun))})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d containers, %v", len(list), err)
		}
		return world.api.ContainerKill(t.Context(), list[0].ID, "KILL")
	}
	if exit, err := e.Run(t.Context(), j, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "lost the tool") || !strings.Contains(err.Error(), "exit code 137") {
		t.Errorf("it returned %+v, %v", exit, err)
	}
}

func many(script ...string) (all []string) {
	for range 40 {
		all = append(all, script...)
	}
	return all
}

// A tool may leave its streams full, and as ones that do not wait (O_NONBLOCK): how it ended arrives all the same.
func TestEndBehindFullStreams(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var opened time.Time
	slow := writer(func(p []byte) (int, error) {
		time.Sleep(time.Until(opened))
		return len(p), nil
	})
	j := tool("choke", "exit:7")
	j.Starting = func() error { opened = time.Now().Add(4 * time.Second); return nil }
	exit, err := e.Run(ctx, j, slow, slow)
	if err != nil || exit.Code != 7 {
		t.Errorf("%+v, %v; exit code 7 is right", exit, err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestMounts(t *testing.T) {
	toolIn(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"ro", "rw", "other"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
		os.Chmod(filepath.Join(root, dir), 0o777)
		os.WriteFile(filepath.Join(root, dir, "file"), []byte("of "+dir), 0o644)
	}
	os.Chmod(filepath.Dir(root), 0o755)
	os.Chmod(root, 0o755)
	e := newEngine(t, func(c *Config) { c.MountRoots = []string{root + "/ro", root + "/rw:rw"} })
	mounting := func(mounts string, script ...string) *engines.Job {
		text, err := json.Marshal(script)
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, `{name: a, engine: docker, base_dir: `+root+`, engine_spec: {image: "`+testImage+`", entrypoint: [/bin/testtool], command: `+string(text)+`, mounts: `+mounts+`}}`)
	}
	t.Run("read", func(t *testing.T) {
		if got := run(t, e, mounting(`{./ro: /m, ./ro/file: /one}`, "read:/m/file", "out: ", "read:/one")); got != "of ro of ro" {
			t.Errorf("it read %q", got)
		}
		if exit, err := e.Run(t.Context(), mounting(`{./rw: /m}`, "write:/m/x:y"), io.Discard, io.Discard); err != nil || exit.Code == 0 {
			t.Errorf("a mount without :rw is written to: %+v, %v", exit, err)
		}
	})
	t.Run("write", func(t *testing.T) {
		run(t, e, mounting(`{./rw: "/m:rw"}`, "write:/m/x:y"))
		if text, err := os.ReadFile(root + "/rw/x"); err != nil || string(text) != "y" {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("in the dialect of Praxis", func(t *testing.T) {
		j := parse(t, `{name: a, engine: docker-sdk, base_dir: `+root+`, engineSpec: {image: "`+testImage+`", command: [/bin/testtool, "write:/m/praxis:y", "var:text"], mounts: {./rw: /m, ./ro: /r}}, params: [{name: text, type: string, required: "true"}]}`)
		j.Args = map[string]any{"text": "raw"}
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
		if err != nil || stdout.String() != "raw" {
			t.Errorf("an argument by its own name is %q: %+v, %v", stdout.String(), exit, err)
		}
		if len(exit.Notes) != 1 || !strings.Contains(exit.Notes[0], "./ro was read-only") {
			t.Errorf("the notes are %q; one about the mount that is not written back is right", exit.Notes)
		}
		if _, err := os.Stat(root + "/rw/praxis"); err != nil {
			t.Error(err)
		}
	})
	t.Run("secrets", func(t *testing.T) {
		os.MkdirAll(root+"/rw/own/deep", 0o777)
		os.WriteFile(root+"/rw/own/deep/key", nil, 0o644)
		os.Symlink(root+"/rw/own", root+"/rw/link")
		e := newEngine(t, func(c *Config) {
			c.MountRoots, c.Secrets, c.CredentialsDir = []string{root + ":rw"}, []string{root + "/rw/link", root + "/nowhere"}, root+"/other"
		})
		for mounts, says := range map[string]string{
			`{./rw/own: /m}`: "is the executor's own", `{./rw/link: /m}`: "is the executor's own", `{./rw/own/deep: /m}`: "lies in what is", `{./rw/own/deep/key: /m}`: "lies in what is",
			`{./rw: /m}`: "holds what is the executor's own", `{./: "/m:rw"}`: "holds what is the executor's own", `{./other: /m}`: "is the executor's own",
		} {
			refusedWith(t, e, mounting(mounts, "out:x"), contracts.PolicyDenied, says)
		}
		if got := run(t, e, mounting(`{./ro: /m}`, "read:/m/file")); got != "of ro" { // beside them
			t.Errorf("it read %q", got)
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		for _, mounts := range []string{`{./other: /m}`, `{./ro: "/m:rw"}`, `{/: /m}`, `{/var/run/docker.sock: /s}`, `{./nowhere: /m}`, `{./ro/../other: /m}`} {
			refusedWith(t, e, mounting(mounts, "out:x"), contracts.PolicyDenied, "mount")
		}
		if _, err := os.Stat(root + "/nowhere"); err == nil {
			t.Error("a directory was made by asking for it")
		}
		if err := os.Symlink(root+"/other", root+"/ro/link"); err != nil {
			t.Fatal(err)
		}
		refusedWith(t, e, mounting(`{./ro/link: /m}`, "out:x"), contracts.PolicyDenied, "mount")
	})
	t.Run("the place of ours", func(t *testing.T) {
		refusedWith(t, e, mounting(`{./ro: /.executor}`, "out:x"), contracts.SpawnFailed, "has its place")
	})
	t.Run("where the image has a link", func(t *testing.T) {
		if err := importImage(t.Context(), world.api, "executor-test-link:latest", map[string][]byte{"bin/testtool": must(os.ReadFile(enginetest.Build(t))), "data/file": nil, "m -> data/file": nil}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			e.graves.wait() // else a container has it still, and it stays without a name
			removeImage("executor-test-link:latest")
		})
		j := mounting(`{./ro/file: /m}`, "read:/m")
		j.Spec.(*contracts.DockerSpec).Image = "executor-test-link:latest"
		if got := run(t, e, j); got != "of ro" {
			t.Errorf("it read %q", got)
		}
	})
	t.Run("no room for it", func(t *testing.T) {
		if err := os.WriteFile(root+"/ro/one", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, mounts := range []string{`{./ro/one: /data}`, `{./ro: /bin/testtool}`, `{./ro: /bin/testtool/x}`, `{./ro: /m, ./rw: /m/none}`} {
			refusedWith(t, e, mounting(mounts, "out:x"), contracts.SpawnFailed, "has no place for")
		}
		refusedWith(t, e, with(func(s *contracts.DockerSpec) { s.Tmpfs = contracts.Tmpfs{"/bin/testtool": 0} }), contracts.SpawnFailed, "has no place for")
	})
	t.Run("below another one", func(t *testing.T) {
		below := func(mounts string, change func(*contracts.DockerSpec), script ...string) *engines.Job {
			j := mounting(mounts, script...)
			change(j.Spec.(*contracts.DockerSpec))
			return j
		}
		nothing := func(*contracts.DockerSpec) {}
		memory := func(at string) func(*contracts.DockerSpec) {
			return func(s *contracts.DockerSpec) { s.Tmpfs = contracts.Tmpfs{at: 0} }
		}
		for _, j := range []*engines.Job{
			below(`{./rw: "/m:rw", ./ro: /m/made}`, nothing, "out:x"), below(`{./rw: "/m:rw", ./ro/file: /m/made}`, nothing, "out:x"), below(`{./rw: "/m:rw"}`, memory("/m/made/deep"), "out:x"),
			below(`{./rw: "/m:rw", ./ro: /m/made/deep}`, memory("/m/made"), "out:x"), below(`{./rw: "/run:rw"}`, nothing, "out:x"),
		} {
			refusedWith(t, e, j, contracts.SpawnFailed, "has to be there before")
		}
		for _, made := range []string{"made", "executor"} {
			if _, err := os.Lstat(root + "/rw/" + made); err == nil {
				t.Errorf("%s was made by asking for it", made)
			}
		}
		if err := os.Mkdir(root+"/rw/there", 0o777); err != nil {
			t.Fatal(err)
		}
		if got := run(t, e, below(`{./rw: "/m:rw", ./ro: /m/there}`, nothing, "read:/m/there/file")); got != "of ro" {
			t.Errorf("it read %q", got)
		}
		run(t, e, below(`{./rw: "/m:rw", ./ro: /m/there/deep}`, memory("/m/there"), "read:/m/there/deep/file")) // in memory there is room
		if _, err := os.Lstat(root + "/rw/there/deep"); err == nil {
			t.Error("below memory a directory of the host was made")
		}
	})
	t.Run("something else at the last moment", func(t *testing.T) {
		j := mounting(`{./ro: /m}`, "out:x")
		spec := j.Spec.(*contracts.DockerSpec)
		p := planned(t, e, j)
		q, err := e.request(j, spec, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(root+"/ro", root+"/was"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(root+"/other", root+"/ro"); err != nil {
			t.Fatal(err)
		}
		b, err := e.open(t.Context(), p, e.labels(roleRun, e.deadline(p)))
		if err != nil {
			t.Fatal(err)
		}
		err = b.prepare(t.Context(), q)
		b.discard()
		if got := contracts.AsError(err); err == nil || got.Code != contracts.PolicyDenied {
			t.Errorf("a directory that was replaced is mounted: %v", err)
		}
	})
	t.Run("the daemon's socket", func(t *testing.T) {
		all := newEngine(t, func(c *Config) { c.MountRoots = []string{"/:rw"} })
		for _, mounts := range []string{`{/var/run/docker.sock: /s}`, `{/var/run: /s}`, `{/: /s}`} {
			refusedWith(t, all, mounting(mounts, "out:x"), contracts.PolicyDenied, "policy.docker_socket")
		}
		allowed := newEngine(t, func(c *Config) { c.DockerSocket = true })
		if got := run(t, allowed, mounting(`{/var/run/docker.sock: /var/run/docker.sock}`, "stat:/var/run/docker.sock")); !strings.HasPrefix(got, "S") {
			t.Errorf("%q", got)
		}
	})
}

func TestCaches(t *testing.T) {
	toolIn(t)
	e := newEngine(t)
	const name = "executor-test.cache"
	defer func() {
		e.graves.wait()
		if err := world.api.VolumeRemove(t.Context(), cacheVolume(name), false); err != nil {
			t.Error(err)
		}
	}()
	cached := func(at, user string, script ...string) *engines.Job {
		return with(func(s *contracts.DockerSpec) {
			s.CacheMounts, s.User = contracts.CacheMounts{{Name: name, Path: at}}, user
		}, script...)
	}
	run(t, e, cached("~/.cache/pip", "", "write:$HOME/.cache/pip/x:kept", "chmod:644:$HOME/.cache/pip/x", "write:$HOME/.cache/other:x"))
	if got := run(t, e, cached("/var/cache/pip", "1000:1000", "read:/var/cache/pip/x", "write:/var/cache/pip/y:z")); got != "kept" {
		t.Errorf("the cache holds %q", got)
	}
	t.Run("in HOME by its path", func(t *testing.T) {
		if got := run(t, e, cached("/work/.cache/pip", "", "read:$HOME/.cache/pip/x", "write:$HOME/.cache/other:x")); got != "kept" {
			t.Errorf("the cache holds %q", got)
		}
	})
	t.Run("in a HOME of the host", func(t *testing.T) {
		root := hostDir(t)
		for _, dir := range []string{"home", "taken", "taken/.cache", "taken/.cache/pip"} {
			if err := os.Mkdir(filepath.Join(root, dir), 0o777); err != nil {
				t.Fatal(err)
			}
			os.Chmod(filepath.Join(root, dir), 0o777)
		}
		e := newEngine(t, func(c *Config) { c.MountRoots = []string{root + ":rw"} })
		at := func(dir string, script ...string) *engines.Job {
			j := cached("~/.cache/pip", "1000:1000", script...)
			j.Contract.BaseDir, j.Spec.Common().Mounts = root, contracts.Mounts{{Source: dir, Target: "/work", Mode: "rw"}}
			return j
		}
		for range 2 { // the second finds the link of the first
			if got := run(t, e, at("home", "read:$HOME/.cache/pip/x")); got != "kept" {
				t.Errorf("the cache holds %q", got)
			}
		}
		info, err := os.Lstat(filepath.Join(root, "home/.cache"))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 1000 {
			t.Errorf("what was made in the host's directory is %+v, %v", info, err)
		}
		j := cached("/m/deep/cache", "1000:1000", "read:/m/deep/cache/x")
		j.Contract.BaseDir, j.Spec.Common().Mounts = root, contracts.Mounts{{Source: "home", Target: "/m", Mode: "rw"}}
		if got := run(t, e, j); got != "kept" {
			t.Errorf("the cache holds %q", got)
		}
		if info, err := os.Lstat(filepath.Join(root, "home/deep")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1000 {
			t.Errorf("what was made in the host's directory is %+v, %v", info, err)
		}
		refusedWith(t, e, at("taken", "out:x"), contracts.SpawnFailed, "/work/.cache/pip is there already")
	})
	// One whose maker was killed before tools could write to it, which has things in it already.
	c, err := world.api.ContainerCreate(t.Context(), &container.Config{Image: testImage, Cmd: []string{"/bin/testtool", "chmod:755:/c"}},
		&container.HostConfig{NetworkMode: "none", AutoRemove: true, Binds: []string{cacheVolume(name) + ":/c"}}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	gone, failed := world.api.ContainerWait(t.Context(), c.ID, container.WaitConditionRemoved)
	if err := world.api.ContainerStart(t.Context(), c.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case err := <-failed:
		t.Fatal(err)
	}
	e.graves.wait()
	e = newEngine(t)
	if got := run(t, e, cached("/var/cache/pip", "1000:1000", "read:/var/cache/pip/x", "write:/var/cache/pip/w:z")); got != "kept" {
		t.Errorf("the cache holds %q", got)
	}
}
