package main

import (
	"fmt"
	"strings"
	"testing"

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
