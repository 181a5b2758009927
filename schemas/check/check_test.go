package check_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/schemas/check"
)

// TestSays pins what a person reads. A message names the place and what is allowed there.
func TestSays(t *testing.T) {
	for _, c := range []struct{ schema, document, want string }{
		{"request", `{"tool": "a"} x`, "is not JSON: invalid character after top-level value"},
		{"request", ``, "is not JSON: EOF"},
		{"request", `[]`, "is a list; it must be a mapping (One ask to run a contract, published to tools.exec.<engine> or asked of tools.run and tools.stream: a tool that the executors know by name, or a contract of its own if the operator's policy allows it)"},
		{"request", `{}`, "exactly one of tool and contract must be given"},
		{"request", `{"tool": "a", "version": "1", "contract": {"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}}`, "exactly one of tool and contract must be given"},
		{"request", `{"contract": {"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}, "version": "1"}`, "version belongs to tool, which is missing"},
		{"request", `{"tool": "a", "arg": {}, "id": "a b"}`, "arg: unknown key; known are args, context, contract, deadline, fallback, id, labels, priority, queue_timeout, reply_to, stdin, stdin_base64, timeout, tool, version\n" +
			`id: "a b" does not match ^[A-Za-z0-9_-]{1,64}$ (1 to 64 of the characters A-Z a-z 0-9 _ and -; not q and a digit first, as ids begin that executors make)`},
		{"request", `{"tool": "a", "id": "q7"}`, "id: begins with q and a digit, as ids do that executors make; choose another"},
		{"request", `{"tool": "a", "priority": "urgent"}`, `priority: must be one of "high", "normal", "low"`},
		{"request", `{"tool": "a", "timeout": 0}`, `timeout: must be above 0 (Seconds as a number (30, 0.5), or text with units ("1m30s", "500ms"; h, m, s, ms, us, ns), above 0)`},
		{"request", `{"tool": "a", "timeout": true}`, `timeout: is true or false; it must be a number or text (Seconds as a number (30, 0.5), or text with units ("1m30s", "500ms"; h, m, s, ms, us, ns), above 0)`},
		{"request", `{"tool": "a", "deadline": "tomorrow"}`, `deadline: "tomorrow" is not a date-time (A time as 2026-01-31T15:04:05Z (RFC 3339, capital T and Z))`},
		{"request", `{"tool": "a", "fallback": ["docker", "docker"]}`, "fallback: docker is there twice; an engine is tried once\nfallback: has a value twice (0 and 1)"},
		{"request", `{"tool": "a", "fallback": ["kubernetes"]}`, `fallback[0]: must be one of "local", "docker", "dagger", "docker-sdk", "docker_sdk"`},
		{"contract", `{"name": "a", "engine": "local"}`, "exactly one of engine_spec and engineSpec must be given"},
		{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": "ls -l"}}`, `engine_spec.command: is text; it must be a list (One string is shell text, which takes the local engine and shell: true; else write a list, as ["ls", "-l"])`},
		{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": "ls {{args.a}}", "shell": true}}`, "engine_spec.command: holds a placeholder: arguments are never put into shell text; use $ARG_<NAME> in it"},
		{"contract", `{"name": "a", "engine": "docker", "engine_spec": {"command": ["a"]}}`, "engine_spec: image is missing"},
		{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": ["a"], "mounts": {"/a": "b"}}}`, `engine_spec.mounts./a: "b" does not match ^/+[^/:\x00][^:\x00]*(:(ro|rw))?$ (An absolute path below /, and :ro or :rw behind it if wanted, as "/data:ro")`},
		{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": ["a"], "env": {"A-B": "x"}}}`, `engine_spec.env: "A-B" is not a key that may be here (Letters, digits and _, no digit first)`},
		{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}, "fallback": ["docker", "local"]}`,
			"fallback[0]: is text; it must be a mapping (The contract's engine_spec does not fit this engine; write {engine: …, engine_spec: …})\n" +
				"fallback[1]: is text; it must be a mapping (The contract's engine_spec does not fit this engine; write {engine: …, engine_spec: …})\n" +
				"fallback[1]: is the contract's own engine; an engine is tried once"},
		{"contract", `{"tools": [{"name": "a", "engine": "local", "engine_spec": {}}]}`, "tools[0].engine_spec: command is missing"},
		{"configuration", `{"nats": {"replicas": 9, "urls": []}, "log": {"level": "loud"}}`, "log.level: must be one of \"debug\", \"info\", \"warn\", \"error\"\nnats.replicas: must be at most 5\nnats.urls: must not be empty (The servers, as nats://host:4222, tls:// or ws://)"},
		{"configuration", `{"nats": {"replicas": "three", "ack_wait": 0.5}}`, "nats.ack_wait: must be at least 1 (Seconds as a number (30, 0.5), or text with units (\"1m30s\", \"500ms\"; h, m, s, ms, us, ns), above 0)\nnats.replicas: is text; it must be a whole number"},
		{"configuration", `{"execution": {"max_output_bytes": "64 megs"}}`, `execution.max_output_bytes: "64 megs" does not match ^[0-9]{1,19}(\.[0-9]{1,19})?( ?(k|m|g|t|kb|mb|gb|tb|Ki|Mi|Gi|Ti|KiB|MiB|GiB|TiB))?$ (Bytes as a whole number (1048576), or text with a unit ("512Mi", "512m"; Ki Mi Gi Ti, KiB …, or k m g t, kb …, all counting in 1024))`},
		{"event", `{"type": "output"}`, `type: must be one of "accepted", "started", "progress", "running", "fallback", "retry", "finished", "error", "discovery", "declarations"`},
		{"event", `{"type": "finished", "id": "a", "attempt": 1, "executor": "e", "time": "2026-01-01T00:00:00Z"}`, "status is missing"},
		{"event", `{"type": "retry", "id": "a", "attempt": 1, "executor": "e", "time": "2026-01-01T00:00:00Z", "code": "tired", "reason": ""}`, `code: must be one of "invalid_request", "id_conflict", "unknown_tool", "invalid_args", "policy_denied", "unsupported", "queue_full", "engine_unavailable", "image_unavailable", "spawn_failed", "exit_nonzero", "signalled", "oom_killed", "timeout", "output_limit", "cancelled", "expired", "executor_lost", "internal"`},
		{"result", `{"type": "result", "id": "a", "status": "fine", "stdout_bytes": 0}`, "stderr_bytes is missing\nstatus: must be one of \"succeeded\", \"failed\", \"timed_out\", \"cancelled\", \"rejected\", \"unavailable\", \"expired\", \"lost\", \"unknown\""},
	} {
		err := check.JSON(c.schema, []byte(c.document))
		if err == nil {
			t.Errorf("%s %s: accepted", c.schema, c.document)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.schema, c.document, err, c.want)
		}
		if wd, _ := os.Getwd(); strings.Contains(err.Error(), wd) || strings.Contains(err.Error(), "file:") || strings.Contains(err.Error(), "schema.json") {
			t.Errorf("%s %s: the message names a file: %s", c.schema, c.document, err)
		}
	}
}

// TestIsBounded: a document can make us neither panic nor say more than fits on a screen.
func TestIsBounded(t *testing.T) {
	for _, n := range []string{"1e999999999", "-1e999999999", "1e-999999999", "0e999999999", "1" + strings.Repeat("0", 5000)} {
		want := n == "1e-999999999"
		for _, key := range []string{"timeout", "queue_timeout"} {
			if err := check.JSON("request", []byte(`{"tool": "a", "`+key+`": `+n+`}`)); (err == nil) != want {
				t.Errorf("%s %.20s: %v", key, n, err)
			}
		}
		if err := check.JSON("request", []byte(`{"tool": "a", "args": {"x": `+n+`}}`)); err != nil {
			t.Errorf("args %.20s: %v", n, err)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, `, "k%d": 1`, i)
	}
	if err := check.JSON("request", []byte(`{"tool": "a"`+many.String()+`}`)); err == nil || strings.Count(err.Error(), "\n") != 19 {
		t.Errorf("a thousand mistakes: %.200v", err)
	}
	if err := check.Value("result", func() {}); err == nil {
		t.Error("a function is a result")
	}
}
