package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// tools show has a line for each key that says how runs go, and none for what is not set; and the registry is called that.
func TestShowToolSaysHowRunsGo(t *testing.T) {
	show := func(text string) string {
		t.Helper()
		list, err := contracts.ParseContracts("a.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := (&program{stdout: &out}).showTool(list[0], &client.Discovery{Tools: list, Sources: map[string]string{"a": contracts.SourceBucket}}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const plain = `a, on local, from the registry

It takes any arguments.

Run it:
  executor run a
`
	if got := show("{name: a, engine: local, engine_spec: {command: [x]}}"); got != plain {
		t.Errorf("%s", got)
	}
	const lines = `
timeout      1m30s
retry        3 attempts at most, after failed, lost; backoff 2s; max_backoff 1m0s
delivery     at_least_once
concurrency  2 at a time in the whole fleet, for each {{args.account}}
fallback     local

`
	got := show(`
name: a
engine: docker
engine_spec: {image: x, command: [x], timeout: 90}
parameters: [{name: account, required: true}]
retry: {max_attempts: 3, backoff: 2, max_backoff: 60, on: [failed, lost]}
delivery: at_least_once
concurrency: 2
concurrency_key: "{{args.account}}"
fallback: [{engine: local, engine_spec: {command: [x]}}]
`)
	if !strings.Contains(got, lines) {
		t.Errorf("%s", got)
	}
	if got := show("{name: a, engine: local, engine_spec: {command: [x]}, retry: {max_attempts: 2}}"); !strings.Contains(got, "\nretry  2 attempts at most, after failed, timed_out, lost\n") {
		t.Errorf("%s", got)
	}
}
