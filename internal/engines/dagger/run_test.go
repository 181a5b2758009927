//go:build linux

package dagger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// ended is a run that has come to its end.
type ended struct {
	engines.Exit
	err            error
	stdout, stderr string
	starts         int
}

// world is where tests of the whole engine run: the test double, or an engine of Dagger.
type world struct {
	tool string // a directory of this machine with the testtool, to be mounted; "": it is in the image
	open func(t testing.TB, config Config) *Engine
}

// worlds runs a test on the double, and on an engine where there is one.
func worlds(t *testing.T, test func(t *testing.T, w world)) {
	t.Run("double", func(t *testing.T) {
		d := daggertest.Start(t, daggertest.Options{Images: map[string]daggertest.Image{"image": daggertest.MakeImage(t, false, enginetest.Build(t))}})
		d.Use(t)
		test(t, world{open: open1})
	})
	t.Run("engine", func(t *testing.T) {
		realEngine(t)
		w := world{tool: filepath.Dir(enginetest.Build(t))}
		w.open = func(t testing.TB, config Config) *Engine {
			config.MountRoots = append(config.MountRoots, w.tool)
			return open1(t, config)
		}
		test(t, w)
	})
}

// job is job, in the world.
func (w world) job(spec *contracts.DaggerSpec, script ...string) *engines.Job {
	j := job(spec, script...)
	if w.tool != "" {
		spec.Image = realImage()
		spec.Mounts = append(spec.Mounts, contracts.Mount{Source: w.tool, Target: "/testtool", Mode: "ro"})
		spec.Command.Argv = append([]string{"/testtool/testtool"}, spec.Command.Argv[1:]...)
	}
	return j
}

// job makes a job of the testtool, or of the command that the spec has.
func job(spec *contracts.DaggerSpec, script ...string) *engines.Job {
	if spec.Command.Argv == nil {
		spec.Command.Argv = append([]string{"testtool"}, script...)
	}
	if spec.Image == "" {
		spec.Image = "image"
	}
	contract := &contracts.Contract{Name: "tool", Engine: contracts.EngineDagger, Spec: spec}
	return &engines.Job{ID: "id", Attempt: 1, Contract: contract, Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

func run(t testing.TB, e *Engine, j *engines.Job) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Check(j.Contract); err != nil {
		t.Fatalf("Check: %s", err)
	}
	var r ended
	var stdout, stderr bytes.Buffer
	starting := j.Starting
	j.Starting = func() error { r.starts++; return starting() }
	r.Exit, r.err = e.Run(ctx, j, &stdout, &stderr)
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

// succeeded checks that a run exited with 0, and returns it.
func succeeded(t testing.TB, r ended) ended {
	t.Helper()
	if r.err != nil || r.Code != 0 || r.Signal != "" {
		t.Fatalf("code %d, signal %q, error %v, notes %q, stderr %q", r.Code, r.Signal, r.err, r.Notes, r.stderr)
	}
	return r
}

func refusedWith(t testing.TB, r ended, code contracts.Code, words ...string) {
	t.Helper()
	var wrong *contracts.Error
	if !errors.As(r.err, &wrong) || wrong.Code != code {
		t.Fatalf("Run returned %v; an error with the code %s is right", r.err, code)
	}
	for _, word := range words {
		if !strings.Contains(wrong.Message, word) {
			t.Errorf("the message %q lacks %q", wrong.Message, word)
		}
	}
}

func noted(notes []string, words string) bool {
	return slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, words) })
}

func specWith(common contracts.CommonSpec) *contracts.DaggerSpec {
	return &contracts.DaggerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: common}}
}

func TestBestEffort(t *testing.T) { worlds(t, testBestEffort) }

func testBestEffort(t *testing.T, w world) {
	e := w.open(t, Config{Limits: []string{"memory 536870912 bytes"}})
	spec := specWith(contracts.CommonSpec{MemoryLimit: 1 << 20, Network: "none"})
	spec.BestEffort = true
	r := succeeded(t, run(t, e, w.job(spec, "out:ran")))
	if !noted(r.Notes, "memory_limit, network: none") || !noted(r.Notes, "execution.dagger.resource_limits") {
		t.Errorf("the notes are %q", r.Notes)
	}
	if r.Isolation != (contracts.Isolation{Tier: "container", Network: "bridge", Limits: "none"}) {
		t.Errorf("isolation is %+v", r.Isolation)
	}
}

// TestNetworkOfOthers: a contract that runs without a network on its own engine does not get one here, unless its author named this
// engine.
func TestNetworkOfOthers(t *testing.T) {
	_, e := double(t, daggertest.Options{}, Config{})
	contract := contracts.Contract{Name: "a", Engine: contracts.EngineDocker, Spec: &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{Image: "image"}}}
	var wrong *contracts.Error
	if err := e.Check(&contract); !errors.As(err, &wrong) || wrong.Code != contracts.Unsupported || !strings.Contains(wrong.Message, "network") {
		t.Errorf("Check says %v", err)
	}
	contract.Fallback = []contracts.Fallback{{Engine: contracts.EngineDagger}}
	if err := e.Check(&contract); err != nil {
		t.Errorf("its author named this engine: %s", err)
	}
}

// TestNetworkPolicy: the network of containers is for contracts that ask for it by name, where policy.network does not give it to all.
func TestNetworkPolicy(t *testing.T) {
	allowed, denied := &Engine{config: Config{Networks: []string{"bridge"}}}, &Engine{config: Config{Networks: []string{"host"}}}
	for network, passes := range map[string]bool{"": false, "none": false, "bridge": true} {
		spec := specWith(contracts.CommonSpec{Network: network})
		spec.BestEffort = true
		contract := job(spec, "out:ran").Contract
		if err := allowed.Check(contract); err != nil {
			t.Errorf("network %q with bridge in policy.network: %s", network, err)
		}
		err := denied.Check(contract)
		var wrong *contracts.Error
		if passes != (err == nil) || err != nil && (!errors.As(err, &wrong) || wrong.Code != contracts.Unsupported || !strings.Contains(wrong.Message, "policy.network")) {
			t.Errorf("network %q without bridge in policy.network: %v", network, err)
		}
	}
}

func TestImageErrors(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	spec := specWith(contracts.CommonSpec{})
	spec.Image = "registry.example/nothing:1"
	r := run(t, e, job(spec, "out:ran"))
	refusedWith(t, r, contracts.ImageUnavailable, "registry.example/nothing:1")
	if r.starts != 0 || d.Runs() != 0 {
		t.Errorf("%d starts, %d runs", r.starts, d.Runs())
	}
	spec = specWith(contracts.CommonSpec{})
	spec.User = "nobody-knows-him"
	refusedWith(t, run(t, e, job(spec, "out:ran")), contracts.SpawnFailed, "nobody-knows-him")
}

func TestForbiddenPrivileged(t *testing.T) {
	d, e := double(t, daggertest.Options{ForbidInsecure: true}, Config{})
	spec := specWith(contracts.CommonSpec{})
	spec.Privileged = true
	refusedWith(t, run(t, e, job(spec, "out:ran")), contracts.Unsupported, "privileged")
	if !slices.ContainsFunc(d.Queries(), func(q daggertest.Query) bool { return strings.Contains(q.Text, "insecureRootCapabilities:true") }) {
		t.Error("nobody asked for it")
	}
}

func TestUser(t *testing.T) { worlds(t, testUser) }

func testUser(t *testing.T, w world) {
	e := w.open(t, Config{})
	spec := specWith(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}}})
	spec.User = "nobody"
	succeeded(t, run(t, e, w.job(spec, "write:$TMPDIR/a:b", "read:$TMPDIR/a", "read:$ARGS_FILE", "stat:$HOME")))
}

// TestUserOfImage: what is mounted belongs to the user that the image names, whatever the policy says of root.
func TestUserOfImage(t *testing.T) {
	image := daggertest.MakeImage(t, false, enginetest.Build(t))
	image.User = "nobody"
	root := t.TempDir()
	_, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"image": image}}, Config{MountRoots: []string{root + ":rw"}})
	for _, e := range []*Engine{e, open1(t, Config{MountRoots: []string{root + ":rw"}, Root: true})} {
		do(t, os.WriteFile(filepath.Join(root, "there"), []byte("before"), 0o600))
		spec := specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root, Target: "/data", Mode: "rw"}}, CacheMounts: contracts.CacheMounts{{Name: "pip", Path: "~/.cache/pip"}}})
		succeeded(t, run(t, e, job(spec, "write:$HOME/a:b", "write:$HOME/.cache/pip/a:b", "read:/data/there", "write:/data/there:after", "write:/data/new:fresh")))
		for name, want := range map[string]string{"there": "after", "new": "fresh"} {
			if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
				t.Errorf("%s has %q, %v; %q is right", name, text, err, want)
			}
		}
	}
}

// TestRoot: tools are root where policy.root allows it, or nothing is started.
func TestRoot(t *testing.T) {
	image := func(user string) daggertest.Image {
		i := daggertest.MakeImage(t, false, enginetest.Build(t))
		i.User = user
		return i
	}
	images := map[string]daggertest.Image{"image": image(""), "root": image("root"), "zero": image("0:0"), "toor": image("toor"), "nobody": image("nobody")}
	const uid, never = "Uid:\t65534\t65534\t65534\t65534\n", "NoNewPrivs:\t1\n"
	d, e := double(t, daggertest.Options{Images: images}, Config{})
	for _, name := range []string{"image", "root", "zero", "nobody"} {
		spec := specWith(contracts.CommonSpec{})
		spec.Image = name
		if got := succeeded(t, run(t, e, job(spec, "read:/proc/self/status"))).stdout; !strings.Contains(got, uid) || !strings.Contains(got, never) {
			t.Errorf("of the image %s the tool is %s", name, got)
		}
	}
	before := d.Runs()
	for _, user := range []string{"root", "0", "0:65534", "00", "root:nobody"} {
		spec := specWith(contracts.CommonSpec{})
		spec.User = user
		refusedWith(t, run(t, e, job(spec, "out:ran")), contracts.PolicyDenied, "policy.root")
	}
	if d.Runs() != before {
		t.Error("something was started")
	}
	spec := specWith(contracts.CommonSpec{}) // a name of root that only the image knows
	spec.Image = "toor"
	r := run(t, e, job(spec, "out:ran"))
	if refusedWith(t, r, contracts.PolicyDenied, "policy.root"); r.stdout != "" {
		t.Errorf("the tool printed %q", r.stdout)
	}
	for _, allow := range []Config{{Root: true}, {}} {
		e := open1(t, allow)
		spec := specWith(contracts.CommonSpec{})
		spec.Image, spec.Privileged = "root", !allow.Root
		if got := succeeded(t, run(t, e, job(spec, "read:/proc/self/status"))).stdout; !strings.Contains(got, "Uid:\t0\t0") || strings.Contains(got, never) {
			t.Errorf("with %+v the tool is %s", allow, got)
		}
	}
	_, e = double(t, daggertest.Options{Images: images, Platform: "linux/other"}, Config{})
	spec = specWith(contracts.CommonSpec{})
	spec.Image = "toor"
	refusedWith(t, run(t, e, job(spec, "out:ran")), contracts.PolicyDenied, "as a number")
}

// TestCacheBusting: a tool runs each time, sees nothing of why, and with cache: true runs once.
func TestCacheBusting(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	var seen []string
	for range 3 {
		seen = append(seen, succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "env"))).stdout)
	}
	if d.Runs() != 3 {
		t.Errorf("%d runs of 3", d.Runs())
	}
	if seen[0] != seen[1] || seen[1] != seen[2] {
		t.Errorf("the environment differs from run to run:\n%s\n%s", seen[0], seen[1])
	}
	cached := func(script ...string) ended {
		spec := specWith(contracts.CommonSpec{})
		spec.Cache = true
		return run(t, e, job(spec, script...))
	}
	first, second := cached("out:hello", "err:there", "exit:7"), cached("out:hello", "err:there", "exit:7")
	if d.Runs() != 4 {
		t.Errorf("%d runs; the second of two that are the same comes from the cache", d.Runs()-3)
	}
	for _, r := range []ended{first, second} {
		if r.err != nil || r.Code != 7 || r.stdout != "hello" || r.stderr != "there" {
			t.Errorf("code %d, error %v, output %q %q", r.Code, r.err, r.stdout, r.stderr)
		}
	}
	if !noted(second.Notes, "cache: true") {
		t.Errorf("the second says nothing of the cache: %q", second.Notes)
	}
	if r := cached("out:other"); r.stdout != "other" || d.Runs() != 5 {
		t.Errorf("another tool printed %q, in %d runs", r.stdout, d.Runs())
	}
}

func TestSecrets(t *testing.T) { worlds(t, testSecrets) }

func testSecrets(t *testing.T, w world) {
	e := w.open(t, Config{})
	ask := func(value string) string {
		spec := specWith(contracts.CommonSpec{})
		spec.Cache = true
		j := w.job(spec, "var:API_KEY", "out:.")
		j.Passthrough = map[string]string{"API_KEY": value}
		return succeeded(t, run(t, e, j)).stdout
	}
	if got := ask("first-secret") + ask("second-secret"); got != "first-secret.second-secret." {
		t.Errorf("the tools saw %q: a secret that has changed makes another run", got)
	}
}

// TestShortSecrets: an engine masks the values of secrets in all that is printed. That leaves output as it is, however short they are.
func TestShortSecrets(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		e := w.open(t, Config{})
		j := w.job(specWith(contracts.CommonSpec{}), "var:ONE", "var:E", "var:NONE", "out:.", "err:1 executor e", "exit:1")
		j.Passthrough = map[string]string{"ONE": "1", "E": "e", "NONE": "", "MORE": "executor 1"}
		r := run(t, e, j)
		if r.err != nil || r.Code != 1 || r.stdout != "1e." || r.stderr != "1 executor e" {
			t.Errorf("code %d, error %v, output %q %q, notes %q", r.Code, r.err, r.stdout, r.stderr, r.Notes)
		}
	})
}

func TestCaches(t *testing.T) { worlds(t, testCaches) }

func testCaches(t *testing.T, w world) {
	e := w.open(t, Config{})
	name := "pip-" + newTrace().String()[:12]
	with := func(script ...string) string {
		return succeeded(t, run(t, e, w.job(specWith(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: name, Path: "~/.cache/pip"}, {Name: name + "-2", Path: "/var/cache/x"}}}), script...))).stdout
	}
	with("write:$HOME/.cache/pip/wheel:built", "write:/var/cache/x/y:z")
	if got := with("read:$HOME/.cache/pip/wheel", "read:/var/cache/x/y"); got != "builtz" {
		t.Errorf("the next run read %q of the caches", got)
	}
}

func TestMounts(t *testing.T) { worlds(t, testMounts) }

func testMounts(t *testing.T, w world) {
	root := t.TempDir()
	do(t, os.MkdirAll(filepath.Join(root, "data/below"), 0o755))
	for name, text := range map[string]string{"data/stays": "stays", "data/changes": "before", "data/goes": "x", "data/below/goes": "x", "single": "before"} {
		do(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	e := w.open(t, Config{MountRoots: []string{root + ":rw"}})
	mounts := func(mode string) *contracts.DaggerSpec {
		return specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root + "/data", Target: "/data", Mode: mode}, {Source: root + "/single", Target: "/one/file", Mode: mode}}})
	}
	script := []string{"read:/data/stays", "write:/data/changes:after", "rm:/data/goes", "rm:/data/below/goes", "mkdir:/data/new", "write:/data/new/file:fresh", "symlink:stays:/data/link", "write:/one/file:after", "exit:150"}
	r := run(t, e, w.job(mounts("ro"), script...))
	if r.err != nil || r.Code != 150 || r.stdout != "stays" {
		t.Fatalf("code %d, error %v, output %q %q", r.Code, r.err, r.stdout, r.stderr)
	}
	if text, _ := os.ReadFile(filepath.Join(root, "data/changes")); string(text) != "before" {
		t.Errorf("a mount that is read only was written back: %q", text)
	}
	r = run(t, e, w.job(mounts("rw"), script...))
	if r.err != nil || r.Code != 150 || len(r.Notes) > 0 {
		t.Fatalf("code %d, error %v, notes %q, output %q", r.Code, r.err, r.Notes, r.stderr)
	}
	for name, want := range map[string]string{"data/stays": "stays", "data/changes": "after", "data/new/file": "fresh", "data/link": "stays", "single": "after"} {
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
			t.Errorf("%s has %q, %v; %q is right", name, text, err, want)
		}
	}
	for _, gone := range []string{"data/goes", "data/below/goes"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if left := leftIn(e.config.DataDir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	r = run(t, e, w.job(specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: "/etc", Target: "/data"}}}), "ls:/data"))
	refusedWith(t, r, contracts.PolicyDenied, "policy.mounts")
}

// TestMountsWithin: mounts and caches lie in one another, in whichever order a contract has them.
func TestMountsWithin(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		root := t.TempDir()
		for _, dir := range []string{"outer", "inner"} {
			do(t, errors.Join(os.Mkdir(filepath.Join(root, dir), 0o755), os.WriteFile(filepath.Join(root, dir, "x"), []byte(dir), 0o644)))
		}
		e := w.open(t, Config{MountRoots: []string{root}})
		inner, outer := contracts.Mount{Source: root + "/inner", Target: "/data/in"}, contracts.Mount{Source: root + "/outer", Target: "/data"}
		spec := specWith(contracts.CommonSpec{
			Mounts: contracts.Mounts{inner, outer, {Source: root + "/inner", Target: "/cached/in"}}, CacheMounts: contracts.CacheMounts{{Name: "within", Path: "/cached"}},
		})
		if got := succeeded(t, run(t, e, w.job(spec, "read:/data/in/x", "out: ", "read:/data/x", "out: ", "read:/cached/in/x", "write:/cached/y:z"))).stdout; got != "inner outer inner" {
			t.Errorf("it read %q", got)
		}
	})
}

// TestFileLeftAlone: a file that is mounted alone, and that the tool did not change, keeps what somebody else wrote meanwhile.
func TestFileLeftAlone(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		file := filepath.Join(t.TempDir(), "file")
		e := w.open(t, Config{MountRoots: []string{file + ":rw"}})
		for script, want := range map[string]string{"read:/file": "meanwhile", "write:/file:after": "after", "write:/file:before": "meanwhile"} {
			do(t, os.WriteFile(file, []byte("before"), 0o644))
			j := w.job(specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: file, Target: "/file", Mode: "rw"}}}), script)
			j.Starting = func() error { return os.WriteFile(file, []byte("meanwhile"), 0o644) }
			succeeded(t, run(t, e, j))
			if text, err := os.ReadFile(file); err != nil || string(text) != want {
				t.Errorf("after %s there is %q, %v; %q is right", script, text, err, want)
			}
		}
	})
}

// TestSecretsInMounts: no mount shows what is the executor's own, nor what the dagger program has credentials from.
func TestSecretsInMounts(t *testing.T) {
	root := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", root+"/config")
	for _, dir := range []string{"in/own/deep", "in/beside", "config/dagger"} {
		do(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	do(t, os.WriteFile(root+"/in/own/deep/key", nil, 0o600))
	do(t, os.WriteFile(root+"/in/beside/file", []byte("beside"), 0o644))
	do(t, os.Symlink(root+"/in/own", root+"/in/link"))
	_, e := double(t, daggertest.Options{}, Config{MountRoots: []string{root + ":rw"}, Secrets: []string{root + "/in/link", root + "/nowhere"}})
	mounting := func(source, mode string, script ...string) ended {
		return run(t, e, job(specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: source, Target: "/m", Mode: mode}}}), script...))
	}
	for source, says := range map[string]string{
		"/in/own": "is the executor's own", "/in/link": "is the executor's own", "/in/own/deep": "lies in what is", "/in/own/deep/key": "lies in what is",
		"/in": "holds what is the executor's own", "": "holds what is the executor's own", "/config/dagger": "is the executor's own",
	} {
		for _, mode := range []string{"ro", "rw"} {
			refusedWith(t, mounting(root+source, mode, "out:x"), contracts.PolicyDenied, says)
		}
	}
	if got := succeeded(t, mounting(root+"/in/beside", "rw", "read:/m/file")).stdout; got != "beside" {
		t.Errorf("it read %q beside them", got)
	}
}

// TestLinksOutOfMounts: what a tool brings back is written below its mount, whatever links lie there.
func TestLinksOutOfMounts(t *testing.T) { worlds(t, testLinksOutOfMounts) }

func testLinksOutOfMounts(t *testing.T, w world) {
	root, outside := t.TempDir(), t.TempDir()
	data := filepath.Join(root, "data")
	do(t, os.Mkdir(data, 0o755))
	do(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("untouched"), 0o644))
	e := w.open(t, Config{MountRoots: []string{root + ":rw"}})
	spec := func() *contracts.DaggerSpec {
		return specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: data, Target: "/data", Mode: "rw"}}})
	}
	// The first run makes links that lead out, the second puts directories and files in their place.
	succeeded(t, run(t, e, w.job(spec(), "symlink:"+outside+":/data/dir", "symlink:"+outside+"/victim:/data/file")))
	r := run(t, e, w.job(spec(), "rm:/data/dir", "mkdir:/data/dir", "write:/data/dir/victim:taken", "rm:/data/file", "write:/data/file:taken"))
	succeeded(t, r)
	if text, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(text) != "untouched" {
		t.Errorf("a file outside of the mount has %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(data, "dir/victim")); err != nil || string(text) != "taken" {
		t.Errorf("in the mount there is %q, %v; notes %q", text, err, r.Notes)
	}
	// And where somebody puts a link there while the tool runs, nothing is written through it.
	j := w.job(spec(), "write:/data/dir/more:taken", "write:/data/dir/victim:again")
	j.Starting = func() error {
		return errors.Join(os.RemoveAll(filepath.Join(data, "dir")), os.Symlink(outside, filepath.Join(data, "dir")))
	}
	r = run(t, e, j)
	if text, _ := os.ReadFile(filepath.Join(outside, "victim")); string(text) != "untouched" {
		t.Errorf("a file outside of the mount has %q", text)
	}
	if got := leftIn(outside); !slices.Equal(got, []string{"victim"}) {
		t.Errorf("outside of the mount there are %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(data, "dir/more")); err != nil || string(text) != "taken" {
		t.Errorf("in the mount there is %q, %v; notes %q", text, err, r.Notes)
	}
}

// TestMountsPutElsewhere: what comes back goes to the directory that was mounted, not to what lies at its path then.
func TestMountsPutElsewhere(t *testing.T) { worlds(t, testMountsPutElsewhere) }

func testMountsPutElsewhere(t *testing.T, w world) {
	root, outside := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(root, "a/etc"), filepath.Join(outside, "etc")} {
		do(t, os.MkdirAll(dir, 0o755))
	}
	for _, file := range []string{filepath.Join(root, "a/file"), filepath.Join(outside, "file"), filepath.Join(outside, "etc/victim")} {
		do(t, os.WriteFile(file, []byte("untouched"), 0o644))
	}
	e := w.open(t, Config{MountRoots: []string{root + ":rw"}})
	spec := specWith(contracts.CommonSpec{Mounts: contracts.Mounts{
		{Source: root, Target: "/x", Mode: "rw"}, {Source: root + "/a/etc", Target: "/y", Mode: "rw"}, {Source: root + "/a/file", Target: "/z", Mode: "rw"},
	}})
	r := run(t, e, w.job(spec, "rm:/x/a/file", "rm:/x/a/etc", "rm:/x/a", "symlink:"+outside+":/x/a", "write:/y/victim:taken", "write:/y/fresh:taken", "write:/z:taken"))
	refusedWith(t, r, contracts.Internal, "/y", "/z")
	if to, err := os.Readlink(filepath.Join(root, "a")); err != nil || to != outside {
		t.Errorf("the tool's link leads to %q, %v; notes %q, error %v", to, err, r.Notes, r.err)
	}
	for _, file := range []string{"file", "etc/victim"} {
		if text, err := os.ReadFile(filepath.Join(outside, file)); err != nil || string(text) != "untouched" {
			t.Errorf("outside of the mounts %s has %q, %v", file, text, err)
		}
	}
	if got := leftIn(filepath.Join(outside, "etc")); !slices.Equal(got, []string{"victim"}) {
		t.Errorf("outside of the mounts there are %q", got)
	}
	// Somebody puts a link in place of a directory after it was allowed: nothing is read through it.
	do(t, os.Mkdir(filepath.Join(root, "c"), 0o755))
	m := mount{source: filepath.Join(root, "c"), writable: true}
	do(t, m.hold([]string{root + ":rw"}, m.source))
	defer m.root.Close()
	do(t, m.moved())
	do(t, errors.Join(os.Remove(m.source), os.Symlink(outside, m.source)))
	if m.moved() == nil {
		t.Error("a link in place of a mount is not seen")
	}
	m = mount{source: m.source + "/etc"} // as it was resolved before
	if err := m.hold([]string{root + ":rw"}, m.source); err == nil {
		m.root.Close()
		t.Error("a mount was opened by a link out of the directory that allows it")
	}
}

// TestNotBroughtBack: a tool whose changes cannot be written has not succeeded, and what it removed is still there.
func TestNotBroughtBack(t *testing.T) {
	root := t.TempDir()
	_, e := double(t, daggertest.Options{}, Config{MountRoots: []string{root + ":rw"}})
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("SKIPPED: needs to mount a small disk: %s", err)
	}
	t.Cleanup(func() { do(t, syscall.Unmount(root, syscall.MNT_DETACH)) })
	do(t, os.WriteFile(filepath.Join(root, "goes"), []byte("there"), 0o644))
	script := []string{"rm:/data/goes", "write:/data/large:" + strings.Repeat("x", 64<<10)}
	for _, code := range []string{"0", "7"} {
		spec := specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root, Target: "/data", Mode: "rw"}}})
		r := run(t, e, job(spec, append(slices.Clone(script), "exit:"+code)...))
		if code == "0" {
			refusedWith(t, r, contracts.Internal, "/data", "no space left")
		} else if r.err != nil || r.Code != 7 || !noted(r.Notes, "no space left") {
			t.Errorf("code %d, error %v, notes %q", r.Code, r.err, r.Notes)
		}
		if got := leftIn(root); !slices.Equal(got, []string{"goes"}) {
			t.Errorf("in the mount there are %q", got)
		}
	}
}

// TestEndedTogether: a tool that ends the program beside it as well says nothing of its changes: the result does.
func TestEndedTogether(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		root := t.TempDir()
		e := w.open(t, Config{MountRoots: []string{root + ":rw"}})
		with := func(mode string) ended {
			spec := specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root, Target: "/data", Mode: mode}}})
			r := run(t, e, w.job(spec, "kill:parent:KILL", "block"))
			if r.err != nil || r.Signal != "SIGKILL" {
				t.Errorf("signal %q, error %v", r.Signal, r.err)
			}
			return r
		}
		if r := with("rw"); !noted(r.Notes, "was not brought back") {
			t.Errorf("the notes are %q", r.Notes)
		}
		if r := with("ro"); noted(r.Notes, "was not brought back") {
			t.Errorf("the notes are %q", r.Notes)
		}
	})
}

// TestOutputNotRead: a tool that has run is not run again where its output finds no room here.
func TestOutputNotRead(t *testing.T) {
	root, small := t.TempDir(), t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED: needs to mount a small disk: %s", err)
	}
	t.Cleanup(func() { do(t, syscall.Unmount(small, syscall.MNT_DETACH)) })
	_, e := double(t, daggertest.Options{NoLogs: true}, Config{DataDir: small, MountRoots: []string{root + ":rw"}})
	spec := specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root, Target: "/data", Mode: "rw"}}})
	r := run(t, e, job(spec, "write:/data/new:fresh", "flood:3M", "exit:7"))
	refusedWith(t, r, contracts.Internal, "exit code 7", "no space left")
	if text, err := os.ReadFile(filepath.Join(root, "new")); err != nil || string(text) != "fresh" {
		t.Errorf("brought back: %q, %v", text, err)
	}
}

// TestApply: files of directories that forbid writing are written, and what was put in place of something removed stays.
func TestApply(t *testing.T) {
	dir, stage := t.TempDir(), t.TempDir()
	do(t, errors.Join(os.MkdirAll(filepath.Join(dir, "was/dir"), 0o755), os.MkdirAll(filepath.Join(dir, "gone/below"), 0o755), os.MkdirAll(filepath.Join(dir, "kept"), 0o755)))
	do(t, errors.Join(os.WriteFile(filepath.Join(dir, "kept/x"), []byte("kept"), 0o644), os.WriteFile(filepath.Join(dir, "was/x"), nil, 0o644)))
	do(t, errors.Join(os.Mkdir(filepath.Join(stage, "closed"), 0o755), os.WriteFile(filepath.Join(stage, "closed/x"), []byte("y"), 0o644), os.Chmod(filepath.Join(stage, "closed"), 0o500)))
	do(t, os.Symlink("kept", filepath.Join(stage, "was")))
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	do(t, apply1(root, stage, "gone/", "was/", "was/x", "was/dir/"))
	if text, err := os.ReadFile(filepath.Join(dir, "was/x")); err != nil || string(text) != "kept" {
		t.Errorf("by the link there is %q, %v", text, err)
	}
	if got := leftIn(dir); !slices.Equal(got, []string{"closed", "kept", "was"}) {
		t.Errorf("there are %q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "closed")); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("%v, %v", info, err)
	}
	do(t, os.Chmod(filepath.Join(dir, "closed"), 0o700)) // so that it can be removed by who is not root
	do(t, os.Chmod(filepath.Join(stage, "closed"), 0o700))
}

// TestApplyModes: directories keep what no tool is asked about, and one that is somebody else's is written into where that is allowed.
func TestApplyModes(t *testing.T) {
	dir, stage := t.TempDir(), t.TempDir()
	for name, mode := range map[string]os.FileMode{"shared": os.ModeSetgid | 0o777, "everybody": os.ModeSticky | 0o777, "narrowed": os.ModeSetgid | 0o777} {
		there, staged := filepath.Join(dir, name), filepath.Join(stage, name)
		do(t, errors.Join(os.Mkdir(there, 0o755), os.Chmod(there, mode), os.Mkdir(staged, 0o755), os.Chmod(staged, mode.Perm()), os.WriteFile(staged+"/x", nil, 0o644)))
	}
	do(t, errors.Join(os.Chmod(stage+"/narrowed", 0o750), os.Mkdir(stage+"/shared/new", 0o755), os.WriteFile(stage+"/shared/new/x", nil, 0o644)))
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	do(t, apply1(root, stage))
	for name, want := range map[string]os.FileMode{
		"shared": os.ModeSetgid | 0o777, "shared/new": os.ModeSetgid | 0o755, "everybody": os.ModeSticky | 0o777, "narrowed": os.ModeSetgid | 0o750,
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want|os.ModeDir {
			t.Errorf("%s is %v, %v; %v is right", name, info.Mode(), err, want)
		}
	}
	do(t, errors.Join(os.Chmod(filepath.Dir(stage), 0o755), os.RemoveAll(stage+"/narrowed"), os.RemoveAll(stage+"/shared"), os.Remove(dir+"/everybody/x")))
	do(t, asNobody(t, func() error { return apply1(root, stage) }))
}

func apply1(root *os.Root, stage string, removed ...string) error {
	modes, err := loosen(stage)
	if err != nil {
		return err
	}
	skipped, err := apply(root, stage, modes, removed)
	if len(skipped) > 0 {
		err = errors.Join(err, fmt.Errorf("skipped: %q", skipped))
	}
	return err
}

// TestApplyUnreadable: who is not root brings back what a tool has closed, with its modes, and leaves nothing behind.
func TestApplyUnreadable(t *testing.T) {
	dir, stage := t.TempDir(), t.TempDir()+"/stage"
	do(t, errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Mkdir(stage, 0o700), os.Chown(stage, 65534, 65534), os.Chown(filepath.Dir(stage), 65534, 65534), os.Chown(dir, 65534, 65534)))
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	do(t, asNobody(t, func() error {
		return errors.Join(os.MkdirAll(stage+"/closed/below", 0o755), os.WriteFile(stage+"/closed/below/x", []byte("y"), 0o644),
			os.Chmod(stage+"/closed/below/x", 0), os.Chmod(stage+"/closed/below", 0), os.Chmod(stage+"/closed", 0o555), apply1(root, stage))
	}))
	for name, want := range map[string]os.FileMode{"closed": os.ModeDir | 0o555, "closed/below": os.ModeDir, "closed/below/x": 0} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s is %v, %v; %v is right", name, info.Mode(), err, want)
		}
	}
	if text, err := os.ReadFile(dir + "/closed/below/x"); err != nil || string(text) != "y" {
		t.Errorf("it holds %q, %v", text, err)
	}
	do(t, asNobody(t, func() error {
		err := errors.Join(os.Chmod(stage+"/closed/below", 0o555), os.Chmod(stage+"/closed", 0o555))
		discard(stage)
		return err
	}))
	if left := leftIn(filepath.Dir(stage)); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// asNobody calls a function as a user without rights, as far as files are concerned.
func asNobody(t *testing.T, call func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to be somebody else")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else is to have it
		done <- errors.Join(unix.Setfsgid(65534), unix.Setfsuid(65534), call())
	}()
	return <-done
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	plain := daggertest.MakeImage(t, false, enginetest.Build(t))
	named := plain
	named.Workdir = "/opt/app"
	do(t, os.MkdirAll(filepath.Join(plain.Dir, "opt/app/sub"), 0o755))
	_, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"image": plain, "named": named}}, Config{DefaultImage: "named"})
	for _, c := range []struct{ image, cwd, want string }{{"image", "", "/work"}, {"named", "", "/opt/app"}, {"named", "sub", "/opt/app/sub"}, {"image", "/opt", "/opt"}, {"", "", "/work"}} {
		spec := specWith(contracts.CommonSpec{Cwd: c.cwd})
		spec.Image = c.image
		j := job(spec, "cwd")
		if c.image == "" { // the default image
			spec.Image, c.want = "", "/opt/app"
		}
		if got := succeeded(t, run(t, e, j)).stdout; got != c.want {
			t.Errorf("image %q, cwd %q: the tool is in %q, %q is right", c.image, c.cwd, got, c.want)
		}
	}
}

// TestWithoutLogStream: output comes at the end, exact and whole, and the result says so.
func TestWithoutLogStream(t *testing.T) {
	_, e := double(t, daggertest.Options{NoLogs: true}, Config{})
	r := succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "outhex:00ff80c3", "err:there", "flood:3M")))
	if !strings.HasPrefix(r.stdout, "\x00\xff\x80\xc3") || len(r.stdout) != 4+3<<20 || r.stderr != "there" {
		t.Errorf("%d bytes of stdout, stderr %q", len(r.stdout), r.stderr)
	}
	if !noted(r.Notes, "no log stream") {
		t.Errorf("the notes are %q", r.Notes)
	}
}

// TestLostPieces: what the log stream loses is there at the end, once and in its place.
func TestLostPieces(t *testing.T) {
	var seen atomic.Int64
	_, e := double(t, daggertest.Options{Lose: func(string) bool { return seen.Add(1)%3 == 2 }}, Config{})
	for _, size := range []string{"100K", "4M"} {
		var check enginetest.Flood
		j := job(specWith(contracts.CommonSpec{}), "flood:"+size, "err:there")
		var stderr bytes.Buffer
		exit, err := e.Run(t.Context(), j, &check, &stderr)
		if err != nil || exit.Code != 0 || stderr.String() != "there" {
			t.Fatalf("code %d, error %v, stderr %q", exit.Code, err, stderr.String())
		}
		if want := map[string]int64{"100K": 100 << 10, "4M": 4 << 20}[size]; check.Bytes != want {
			t.Errorf("%d bytes are right of %d", check.Bytes, want)
		}
	}
	if seen.Load() < 3 {
		t.Error("nothing was lost")
	}
}

// TestMostOutput: what is printed beyond the bound is dropped in the container, whichever way the rest comes.
func TestMostOutput(t *testing.T) {
	for _, options := range []daggertest.Options{{}, {NoLogs: true}} {
		_, e := double(t, options, Config{MaxOutput: 2 << 20})
		r := succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "err:there", "sleep:100ms", "flood:9M")))
		if len(r.stdout)+len(r.stderr) != 2<<20 || r.stderr != "there" || !noted(r.Notes, "max_output_bytes") {
			t.Errorf("%d bytes and %q, notes %q", len(r.stdout), r.stderr, r.Notes)
		}
		r = succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "flood:1M")))
		if len(r.stdout) != 1<<20 || noted(r.Notes, "max_output_bytes") {
			t.Errorf("%d bytes, notes %q", len(r.stdout), r.Notes)
		}
	}
}

// TestMostAnswer: a tool that printed more than is taken in one piece, as it all comes where nothing stands beside it, has run.
func TestMostAnswer(t *testing.T) {
	before := mostAnswer
	t.Cleanup(func() { mostAnswer = before })
	mostAnswer = 1 << 20
	_, e := double(t, daggertest.Options{Platform: "linux/other"}, Config{})
	r := run(t, e, job(specWith(contracts.CommonSpec{}), "flood:2M"))
	refusedWith(t, r, contracts.OutputLimit, "ran to its end", "1 MiB")
}

// TestLostBeforeStop: what a stopped tool had printed, and nobody has seen, is told.
func TestLostBeforeStop(t *testing.T) {
	second := func(text string) bool { return strings.Contains(text, " Yg==\n") } // b
	for _, c := range []struct {
		name    string
		options daggertest.Options
		note    string
	}{{"whole", daggertest.Options{}, ""}, {"no stream", daggertest.Options{NoLogs: true}, "is lost: the Dagger engine has no log stream"}, {"gap", daggertest.Options{Lose: second}, "some of what the tool printed"}} {
		t.Run(c.name, func(t *testing.T) {
			_, e := double(t, c.options, Config{})
			becomesReady(t, e)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errors.New("it was stopped"))
			defer cancel()
			exit, err := e.Run(ctx, job(specWith(contracts.CommonSpec{}), "out:a", "sleep:200ms", "out:b", "sleep:200ms", "out:c", "block"), io.Discard, io.Discard)
			if err == nil || err.Error() != "it was stopped" {
				t.Fatalf("Run returned %v", err)
			}
			if c.note == "" && len(exit.Notes) > 0 || c.note != "" && !noted(exit.Notes, c.note) {
				t.Errorf("the notes are %q", exit.Notes)
			}
		})
	}
}

// TestWithoutProgram: on an engine for other machines there is nothing of ours beside the tool.
func TestWithoutProgram(t *testing.T) {
	root := t.TempDir()
	_, e := double(t, daggertest.Options{Platform: "linux/other"}, Config{MountRoots: []string{root + ":rw"}})
	spec := func() *contracts.DaggerSpec {
		return specWith(contracts.CommonSpec{Mounts: contracts.Mounts{{Source: root, Target: "/data", Mode: "rw"}}})
	}
	j := job(spec(), "cat", "err:there", "read:$ARGS_FILE", "write:/data/new:text", "exit:9")
	j.Stdin = []byte("given ")
	j.Args = map[string]any{"a": "b"}
	r := run(t, e, j)
	if r.err != nil || r.Code != 9 || r.stdout != `given {"args":{"a":"b"},"context":{}}` || r.stderr != "there" {
		t.Errorf("code %d, error %v, output %q %q", r.Code, r.err, r.stdout, r.stderr)
	}
	if !noted(r.Notes, "at the end of the run") {
		t.Errorf("the notes are %q", r.Notes)
	}
	if text, err := os.ReadFile(filepath.Join(root, "new")); err != nil || string(text) != "text" {
		t.Errorf("brought back: %q, %v", text, err)
	}
	for _, code := range []string{"0", "127", "128", "137", "191", "192", "255"} {
		r := run(t, e, job(spec(), "out:said", "write:/data/late:text", "exit:"+code))
		if r.err != nil || r.stdout != "said" || strconv.Itoa(r.Code) != code {
			t.Errorf("exit %s: code %d, error %v, output %q", code, r.Code, r.err, r.stdout)
		}
		if lost := noted(r.Notes, "was not brought back"); lost != slices.Contains([]string{"128", "137", "191"}, code) {
			t.Errorf("exit %s: the notes are %q", code, r.Notes)
		}
	}
}

// TestLatency: output arrives soon after it was printed. The tool prints when the test says so, by files in a cache.
func TestLatency(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	const rounds = 12
	took := delays(t, d, e, rounds)
	slices.Sort(took)
	t.Logf("output came after %s in the median and %s at most", took[rounds/2].Round(time.Millisecond), took[rounds-1].Round(time.Millisecond))
	if took[rounds/2] > 300*time.Millisecond {
		t.Errorf("the median is above 300 ms: %s", took)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestExamine(t *testing.T) {
	_, e := double(t, daggertest.Options{}, Config{})
	found, err := e.Examine(t.Context())
	if err != nil || found.Exit.Code != 0 || !strings.Contains(found.About, "v0.21.8") || len(found.Lacks) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err = open1(t, Config{Networks: []string{}}).Examine(t.Context()); err != nil || len(found.Lacks) != 2 || !strings.Contains(found.Lacks[1].Mend, "policy.network") {
		t.Errorf("%+v, %v", found, err)
	}
	_, e = double(t, daggertest.Options{NoLogs: true, Platform: "linux/other"}, Config{})
	if found, err = e.Examine(t.Context()); err != nil || len(found.Lacks) != 3 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestEntrypointAndTmpfs(t *testing.T) {
	image := daggertest.MakeImage(t, false, enginetest.Build(t))
	image.Entrypoint = []string{"testtool", "out:first "}
	_, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"image": image}}, Config{})
	with := func(entrypoint contracts.Entrypoint, command ...string) ended {
		spec := specWith(contracts.CommonSpec{Command: contracts.Command{Argv: command}})
		spec.Entrypoint, spec.Tmpfs = entrypoint, contracts.Tmpfs{"/in/memory": 1 << 20}
		return run(t, e, job(spec))
	}
	for _, c := range []struct {
		got  ended
		want string
	}{{with(nil, "out:second"), "first second"}, {with(contracts.Entrypoint{}, "testtool", "write:/in/memory/x:y", "read:/in/memory/x"), "y"}, {with(contracts.Entrypoint{"testtool"}, "out:own"), "own"}} {
		if succeeded(t, c.got); c.got.stdout != c.want {
			t.Errorf("the tool printed %q, %q is right", c.got.stdout, c.want)
		}
	}
}

// TestPlacesInMemory: a user that is not root can write to them, wherever the tool starts and whatever the image has there.
func TestPlacesInMemory(t *testing.T) {
	image := daggertest.MakeImage(t, false, enginetest.Build(t))
	image.User = "nobody"
	home := image
	home.Workdir = "/work"
	_, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"image": image, "home": home}}, Config{})
	for _, name := range []string{"image", "home"} {
		for _, cwd := range []string{"", "/opt", "/tmp", "/scratch", "/etc"} {
			spec := specWith(contracts.CommonSpec{Cwd: cwd})
			spec.Image, spec.Tmpfs = name, contracts.Tmpfs{"/scratch": 1 << 20, "/etc": 1 << 20}
			if r := run(t, e, job(spec, "write:$HOME/a:b", "write:/tmp/a:b", "write:/scratch/a:b", "write:/etc/a:b", "cwd")); r.err != nil || r.Code != 0 {
				t.Errorf("image %s, cwd %q: %v, code %d, stderr %q", name, cwd, r.err, r.Code, r.stderr)
			}
		}
	}
}

// TestDockerSocket: containers get the socket of the Docker daemon where the policy allows it, and then those that ask for it, or all.
func TestDockerSocket(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"docker.sock", "other.sock", "own/docker.sock"} {
		do(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		listener, err := net.Listen("unix", filepath.Join(root, name))
		do(t, err)
		defer listener.Close()
	}
	socket := filepath.Join(root, "docker.sock")
	d, without := double(t, daggertest.Options{}, Config{DockerSocket: socket})
	secrets := []string{filepath.Join(root, "own")}
	allowed, all := open1(t, Config{AllowDockerSocket: true, Secrets: secrets}), open1(t, Config{AllowDockerSocket: true, DockerSocket: socket})
	look := func(e *Engine, mounts ...string) ended {
		common := contracts.CommonSpec{}
		for _, name := range mounts {
			common.Mounts = append(common.Mounts, contracts.Mount{Source: filepath.Join(root, name), Target: DockerSocket})
		}
		return run(t, e, job(specWith(common), "stat:"+DockerSocket))
	}
	for what, e := range map[string]*Engine{"nobody asks for it": allowed, "it is not allowed": without} {
		if r := look(e); r.err != nil || r.Code == 0 {
			t.Errorf("where %s the tool sees %q, %v", what, r.stdout, r.err)
		}
	}
	for what, r := range map[string]ended{"the contract asks for it": look(allowed, "docker.sock"), "all have it": look(all), "both is so": look(all, "docker.sock")} {
		if succeeded(t, r); !strings.HasPrefix(r.stdout, "S") {
			t.Errorf("where %s the tool sees %q", what, r.stdout)
		}
	}
	if !slices.ContainsFunc(d.Queries(), func(q daggertest.Query) bool { return strings.Contains(q.Text, `unixSocket(path:"`+socket+`")`) }) {
		t.Error("nobody asked for the socket")
	}
	refusedWith(t, look(without, "docker.sock"), contracts.PolicyDenied, "policy.mounts")
	refusedWith(t, look(allowed, "other.sock"), contracts.PolicyDenied, "policy.mounts")
	refusedWith(t, look(allowed, "own/docker.sock"), contracts.PolicyDenied, "executor's own")
	refusedWith(t, look(open1(t, Config{MountRoots: []string{root}}), "docker.sock"), contracts.Unsupported, "neither a directory nor a file")
	_, err := New(Config{AllowDockerSocket: true, DockerSocket: filepath.Join(root, "nothing.sock")}, zerolog.Nop())
	isUnavailable(t, err, "mount_docker_socket", "nothing.sock")
}

// TestPlatform: the image is that of the platform that a contract names; beside a tool of another one our program cannot stand.
func TestPlatform(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	for platform, alone := range map[string]bool{"": false, "linux/" + runtime.GOARCH: false, "linux/other": true} {
		asked := len(d.Queries())
		spec := specWith(contracts.CommonSpec{})
		spec.Platform = platform
		if r := succeeded(t, run(t, e, job(spec, "out:ran"))); r.stdout != "ran" || noted(r.Notes, "the contract is for linux/other") != alone {
			t.Errorf("platform %q: output %q, notes %q", platform, r.stdout, r.Notes)
		}
		named := slices.ContainsFunc(d.Queries()[asked:], func(q daggertest.Query) bool { return strings.Contains(q.Text, "platform:") })
		right := slices.ContainsFunc(d.Queries()[asked:], func(q daggertest.Query) bool {
			return strings.Contains(q.Text, `container(platform:"`+platform+`"){from(`)
		})
		if named != (platform != "") || right != named {
			t.Errorf("platform %q: it is named %t, rightly %t", platform, named, right)
		}
	}
}

func TestImagesAllowed(t *testing.T) {
	_, e := double(t, daggertest.Options{}, Config{Images: []string{"registry.example/**"}})
	refusedWith(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")), contracts.PolicyDenied, "policy.images")
}

// TestSecretsInQueries: a secret is in no query but the one that hands it over.
func TestSecretsInQueries(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	j := job(specWith(contracts.CommonSpec{}), "var:API_KEY")
	j.Passthrough = map[string]string{"API_KEY": "the-secret"}
	if got := succeeded(t, run(t, e, j)).stdout; got != "the-secret" {
		t.Errorf("the tool saw %q", got)
	}
	handed := 0
	for _, q := range d.Queries() {
		switch {
		case !strings.Contains(q.Text, "the-secret"):
		case strings.Contains(q.Text, "setSecret"):
			handed++
		default:
			t.Errorf("the secret is in a query that does not keep it: %.300s", q.Text)
		}
	}
	if handed != 1 {
		t.Errorf("it was handed over %d times", handed)
	}
}

// TestPassedPath: a program is looked for where a PATH that is passed through says, and nothing tells that.
func TestPassedPath(t *testing.T) {
	image := daggertest.MakeImage(t, false, enginetest.Build(t))
	do(t, errors.Join(os.Mkdir(filepath.Join(image.Dir, "hidden-place"), 0o755), os.Rename(filepath.Join(image.Dir, "opt/bin/testtool"), filepath.Join(image.Dir, "hidden-place/testtool"))))
	d, e := double(t, daggertest.Options{Images: map[string]daggertest.Image{"image": image}}, Config{})
	with := func(path string) ended {
		j := job(specWith(contracts.CommonSpec{}), "out:ran")
		j.Passthrough = map[string]string{"PATH": path}
		return run(t, e, j)
	}
	if got := succeeded(t, with("/nowhere:/hidden-place")).stdout; got != "ran" {
		t.Errorf("it printed %q", got)
	}
	r := with("/hidden-place/nowhere")
	if refusedWith(t, r, contracts.SpawnFailed, "testtool", "env_passthrough"); strings.Contains(r.err.Error(), "hidden-place") {
		t.Errorf("the error shows the PATH: %s", r.err)
	}
	for _, q := range d.Queries() {
		if strings.Contains(q.Text, "hidden-place") && !strings.Contains(q.Text, "setSecret") {
			t.Errorf("a query shows the PATH: %s", q.Text)
		}
	}
}

// TestNamesOfSecrets: an engine shows the names of secrets. They are the same for the same value, on the executor that knows it, and tell
// nobody else whether a value that was guessed is right.
func TestNamesOfSecrets(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	handed := regexp.MustCompile(`setSecret\(name:"([^"]*)"`)
	names := func(e *Engine, passed map[string]string) (names []string) {
		before := len(d.Queries())
		j := job(specWith(contracts.CommonSpec{}), "out:.")
		j.Passthrough = passed
		succeeded(t, run(t, e, j))
		for _, q := range d.Queries()[before:] {
			for _, m := range handed.FindAllStringSubmatch(q.Text, -1) {
				names = append(names, m[1])
			}
		}
		if len(names) != len(passed) {
			t.Fatalf("the names of %d secrets are %q", len(passed), names)
		}
		return names
	}
	first := names(e, map[string]string{"PIN": "1234"})
	if again := names(e, map[string]string{"PIN": "1234"}); again[0] != first[0] {
		t.Errorf("one value has the names %q and %q: nothing of it comes from the cache", first, again)
	}
	if changed := names(e, map[string]string{"PIN": "1235"}); changed[0] == first[0] {
		t.Errorf("two values have the name %q: the result of the one comes from the cache for the other", changed)
	}
	if two := names(e, map[string]string{"PIN": "1234", "PAN": "1234"}); two[0][4:] == two[1][4:] {
		t.Errorf("the names %q tell that two variables have the same value", two)
	}
	if other := names(open1(t, Config{}), map[string]string{"PIN": "1234"}); other[0] == first[0] {
		t.Errorf("another executor gives the name %q too: it can be guessed", other)
	}
}

// TestFactsOfImages: what was not in an image is looked for again, at once; what else an image says, after a while.
func TestFactsOfImages(t *testing.T) {
	before := keepFacts
	t.Cleanup(func() { keepFacts = before })
	image := daggertest.MakeImage(t, false, enginetest.Build(t))
	images := map[string]daggertest.Image{"image": image}
	d, e := double(t, daggertest.Options{Images: images}, Config{})
	later := func() ended {
		return run(t, e, job(specWith(contracts.CommonSpec{Cwd: "/opt/later", Command: contracts.Command{Argv: []string{"later", "out:there"}}})))
	}
	refusedWith(t, later(), contracts.SpawnFailed, "cwd")
	do(t, os.Mkdir(filepath.Join(image.Dir, "opt/later"), 0o755))
	refusedWith(t, later(), contracts.SpawnFailed, `no program "later"`)
	do(t, os.Link(filepath.Join(image.Dir, "opt/bin/testtool"), filepath.Join(image.Dir, "bin/later")))
	if got := succeeded(t, later()).stdout; got != "there" {
		t.Errorf("it printed %q", got)
	}
	asked := len(d.Queries())
	succeeded(t, later())
	for _, q := range d.Queries()[asked:] {
		if strings.Contains(q.Text, "exists(") || strings.Contains(q.Text, "entrypoint") {
			t.Errorf("what is known is asked for again: %s", q.Text)
		}
	}
	image.Entrypoint = []string{"testtool", "out:moved "}
	images["image"] = image
	keepFacts = 0
	if got := run(t, e, job(specWith(contracts.CommonSpec{}), "out:x")).stdout; got != "moved " {
		t.Errorf("with what the image says now it printed %q", got)
	}
}

// TestCharactersInPieces: output that comes in the middle of a character is not lost, as it is in the log stream of an engine.
func TestCharactersInPieces(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		e := w.open(t, Config{})
		r := succeeded(t, run(t, e, w.job(specWith(contracts.CommonSpec{}), "out:before ", "outhex:c3", "sleep:50ms", "outhex:a4", "out: after", "errhex:ff")))
		if r.stdout != "before \u00e4 after" || r.stderr != "\xff" {
			t.Errorf("output is %q %q", r.stdout, r.stderr)
		}
	})
}

// TestCached: with cache: true the second of two runs that are the same is not run, on an engine too.
func TestCached(t *testing.T) {
	worlds(t, func(t *testing.T, w world) {
		e := w.open(t, Config{})
		what := "out:" + newTrace().String()
		for i := range 2 {
			spec := specWith(contracts.CommonSpec{})
			spec.Cache = true
			r := run(t, e, w.job(spec, what, "exit:7"))
			if r.err != nil || r.Code != 7 || "out:"+r.stdout != what {
				t.Errorf("code %d, error %v, output %q", r.Code, r.err, r.stdout)
			}
			if noted(r.Notes, "cache: true") != (i == 1) {
				t.Errorf("run %d says of the cache: %q; the second comes from there", i+1, r.Notes)
			}
		}
	})
}
