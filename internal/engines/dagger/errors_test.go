package dagger

import (
	"errors"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// TestErrorTexts: what engines say, as they said it, and what it means.
func TestErrorTexts(t *testing.T) {
	for text, want := range map[string]contracts.Code{
		`input: container.from failed to resolve image "127.0.0.1:5000/none:1" (platform: "linux/amd64"): failed to resolve source metadata: 127.0.0.1:5000/none:1: not found`: contracts.ImageUnavailable,
		`failed to resolve image "registry.invalid/a" (platform: "linux/amd64"): dial tcp: lookup registry.invalid: no such host`:                                              contracts.ImageUnavailable,
		`{"data":null,"errors":[{"message":"http do: Post \"http://dagger/query\": dial unix /run/dagger/engine.sock: connect: connection refused"}]}`:                         contracts.EngineUnavailable,
		`start engine: driver for scheme "image" was not available`:                                                                                                            contracts.EngineUnavailable,
		`session is closing`: contracts.EngineUnavailable,
		`failed to stat /nowhere: no such file or directory`:                       contracts.SpawnFailed,
		`unable to find user nobody-knows-him: no matching entries in passwd file`: contracts.SpawnFailed,
		`insecure root capabilities: security.insecure is not allowed`:             contracts.Unsupported,
	} {
		if got := refused(errors.New(text), "image"); got.Code != want {
			t.Errorf("%s is %s; %s is right", text, got.Code, want)
		}
	}
	const raw = `returned error 502: {"data":null,"errors":[{"message":"http do: Post \"http://dagger/query\": connection refused"}]}`
	if got := short(errors.New(raw)); got != `http do: Post "http://dagger/query": connection refused` {
		t.Errorf("people read %q", got)
	}
}
