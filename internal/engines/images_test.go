package engines

import (
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestImageAllowed(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		pattern, image string
		allowed        bool
	}{
		{"python:3.11-slim", "python:3.11-slim", true}, {"python:3.11-slim", "docker.io/library/python:3.11-slim", true}, {"python:3.11-slim", "python:3.12", false}, {"python:3.11-slim", "python", false},
		{"python", "python:3.12", true}, {"python", "python@" + digest, true}, {"python", "python3", false}, {"python", "evil/python", false}, {"python", "ghcr.io/library/python", false},
		{"python:*", "python:3.12", true}, {"python:*", "python-evil:3.12", false}, {"py*", "python:3.12", true}, {"python:3.*", "python:3.12", true}, {"python:3.*", "python:2.7", false}, {"python:3.*", "python:31", false},
		{"acme/tool", "acme/tool:1", true}, {"acme/tool", "docker.io/acme/tool:1", true}, {"acme/*", "acme/tool:1", true}, {"acme/*", "acme/team/tool:1", false}, {"acme/**", "acme/team/tool:1", true},
		{"ghcr.io/acme/*", "ghcr.io/acme/tool@" + digest, true}, {"ghcr.io/acme/*", "ghcr.io/acme/team/tool:1", false}, {"ghcr.io/acme/**", "ghcr.io/acme/team/tool:1", true}, {"ghcr.io/acme/**", "ghcr.io/acmeevil/tool:1", false},
		{"ghcr.io/**", "ghcr.io/a/b/c:1", true}, {"ghcr.io/**", "ghcr.io.evil.com/a/b:1", false}, {"**", "anything:1", true}, {"*/tool", "evil.com/tool:1", true}, {"ghcr.io/acme/tool", "ghcrXio/acme/tool", false},
		{"localhost:5000/a", "localhost:5000/a:1", true}, {"ghcr.io/acme/tool@" + digest, "ghcr.io/acme/tool@" + digest, true}, {"ghcr.io/acme/tool@" + digest, "ghcr.io/acme/tool:1", false},
		{digest, "anything@" + digest, true}, {digest, "anything:1", false},
	} {
		named, err := ImageName(c.image)
		if err != nil {
			t.Fatal(err)
		}
		var digests []string
		if at := len(c.image) - len(digest); at > 0 && c.image[at:] == digest {
			digests = []string{digest}
		}
		if got := ImageAllowed([]string{"other", c.pattern}, named, digests); got != c.allowed {
			t.Errorf("the pattern %s allows %s: %t", c.pattern, c.image, got)
		}
	}
	named, err := ImageName("python")
	if err != nil || named.String() != "docker.io/library/python:latest" || !ImageAllowed(nil, named, nil) {
		t.Errorf("%v, %v", named, err)
	}
	for _, image := range []string{"", "UPPER", "a b", "http://x/y", "sha256:" + digest} {
		if _, err := ImageName(image); err == nil || contracts.AsError(err).Code != contracts.Unsupported {
			t.Errorf("%q is taken: %v", image, err)
		}
	}
}
