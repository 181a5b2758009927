package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	imageapi "github.com/docker/docker/api/types/image"
	docker "github.com/docker/docker/client"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// daggerTools are contracts for Dagger that can also run elsewhere, each with another reason to go there.
const daggerTools = `
tools:
  - {name: stays, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n", "err:said"]}}
  - {name: no-image, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: registry.invalid/nothing:1, command: [testtool, "out:dagger\n"]}}
  - {name: limited, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n"], memory_limit: 64Mi}}
  - {name: no-network, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n"], network: none}}
  - {name: best-effort, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n"], memory_limit: 64Mi, best_effort: true}}
  - {name: fails, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n", "exit:3"]}}
  - {name: docker-first, engine: docker, fallback: [dagger, {engine: local, engine_spec: {command: [/bin/echo, local]}}],
     engine_spec: {image: image, command: [testtool, "out:dagger\n"]}}
`

// TestDoctorTellsOfDagger: what its engine is and cannot enforce, or how to get one.
func TestDoctorTellsOfDagger(t *testing.T) {
	d := daggertest.Start(t, daggertest.Options{})
	t.Cleanup(enginetest.Clean)
	d.Use(t)
	config := fmt.Sprintf("nats: {urls: ['nats://127.0.0.1:1'], connect_timeout: 0.1}\nexecutor: {data_dir: %q}\npolicy: {network: [bridge]}\nexecution: {local: {enabled: false}, dagger: {enabled: true, cli: /there/is/none, program: %q}}\n", t.TempDir(), daggertest.Program(t))
	ask := func() string {
		out, _ := runProgram(t, "doctor", "--config", writeFile(t, "executor.yaml", config)) // it fails: there is no NATS
		return out
	}
	if out := ask(); !strings.Contains(out, "Dagger engine v0.21.8, output while a tool runs") || !strings.Contains(out, "cannot enforce limits of memory") {
		t.Errorf("doctor says %s", out)
	}
	t.Setenv("DAGGER_SESSION_PORT", "")
	if out := ask(); !strings.Contains(out, "/there/is/none") || !strings.Contains(out, "execution.dagger.cli") {
		t.Errorf("without an engine doctor says %s", out)
	}
}

// TestDaggerFallback: two executors, one with Dagger and one without; nobody serves docker. What Dagger cannot take goes on, what
// it can take does not.
func TestDaggerFallback(t *testing.T) {
	d := daggertest.Start(t, daggertest.Options{Images: map[string]daggertest.Image{"image": daggertest.MakeImage(t, false, enginetest.Build(t))}})
	t.Cleanup(enginetest.Clean)
	d.Use(t)
	s := startNATS(t)
	tools := writeFile(t, "tools.yaml", daggerTools)
	tools = tools[:strings.LastIndexByte(tools, '/')]
	with := strings.Replace(serveConfig, "local: {kill_grace: 0.5}", fmt.Sprintf("local: {enabled: false}, dagger: {enabled: true, program: %q}", daggertest.Program(t)), 1)
	with = strings.Replace(with, "policy: {", "policy: {network: [bridge], ", 1)
	startServe(t, s.URL(), "--name", "with-dagger", "--tools", tools, "--config", writeFile(t, "executor.yaml", with))
	startServe(t, s.URL(), "--name", "without", "--tools", tools)
	c := newClient(t, connectTo(t, s.URL()))
	ask := func(tool string) *client.Result {
		t.Helper()
		return wait(t, begin(t, c, client.Request{ID: client.NewID(), Tool: tool}))
	}
	tried := func(r *client.Result) (list string) {
		for _, one := range r.Tried {
			list += " " + one.Engine + ":" + string(one.Code)
		}
		return strings.TrimPrefix(list, " ")
	}
	eventually(t, "the one knows of the other", func() bool { return ask("no-image").Engine == "local" })
	for _, c := range []struct{ tool, engine, executor, tried string }{
		{"stays", "dagger", "with-dagger", ""},
		{"no-image", "local", "without", "dagger:image_unavailable docker:engine_unavailable"},
		{"limited", "local", "without", "dagger:unsupported docker:engine_unavailable"},
		{"no-network", "local", "without", "dagger:unsupported docker:engine_unavailable"},
		{"best-effort", "dagger", "with-dagger", ""},
		{"docker-first", "dagger", "with-dagger", "docker:engine_unavailable"},
	} {
		r := ask(c.tool)
		if r.Status != contracts.Succeeded || r.Engine != c.engine || r.Executor != c.executor || tried(r) != c.tried || r.Stdout != c.engine+"\n" {
			t.Errorf("%s: %s on %s by %s, tried %q, printed %q: %v", c.tool, r.Status, r.Engine, r.Executor, tried(r), r.Stdout, r.Error)
		}
		if c.tool == "best-effort" && (len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "memory_limit")) {
			t.Errorf("%s: the notes are %q", c.tool, r.Notes)
		}
		if c.tool == "stays" && r.Stderr != "said" {
			t.Errorf("%s: stderr is %q", c.tool, r.Stderr)
		}
	}
	// A tool that fails is a result, and nothing is tried elsewhere.
	if r := ask("fails"); r.Status != contracts.Failed || r.ExitCode == nil || *r.ExitCode != 3 || r.Engine != "dagger" || len(r.Tried) > 0 {
		t.Errorf("fails: %+v", r)
	}
	// Nor is one forgotten for which the engine goes away.
	d.Drop()
	if r := ask("stays"); r.Status != contracts.Succeeded || r.Engine != "local" || tried(r) != "dagger:engine_unavailable docker:engine_unavailable" {
		t.Errorf("without the engine: %s on %s, tried %q: %v", r.Status, r.Engine, tried(r), r.Error)
	}
}

// chainTools are contracts that go from Dagger to Docker to processes, each as far as it has to. IMAGE is on both container engines, the
// others are where their names say.
const chainTools = `
tools:
  - {name: stays, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE, command: [testtool, "out:ran\n"]}}
  - {name: limited, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE, command: [testtool, "out:ran\n"], memory_limit: 64Mi}}
  - {name: no-network, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE, command: [testtool, "out:ran\n"], network: none}}
  - {name: only-docker-has-it, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE-docker, command: [testtool, "out:ran\n"]}}
  - {name: nobody-has-it, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE-nobody, command: [testtool, "out:ran\n"]}}
  - {name: limited-and-nobody-has-it, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE-nobody, command: [testtool, "out:ran\n"], memory_limit: 64Mi}}
  - {name: docker-first, engine: docker, fallback: [{engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE-nobody, command: [testtool, "out:ran\n"]}}
  - {name: back-to-dagger, engine: docker, fallback: [dagger, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE-dagger, network: bridge, command: [testtool, "out:ran\n"]}}
  - {name: fails, engine: dagger, fallback: [docker, {engine: local, engine_spec: {command: [/bin/echo, ran]}}],
     engine_spec: {image: IMAGE, command: [testtool, "out:ran\n", "exit:3"], memory_limit: 64Mi}}
`

// TestFallbackOverContainers: two executors, one with Dagger and a Docker daemon and one with processes alone. Whatever an engine cannot
// take goes to the next, however the request came in, and the events of the run say so.
func TestFallbackOverContainers(t *testing.T) {
	tool := enginetest.Build(t)
	t.Cleanup(enginetest.Clean)
	daemon := dockerAPI(t)
	image := loadImage(t, daemon, tool)
	inDagger := daggertest.MakeImage(t, false, tool)
	program := enginetest.Program(t, "github.com/praxis-sdk/executor/cmd/executor")
	d := daggertest.Start(t, daggertest.Options{Beside: program, Images: map[string]daggertest.Image{image: inDagger, image + "-dagger": inDagger}})
	d.Use(t)
	s := startNATS(t)
	text := strings.ReplaceAll(chainTools, "IMAGE", image)
	tools := filepath.Dir(writeFile(t, "tools.yaml", text))
	list, err := contracts.ParseContracts("", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(serveConfig, "local: {kill_grace: 0.5}", fmt.Sprintf("local: {enabled: false}, dagger: {enabled: true, program: %q}, docker: {enabled: true, program: %[1]q, pull: never, warm: {each: 0}}", program), 1)
	config = strings.Replace(config, "policy: {", "policy: {network: [none, bridge], ", 1)
	containers := startServe(t, s.URL(), "--name", "containers", "--tools", tools, "--config", writeFile(t, "executor.yaml", config))
	startServe(t, s.URL(), "--name", "processes", "--tools", tools)
	c := newClient(t, connectTo(t, s.URL()))

	// Each request comes in three ways.
	ways := []string{"streamed", "queued", "with its contract"}
	start := func(tool, way string) *client.Run {
		t.Helper()
		request := client.Request{ID: client.NewID(), Tool: tool}
		switch way {
		case "queued":
			if _, err := c.Submit(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			return c.Follow(request.ID)
		case "with its contract":
			request.Tool, request.Contract = "", list[slices.IndexFunc(list, func(c *contracts.Contract) bool { return c.Name == tool })]
		}
		return begin(t, c, request)
	}
	// read returns the result, and what the fallback events say: where from, where to and why.
	read := func(what string, run *client.Run) (r *client.Result, passed []string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var started []string
		var last client.Event
		for event, err := range run.Events(ctx) {
			switch {
			case err != nil:
				t.Fatalf("%s: %s", what, err)
			case event.Type == contracts.TypeFallback:
				passed = append(passed, fmt.Sprintf("%s>%s:%s", event.From, event.To, event.Code))
				if event.Hop != last.Hop+1 || event.Reason == "" || event.Attempt != len(started) {
					t.Errorf("%s: %d attempts after hop %d came %+v", what, len(started), last.Hop, event.Event)
				}
				last = event
			case event.Type == contracts.TypeStarted:
				started = append(started, event.Engine)
			case event.Type == contracts.TypeResult:
				r = event.Result
			}
		}
		if r == nil {
			t.Fatalf("%s: there is no result", what)
		}
		if len(started) == 0 || started[len(started)-1] != r.Engine || len(started) != r.Attempt {
			t.Errorf("%s: it was started on %q; the result is from %s, attempt %d", what, started, r.Engine, r.Attempt)
		}
		if last.Hop > 0 && (last.To != r.Engine || !slices.Equal(last.Tried, r.Tried)) {
			t.Errorf("%s: the last fallback was to %s after %v; the result is from %s after %v", what, last.To, last.Tried, r.Engine, r.Tried)
		}
		return r, passed
	}
	type chain struct {
		tool, engine string
		passed       []string
	}
	check := func(when string, most int, chains ...chain) {
		t.Helper()
		var runs []*client.Run
		for _, chain := range chains {
			for _, way := range ways {
				runs = append(runs, start(chain.tool, way))
			}
		}
		for i, run := range runs {
			chain, what := chains[i/len(ways)], when+", "+chains[i/len(ways)].tool+", "+ways[i%len(ways)]
			r, passed := read(what, run)
			executor, status, code := "containers", contracts.Succeeded, 0
			if chain.engine == "local" {
				executor = "processes"
			}
			if chain.tool == "fails" {
				status, code = contracts.Failed, 3
			}
			if r.Status != status || r.ExitCode == nil || *r.ExitCode != code || r.Engine != chain.engine || r.Executor != executor || r.Attempt > most || r.Stdout != "ran\n" {
				t.Errorf("%s: %s on %s of %s, attempt %d, printed %q: %v", what, r.Status, r.Engine, r.Executor, r.Attempt, r.Stdout, r.Error)
			}
			var tried []string // where from and why, as the events have it
			for _, one := range r.Tried {
				tried = append(tried, one.Engine+":"+string(one.Code))
			}
			var from []string
			for _, one := range chain.passed {
				way, code, _ := strings.Cut(one, ":")
				engine, _, _ := strings.Cut(way, ">")
				from = append(from, engine+":"+code)
			}
			if !slices.Equal(passed, chain.passed) || !slices.Equal(tried, from) {
				t.Errorf("%s: the events say that it went %q, the result that it tried %q; %q is right", what, passed, tried, chain.passed)
			}
		}
	}
	eventually(t, "the one knows of the other", func() bool {
		return wait(t, begin(t, c, client.Request{ID: client.NewID(), Tool: "nobody-has-it"})).Engine == "local"
	})
	check("all is well", 1,
		chain{"stays", "dagger", nil},
		chain{"limited", "docker", []string{"dagger>docker:unsupported"}},
		chain{"no-network", "docker", []string{"dagger>docker:unsupported"}},
		chain{"only-docker-has-it", "docker", []string{"dagger>docker:image_unavailable"}},
		chain{"nobody-has-it", "local", []string{"dagger>docker:image_unavailable", "docker>local:image_unavailable"}},
		chain{"limited-and-nobody-has-it", "local", []string{"dagger>docker:unsupported", "docker>local:image_unavailable"}},
		chain{"docker-first", "local", []string{"docker>local:image_unavailable"}},
		chain{"back-to-dagger", "dagger", []string{"docker>dagger:image_unavailable"}},
		chain{"fails", "docker", []string{"dagger>docker:unsupported"}}, // and no further: that it fails is its result
	)
	d.Drop()
	// What is taken before that is seen is begun, lost and begun again.
	check("without the engine of Dagger", 2,
		chain{"stays", "docker", []string{"dagger>docker:engine_unavailable"}},
		chain{"nobody-has-it", "local", []string{"dagger>docker:engine_unavailable", "docker>local:image_unavailable"}},
	)
	containers.stop()
	left, err := daemon.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("ancestor", image))})
	if err != nil || len(left) > 0 {
		t.Errorf("the executor leaves the containers %v, %v", left, err)
	}
}

// dockerAPI is a client of the Docker daemon. The test is skipped where there is none, unless EXECUTOR_TEST_DOCKER says that there has to be.
func dockerAPI(t *testing.T) *docker.Client {
	t.Helper()
	api, err := docker.NewClientWithOpts(docker.FromEnv, docker.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	if _, err := api.Ping(t.Context()); err != nil {
		if os.Getenv(testDocker) != "" {
			t.Fatalf("%s is set, but no Docker daemon answers: %s", testDocker, err)
		}
		t.Skipf("SKIPPED, no Docker daemon answers: %s; %s=1 makes this a failure", err, testDocker)
	}
	return api
}

// loadImage makes an image of a program, under two names, and returns the one; the other ends in -docker.
func loadImage(t *testing.T, api *docker.Client, program string) string {
	t.Helper()
	name := "executor-test-fallback-" + strings.ToLower(rand.Text()[:8])
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = w.WriteHeader(&tar.Header{Name: "bin/" + filepath.Base(program), Mode: 0o755, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write(text)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	answer, err := api.ImageImport(t.Context(), imageapi.ImportSource{Source: &archive, SourceName: "-"}, name, imageapi.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	t.Cleanup(func() {
		for _, one := range []string{name, name + "-docker"} {
			if _, err := api.ImageRemove(context.Background(), one, imageapi.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := io.Copy(io.Discard, answer); err != nil {
		t.Fatal(err)
	}
	if err := api.ImageTag(t.Context(), name, name+"-docker"); err != nil {
		t.Fatal(err)
	}
	return name
}
