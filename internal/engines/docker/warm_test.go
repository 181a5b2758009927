package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// ahead makes an engine with containers made ahead.
func ahead(t *testing.T, change ...func(*Config)) *Engine {
	t.Helper()
	return newEngine(t, append([]func(*Config){func(c *Config) { c.Warm = Default().Warm }}, change...)...)
}

var containerIDs = regexp.MustCompile(`[0-9a-f]{12,64}|[A-Z0-9]{26}`)

// TestAheadIsTheSame: a tool finds in a container that was made ahead what it finds in one that was made for it.
func TestAheadIsTheSame(t *testing.T) {
	toolIn(t)
	root := hostDir(t)
	if err := os.WriteFile(root+"/file", []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	const cache = "executor-test.ahead"
	t.Cleanup(func() { world.api.VolumeRemove(context.Background(), cacheVolume(cache), true) })
	rooted := func(c *Config) { c.MountRoots = []string{root} }
	for name, script := range map[string][]string{
		"mount": {"read:/m/file", "stat:/m/file"}, "cache": {"stat:/cached", "stat:/work/cached", "ls:/cached"},
		"environment": {"env"}, "limits": {"read:/proc/self/limits"}, "mounts": {"read:/proc/self/mounts"}, "rights": {"read:/proc/self/status"},
		"root": {"ls:/"}, "home": {"ls:/work", "ls:/tmp", "ls:/run/executor", "cwd"}, "arguments": {"argv", "a", "{{args.text}}"}, "file": {"read:$ARGS_FILE", "stat:$ARGS_FILE"},
		"stdin": {"cat"}, "devices": {"ls:/dev"}, "networks": {"read:/proc/net/dev"}, "priority": {"read:/proc/self/oom_score_adj", "read:/proc/self/sessionid"},
	} {
		t.Run(name, func(t *testing.T) {
			var got [2]string
			for i, e := range []*Engine{newEngine(t, rooted), ahead(t, rooted)} {
				for n := range 3 { // of those made ahead the first two are not yet
					j := with(func(s *contracts.DockerSpec) {
						s.Env, s.MemoryLimit, s.Ulimits = contracts.Variables{"A": "b"}, 64<<20, contracts.Ulimits{"nofile": {Soft: 500, Hard: 600}}
						s.User, s.Mounts, s.CacheMounts = "1234:99", contracts.Mounts{{Source: root, Target: "/m"}}, contracts.CacheMounts{{Name: cache, Path: "/cached"}, {Name: cache, Path: "~/cached"}}
					}, script...)
					j.Args, j.Context, j.Stdin, j.Passthrough = map[string]any{"text": "x y", "n": json.Number("1")}, map[string]any{"s": "t"}, []byte("input"), map[string]string{"P": "q"}
					var stdout strings.Builder
					exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
					if err != nil || exit.Code != 0 {
						t.Fatalf("%+v, %v", exit, err)
					}
					got[i] = stdout.String()
					if was := exit.Stages == (engines.Stages{}); was != (i == 1 && n == 2) {
						t.Errorf("engine %d, run %d: that it had a container made ahead is %t", i, n, was)
					}
					if i == 1 && n > 0 {
						awaitWarm(t, e)
					}
				}
			}
			for i := range got {
				got[i] = containerIDs.ReplaceAllString(got[i], "ID")
				var lines []string
				for line := range strings.Lines(got[i]) { // what differs from process to process
					if !regexp.MustCompile(`^(Pid|Tgid|NSpid|NStgid|NSpgid|NSsid|voluntary_ctxt|nonvoluntary_ctxt|Vm|Rss|SigQ|Cpus_|Mems_|Threads)`).MatchString(line) {
						lines = append(lines, line)
					}
				}
				if name == "mounts" {
					slices.Sort(lines) // the daemon mounts in any order
				}
				got[i] = strings.Join(lines, "")
			}
			if got[0] != got[1] {
				t.Errorf("on demand:\n%s\nmade ahead:\n%s", got[0], got[1])
			}
		})
	}
}

// TestAheadOnce: a container serves one run, and nothing of that is there for the next.
func TestAheadOnce(t *testing.T) {
	toolIn(t)
	e := ahead(t)
	var hosts []string
	warmUp(t, e, func() *engines.Job { return tool("out:x") })
	for i := range 5 {
		awaitWarm(t, e)
		j := tool("read:/proc/sys/kernel/hostname", "out:|", "ls:/work", "ls:/tmp", "ls:/dev/shm", "out:|", "env",
			"write:/work/left:x", "write:/tmp/left:x", "write:/dev/shm/left:x", "write:/run/executor/left:x", "daemon-quiet:1", "block")
		j.Args, j.Stdin = map[string]any{fmt.Sprintf("secret%d", i): "s"}, []byte("secret")
		var stdout strings.Builder
		exit, err := e.Run(t.Context(), j, &stdout, io.Discard)
		if err != nil || exit.Code != 0 {
			t.Fatalf("%+v, %v", exit, err)
		}
		if exit.Stages != (engines.Stages{}) {
			t.Errorf("run %d did not have a container that was made ahead: %+v", i, exit.Stages)
		}
		parts := strings.SplitN(stdout.String(), "|", 3)
		if parts[1] != "" {
			t.Errorf("run %d found %q", i, parts[1])
		}
		if n := strings.Count(parts[2], "ARG_SECRET"); n != 1 {
			t.Errorf("run %d has %d secrets: %s", i, n, parts[2])
		}
		if slices.Contains(hosts, parts[0]) {
			t.Errorf("run %d is in a container that another one was in", i)
		}
		hosts = append(hosts, parts[0])
	}
}

func TestAheadBounds(t *testing.T) {
	toolIn(t)
	kind := func(i int, script ...string) *engines.Job {
		return with(func(s *contracts.DockerSpec) { s.PidsLimit = int64(100 + i) }, script...)
	}
	twice := func(t *testing.T, e *Engine, i int) {
		t.Helper()
		warmUp(t, e, func() *engines.Job { return kind(i, "out:x") })
	}
	made := func(e *Engine) int {
		e.warm.mu.Lock()
		defer e.warm.mu.Unlock()
		return e.warm.total
	}
	t.Run("as many as there were at a time, and no more than allowed", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.Each = 3 })
		run(t, e, kind(0, "out:x"))
		if n := made(e); n != 0 {
			t.Errorf("of what was used once %d are made", n)
		}
		run(t, e, kind(0, "out:x"))
		awaitWarm(t, e)
		if n := made(e); n != 1 {
			t.Errorf("after two runs, one at a time, %d are made", n)
		}
		var group sync.WaitGroup
		for range 6 {
			group.Go(func() { run(t, e, kind(0, "sleep:200ms")) })
		}
		group.Wait()
		enginetest.Eventually(t, "three wait", func() bool { return e.warm.waits() == 3 })
		e.graves.wait()
		if left := left(e); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("of all kinds", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.Total = 2 })
		for i := range 5 {
			twice(t, e, i)
			if n := e.warm.waits(); n > 2 {
				t.Errorf("%d wait", n)
			}
		}
		enginetest.Eventually(t, "two wait, those of the last kinds", func() bool { return e.warm.waits() == 2 })
		exit, err := e.Run(t.Context(), kind(4, "out:x"), io.Discard, io.Discard)
		if err != nil || exit.Stages != (engines.Stages{}) {
			t.Errorf("the kind that was used last has none: %+v, %v", exit, err)
		}
	})
	t.Run("by memory", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.Memory = WarmCost })
		twice(t, e, 0)
		twice(t, e, 1)
		if e.warm.most.Total != 1 || e.warm.waits() > 1 {
			t.Errorf("%d wait", e.warm.waits())
		}
	})
	t.Run("not for long", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.MaxAge = 700 * time.Millisecond })
		run(t, e, kind(1, "out:x")) // takes longest: it makes what all need
		twice(t, e, 0)
		enginetest.Eventually(t, "none waits", func() bool { e.warm.mu.Lock(); defer e.warm.mu.Unlock(); return len(e.warm.kinds) == 0 })
		enginetest.Eventually(t, "none is there", func() bool {
			return !slices.ContainsFunc(leftOf(world.api, e.name), func(s string) bool { return strings.Contains(s, roleWarm) })
		})
	})
	t.Run("fewer where fewer are used", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.Each, c.Warm.MaxAge = 3, time.Second })
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() { run(t, e, kind(0, "sleep:300ms")) })
		}
		group.Wait()
		wanted := func() int {
			e.warm.mu.Lock()
			defer e.warm.mu.Unlock()
			for _, k := range e.warm.kinds {
				return e.warm.wanted(k)
			}
			return 0
		}
		if n := wanted(); n < 2 {
			t.Errorf("after several runs at a time %d are wanted", n)
		}
		enginetest.Eventually(t, "one is wanted, and one waits", func() bool {
			run(t, e, kind(0, "out:x"))
			return wanted() == 1 && e.warm.waits() <= 1
		})
	})
	t.Run("none with rights over the host", func(t *testing.T) {
		e := ahead(t)
		if e.warm.serves(&plan{host: container.HostConfig{Privileged: true}}) {
			t.Error("privileged containers are made ahead")
		}
	})
	t.Run("switched off", func(t *testing.T) {
		e := ahead(t, func(c *Config) { c.Warm.Each = 0 })
		run(t, e, kind(0, "out:x"))
		if len(e.warm.kinds) > 0 {
			t.Error("there is a kind")
		}
	})
	t.Run("one that has died", func(t *testing.T) {
		e := ahead(t)
		twice(t, e, 0)
		list, err := world.api.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+e.name), filters.Arg("label", labelRole+"="+roleWarm))})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := world.api.ContainerKill(t.Context(), list[0].ID, "KILL"); err != nil {
			t.Fatal(err)
		}
		if got := run(t, e, kind(0, "out:x")); got != "x" {
			t.Error(got)
		}
	})
}

// TestNothingLeft: many runs with all kinds of ends leave no container, no volume and no network.
func TestNothingLeft(t *testing.T) {
	toolIn(t)
	runs := 120
	if enginetest.Long() {
		runs = 500
	}
	before := things(t, nil)
	e := ahead(t)
	own := []string{e.name}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("the test stops it")
	var done, killed atomic.Int64
	one := func(i int) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		j := tool("background:1", "block", "out:up", "daemon:1", "block", fmt.Sprintf("exit:%d", i%3))
		switch i % 10 {
		case 0: // cancelled at any moment
			timer := time.AfterFunc(time.Duration(rand.IntN(200))*time.Millisecond, func() { cancel(stopped) })
			defer timer.Stop()
			j = tool("ignore-term", "flood:1G", "block")
		case 1: // a timeout
			timed, stop := context.WithTimeoutCause(ctx, 250*time.Millisecond, stopped)
			defer stop()
			ctx = timed
			j = tool("background:1", "block", "block")
		case 2: // killed by the daemon
			j.Starting = func() error {
				list, err := world.api.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+e.name), filters.Arg("label", labelRun+"="+j.ID))})
				for _, c := range list {
					if world.api.ContainerKill(ctx, c.ID, "KILL") == nil {
						killed.Add(1)
					}
				}
				return err
			}
			j.ID = fmt.Sprintf("killed-%d", i)
			j.Spec.(*contracts.DockerSpec).PidsLimit = int64(500 + i) // like no other, and so not in one made ahead, whose labels name no run
		case 3: // not started
			j = tool("out:x")
			j.Spec.Common().Command.Argv = []string{"/nowhere"}
		case 4: // somebody else's
			j.Starting = func() error { return stopped }
		case 5: // out of memory
			j = with(func(s *contracts.DockerSpec) { s.MemoryLimit = 32 << 20 }, "eat:200M")
		}
		e.Run(ctx, j, io.Discard, io.Discard)
		done.Add(1)
	}
	var group sync.WaitGroup
	work := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range work {
				one(i)
			}
		})
	}
	for i := range runs {
		if i%(runs/3) == runs/6 { // an executor that is killed meanwhile
			c := exec.Command(self)
			c.Env = append(os.Environ(), asHelper+"="+world.program, asImage+"="+testImage)
			up := newWaiter("up\n")
			c.Stdout = up
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			up.wait(t)
			c.Process.Kill()
			c.Wait()
			name, _, _ := strings.Cut(up.got.String(), "\n")
			own = append(own, name)
		}
		work <- i
	}
	close(work)
	group.Wait()
	if int(done.Load()) != runs {
		t.Errorf("%d runs", done.Load())
	}
	if killed.Load() == 0 {
		t.Error("the daemon killed none")
	}
	e.Close()
	newEngine(t) // looks for what the killed executors were about to make
	enginetest.Eventually(t, "all is as before", func() bool {
		now := things(t, own)
		return !slices.ContainsFunc(now, func(one string) bool { return !slices.Contains(before, one) })
	})
}

// things lists all containers of the engines with these names, and all volumes and networks of the daemon but those that are evidently
// of others: tests of other packages use it at the same time. Where no engine is named, it is all of them.
func things(t *testing.T, own []string) (all []string) {
	t.Helper()
	list, err := world.api.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{} // volumes of containers of others
	for _, c := range list {
		if slices.Contains(own, c.Labels[labelOwner]) {
			all = append(all, "container "+c.Names[0]+" "+c.Labels[labelRole])
			continue
		}
		for _, m := range c.Mounts {
			used[m.Name] = true
		}
	}
	// Those of others have a label of who made them, or one of their containers has them. Of ours they have our label, or none.
	others := func(name string, labels map[string]string) bool {
		owner := labels[labelOwner]
		return len(own) > 0 && (used[name] || labels["com.docker.compose.project"] != "" || owner != "" && !slices.Contains(own, owner))
	}
	volumes, err := world.api.VolumeList(t.Context(), volume.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Volumes {
		if !others(v.Name, v.Labels) {
			all = append(all, "volume "+v.Name)
		}
	}
	networks, err := world.api.NetworkList(t.Context(), network.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		if !others(n.Name, n.Labels) {
			all = append(all, "network "+n.Name)
		}
	}
	return all
}
