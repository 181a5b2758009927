package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestPolicy(t *testing.T) {
	root := t.TempDir()
	inside, outside := filepath.Join(root, "data"), t.TempDir()
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "escape")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEST_POLICY_SET", "secret")
	nothing := Policy{}
	for name, test := range map[string]struct {
		policy Policy
		spec   string // of a docker contract, or a whole local one
		inline bool
		want   string // in the error; "": allowed
	}{
		"plain":                                     {nothing, `command: [x]`, true, ""},
		"network none":                              {nothing, `command: [x], network: none`, true, ""},
		"network denied":                            {nothing, `command: [x], network: bridge`, false, "policy.network"},
		"network allowed":                           {Policy{Network: []string{"bridge"}}, `command: [x], network: bridge`, true, ""},
		"another network":                           {Policy{Network: []string{"bridge"}}, `command: [x], network: host`, true, "network: host"},
		"privileged denied":                         {nothing, `command: [x], privileged: true`, false, "policy.privileged"},
		"privileged allowed":                        {Policy{Privileged: true}, `command: [x], privileged: true`, true, ""},
		"gpus denied":                               {nothing, `command: [x], gpus: all`, false, "policy.gpus"},
		"gpus allowed":                              {Policy{GPUs: true}, `command: [x], gpus: all`, true, ""},
		"mount without roots":                       {nothing, `command: [x], mounts: {` + inside + `: /x}`, false, "policy.mounts"},
		"mount below a root":                        {Policy{Mounts: []string{root}}, `command: [x], mounts: {` + inside + `: /x}`, true, ""},
		"mount by ..":                               {Policy{Mounts: []string{inside}}, `command: [x], mounts: {` + inside + `/../data/../..: /x}`, true, "is not below"},
		"mount by a link that leads out":            {Policy{Mounts: []string{root}}, `command: [x], mounts: {` + root + `/escape: /x}`, true, "is not below"},
		"mount of what is not there":                {Policy{Mounts: []string{root}}, `command: [x], mounts: {` + root + `/nothing: /x}`, true, "it must be there before"},
		"mount for writing, read only":              {Policy{Mounts: []string{root}}, `command: [x], mounts: {` + inside + `: "/x:rw"}`, true, ":rw"},
		"mount for writing":                         {Policy{Mounts: []string{root + ":rw"}}, `command: [x], mounts: {` + inside + `: "/x:rw"}`, true, ""},
		"mount for writing, one for reading above":  {Policy{Mounts: []string{root, inside + ":rw"}}, `command: [x], mounts: {` + inside + `: "/x:rw"}`, true, ""},
		"mount for writing, says what to allow":     {Policy{Mounts: []string{root}}, `command: [x], mounts: {` + inside + `: "/x:rw"}`, true, "[" + inside + ":rw]"},
		"mount of what is not there, and not below": {Policy{Mounts: []string{inside}}, `command: [x], mounts: {` + root + `/nothing: /x}`, true, "is not below"},
		"a sibling with the same start":             {Policy{Mounts: []string{filepath.Join(root, "da")}}, `command: [x], mounts: {` + inside + `: /x}`, true, "is not below"},
		"passthrough of what is set":                {nothing, `command: [x], env_passthrough: [TEST_POLICY_SET]`, false, "policy.env_passthrough"},
		"passthrough that is listed":                {Policy{EnvPassthrough: []string{"TEST_POLICY_SET"}}, `command: [x], env_passthrough: [TEST_POLICY_SET]`, true, ""},
		"passthrough of what is not set":            {nothing, `command: [x], env_passthrough: [TEST_POLICY_NOT_SET]`, true, ""},
		"passthrough of what all get":               {nothing, `command: [x], env_passthrough: [PATH, HOME]`, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := contracts.ParseContracts("", []byte("{name: x, engine: docker, engine_spec: {image: x, "+test.spec+"}}"))
			if err != nil {
				t.Fatal(err)
			}
			err = test.policy.CheckContract(list[0], list[0].Spec, test.inline)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("denied: %v", err)
			case test.want != "" && (err == nil || contracts.AsError(err).Code != contracts.PolicyDenied || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// Shell text is the operator's to write; a contract from the bus needs permission.
func TestPolicyShell(t *testing.T) {
	list, err := contracts.ParseContracts("", []byte("{name: x, engine: local, engine_spec: {command: id, shell: true}}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ inline, allowed, ok bool }{{false, false, true}, {true, false, false}, {true, true, true}} {
		err := Policy{Shell: test.allowed}.CheckContract(list[0], list[0].Spec, test.inline)
		if (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// To be without a sandbox is the operator's to allow, whoever wrote the contract.
func TestPolicyUnsandboxed(t *testing.T) {
	for _, spec := range []string{"engine_spec: {command: [id], sandbox: none}", "engineSpec: {command: [id], sandbox: none}"} {
		list, err := contracts.ParseContracts("", []byte("{name: x, engine: local, "+spec+"}"))
		if err != nil {
			t.Fatal(err)
		}
		for _, inline := range []bool{false, true} {
			err := Policy{InlineContracts: true, Shell: true, Privileged: true}.CheckContract(list[0], list[0].Spec, inline)
			if err == nil || contracts.AsError(err).Code != contracts.PolicyDenied || !strings.Contains(err.Error(), "policy.local.unsandboxed") {
				t.Errorf("%s, inline %v: %v", spec, inline, err)
			}
			if err := (Policy{Local: Local{Unsandboxed: true}}).CheckContract(list[0], list[0].Spec, inline); err != nil {
				t.Errorf("%s, inline %v, allowed: %v", spec, inline, err)
			}
		}
	}
	// As a fallback it is asked for like any other.
	list, err := contracts.ParseContracts("", []byte("{name: x, engine: docker, engine_spec: {command: [id], image: x}, fallback: [{engine: local, engine_spec: {command: [id], sandbox: none}}]}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (Policy{}).CheckContract(list[0], list[0].SpecFor("local"), false); err == nil {
		t.Error("a fallback without a sandbox is allowed")
	}
	if err := (Policy{}).CheckContract(list[0], list[0].Spec, false); err != nil {
		t.Errorf("the container is denied: %v", err)
	}
}

// Only what the operator lists is passed on, and what every tool gets from its engine never comes from the executor.
func TestPassthrough(t *testing.T) {
	t.Setenv("TEST_POLICY_SET", "value")
	t.Setenv("TEST_POLICY_OTHER", "other")
	p := Policy{EnvPassthrough: []string{"TEST_POLICY_SET", "TEST_POLICY_NOT_SET"}}
	got := p.passthrough(&contracts.CommonSpec{EnvPassthrough: []string{"TEST_POLICY_SET", "TEST_POLICY_OTHER", "TEST_POLICY_NOT_SET", "PATH"}})
	if len(got) != 1 || got["TEST_POLICY_SET"] != "value" {
		t.Errorf("%v", got)
	}
}
