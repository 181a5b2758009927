package schemas_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas/check"
)

// The documents below are judged by the schema and by the program, and both must say the same. A contract is written as
// the rest of one for the local engine where it begins with "~", and as the rest of an engine_spec where with "^".

var accepted = map[string][]string{
	"contract": {
		`{name: a, engine: local, engine_spec: {command: [a]}}`,
		`{"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}`,
		"{tools: []}\n---\n{name: a, engine: local, engine_spec: {command: [a]}}\n",
		"tools:\n- {name: a, engine: local, engine_spec: &s {command: [a]}}\n- {name: b, engine: local, engine_spec: {<<: *s, timeout: 1}}\n",
		`{tools: [{name: a, engine: local, engine_spec: {command: [a]}}, {name: a, version: "2", engine: local, engine_spec: {command: [a]}}]}`,
		"name: a\nengine: local\nengine_spec: {command: [a]}\n---\nname: b\nengine: local\nengine_spec: {command: [a]}\n---\n",
		`{name: _a-Z9, engine: dagger, engineSpec: {command: [a]}, params: []}`,
		`{name: a, engine: docker_sdk, engineSpec: {command: [a], image: b}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b}, fallback: [dagger]}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b}, fallback: [{engine: dagger}, {engine: local, engine_spec: {command: [a]}}]}`,
		`{name: a, engine: dagger, engine_spec: {command: [a], image: b}, fallback: [docker-sdk]}`,
		`{name: a, engine: dagger, engine_spec: {command: [a], image: ""}, fallback: [{engine: docker, engine_spec: {command: [a], image: b}}]}`,
		"~ version: 1.0.0-rc1, description: '', language: go, examples: [null, 1], sample_data_files: [], integration: {a: null}",
		"~ args_env: raw, on_output_limit: stop, base_dir: ''",
		"~ parameters: []", "~ parameters: {}", "~ params: {type: object, properties: {}, required: [], additionalProperties: false}",
		"~ parameters: {properties: {a: {}, b.c-d: {type: int, required: 'FALSE', default: 1e0, enum: [1, 2.0]}}, required: [a], additionalProperties: false}",
		"~ parameters: [{name: a, type: str, default: b, enum: [b]}, {name: b, type: float, default: 1.5}, {name: c, type: list, enum: [[1]]}, {name: d, type: map, default: {}}]",
		"~ parameters: [{name: a, type: any, default: [null], enum: [[null], null]}, {name: b, default: null, required: 'True'}, {name: c, type: boolean, enum: [true, false]}]",
		"~ parameters: [{name: a, type: integer, default: 1e100}, {name: b, type: number, default: 7}]",
		"^ cwd: '', stdin: '', network: ''", "^ working_dir: a b", "^ network: my-net",
		"^ env: {A: 1, _b: 1.5, C: true, D: '', E: .inf, F: 2026-01-01}", "^ env: {}", "^ env_passthrough: [A, _]", "^ env_passthrough: []",
		"^ timeout: 0.001", "^ timeout: 300", "^ timeout: 1h2m3.5s", "^ timeout: +.5s", "^ timeout: 1µs", "^ timeout: 1.s",
		"^ memory_limit: 1048576", "^ memory_limit: '1048576'", "^ memory_limit: 512Mi", "^ memory_limit: 0.5g", "^ memory_limit: 1 KiB", "^ memory_limit: 1tb",
		"^ cpu_limit: 1.5", "^ cpu_limit: '0.5'", "^ cpu_limit: 0.0005", "^ cpu_limit: 1e3", "^ cpu_limit: 1500m", "^ cpu_limit: 4096", "^ cpu_limit: 0001m",
		"^ pids_limit: 1", "^ capture_output: false", "^ mounts: {}", "^ mounts: []", "^ cache_mounts: {}",
		"^ mounts: {/a: /b, b: '/c:ro', 'c d': '//d/../e:rw'}", "^ mounts: ['a:/b', './c:/d:rw', 'e:/f/']",
		"^ cache_mounts: {pip: ~/.cache/pip, a.b: /, c: ~/a/../b, d: '~/...', e: '/c:d'}", "^ cache_mounts: ['pip:~/.cache/pip', 'a:/b:c']",
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: []}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: [sh, '']}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: [/a, //b/c]}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: {/a: 1, /b/../c: 64Ki}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, shm_size: 1}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {nofile: 1024}}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {core: -1, nproc: '1:-1', cpu: '5'}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: all}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: 2}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: 'GPU-1,GPU-2'}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: linux/amd64}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: linux/arm/v7}}`,
		"~ fallback: []", "~ fallback: [{engine: docker, engineSpec: {command: [a], image: b, user: '', privileged: true, read_only: false}}]",
		"~ retry: {max_attempts: 1}", "~ retry: {max_attempts: 100, backoff: 0.5, max_backoff: 1m, on: [failed, timed_out, lost, unavailable]}, delivery: at_least_once",
		"~ delivery: at_most_once", "~ delivery: at_most_once, retry: {max_attempts: 2, on: [unavailable]}",
		"~ concurrency: 1", "~ concurrency: 10000, concurrency_key: '{{args.a}}-{{ context.b }} é'",
		`{name: a, engine: local, engine_spec: {command: "echo $ARG_A {args.a}", shell: true}}`,
		`{name: a, engine: local, engine_spec: {command: [echo, $ARG_A], shell: true, capture_output: true}}`,
		`{name: a, engine: local, engine_spec: {command: [echo, "{{args.a}}", "x{{ context.b-c }}", ""], shell: false}}`,
		`{name: a, engine: local, engine_spec: {command: [a], sandbox: none}}`, `{name: a, engine: local, engineSpec: {command: [a], sandbox: namespaces}}`,
	},
	"request": {
		`{"tool": "a"}`,
		`{"tool": "a", "id": "01JD", "version": "1", "args": {}, "context": {}, "stdin": "", "labels": {}}`,
		`{"tool": "a", "args": {"a": null, "b": [1, {"c": 1e999999999}], "": 1, "not a name": 2}, "context": {"x": 1.50}}`,
		`{"tool": "a", "id": "q"}`, `{"tool": "a", "id": "qq7"}`, `{"tool": "a", "id": "-"}`,
		`{"tool": "a", "stdin_base64": ""}`, `{"tool": "a", "stdin_base64": "/w=="}`, `{"tool": "a", "stdin_base64": "YWJj\nZGU=\r\n"}`,
		`{"tool": "a", "timeout": 0.5, "queue_timeout": "1m"}`, `{"tool": "a", "timeout": 9e9}`,
		`{"tool": "a", "deadline": "2026-01-31T15:04:05Z"}`, `{"tool": "a", "deadline": "2028-02-29T15:04:05.123456789123-07:30"}`,
		`{"tool": "a", "priority": "high", "fallback": []}`, `{"tool": "a", "fallback": ["dagger", "docker_sdk", "local"]}`,
		`{"tool": "a", "reply_to": "_INBOX.a.b"}`, `{"tool": "a", "reply_to": "a*.>b.**.é"}`, `{"tool": "a", "reply_to": "` + strings.Repeat("x", 256) + `"}`,
		`{"tool": "a", "labels": {"a": "", "": "` + strings.Repeat("x", 256) + `"}}`,
		`{"contract": {"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}}`,
		`{"contract": {"name": "a", "engine": "docker-sdk", "engineSpec": {"command": ["a"], "image": "b"}, "base_dir": "/x"}}`,
	},
	"follow": {
		`{"id": "a"}`, `{"id": "q1767225600-17", "from": 0, "attempt": 0, "snapshot": false, "skip_output": false}`,
		`{"id": "Az09_-", "from": 18446744073709551615, "attempt": 7, "snapshot": true, "skip_output": true}`,
	},
	"discover": {`{}`, `{"tool": ""}`, `{"tool": "a b"}`, `{"as": "openai"}`, `{"as": "anthropic", "tool": "a"}`, `{"as": "mcp"}`},
	"configuration": {
		"", "# nothing\n", "{}", "{nats: {}, executor: {}, execution: {local: {}, dagger: {resource_limits: {}}}, policy: {}, tools: {}, http: {}, log: {}}",
		"nats: {urls: ['nats://a', 'tls://b'], creds: a, nkey: b, user: c, password: d, token: e, tls: {ca: a, cert: b, key: c}}",
		"nats: {subject_prefix: '', inbox_prefix: a_9, connect_timeout: 0.1, replicas: 5, ack_wait: 1}", "nats: {subject_prefix: Agents-2}",
		"nats: {streams: {queue_messages: 1, queue_bytes: 1Mi, reply_age: 60, reply_bytes: 1048576, result_age: 1m, result_bytes: 1mb, dead_age: 60s, dead_bytes: 1m}}",
		"executor: {name: '', slots: 0, max_attempts: 1, drain_timeout: 0, data_dir: '', spill_bytes: 0}", "executor: {spill_bytes: 512Mi}", "executor: {name: a-b_9, slots: 10000, drain_timeout: -0s}",
		"execution: {default_engine: dagger, enable_sandboxing: false, max_execution_time: 0.1, cleanup_temp_files: false, result_inline_bytes: 1Ki, max_output_bytes: 0}",
		"execution: {local: {sandbox: {mode: namespaces, min_tier: none, paths: [/opt, '/nix/*'], user: 1, work_size: 64Ki, tmp_size: 64Ki, shm_size: 1Gi, file_size: 1, open_files: 64, pids_limit: 0, memory_limit: 1Mi}}}", "execution: {local: {sandbox: {pids_limit: 4194304, memory_limit: 0}}}", "policy: {local: {commands: [/usr/bin/python3, /opt/tools/], unsandboxed: true}}", "policy: {local: {commands: []}}", "execution: {local: {sandbox: {mode: none}}}", "execution: {local: {sandbox: {mode: bubblewrap, min_tier: landlock}}}", "execution: {local: {sandbox: {mode: landlock, min_tier: bubblewrap}}}",
		"execution: {local: {enabled: false, path: a, env: {A: 1}, kill_grace: 0}, dagger: {enabled: true, session_timeout: 0, default_image: a, mount_docker_socket: true, resource_limits: {cpu: 1000m, memory: 0}}}",
		"execution: {docker: {enabled: true, slots: 3, host: 'ssh://a@b', tls: {ca: a, cert: b, key: c}, runtime: runsc, program: a, user: '1', network: bridge, read_only: false, resource_limits: {cpu: 1, memory: 1Gi}, pids_limit: 0}}",
		"execution: {docker: {home_size: 64Ki, tmp_size: 1Mi, shm_size: 1Mi, env: {A: b}, pull: always, pre_pull: [python], credentials_dir: a, kill_grace: 0, call_timeout: 1, pull_timeout: 1m, warm: {each: 0, total: 0, memory: 0, max_age: 1}}}",
		"policy: {root: true, gpus: true, images: ['python:*', 'ghcr.io/a/**']}",
		"policy: {inline_contracts: true, shell: true, network: [host], mounts: [/a, '/b:rw'], env_passthrough: [A], privileged: true, docker_socket: true, reply_prefixes: []}",
		"tools: {directories: [a, /b], registry: false}", "tools:\n  registry: ${SCHEMAS_TEST_UNSET:-true}", "http: {listen: ''}", "log: {level: debug, format: json}",
		"executor:\n  slots: ${SCHEMAS_TEST_SLOTS}\n  name: '${SCHEMAS_TEST_NAME:-a}'\n  drain_timeout: -0.1ns", "log:\n  level: ${SCHEMAS_TEST_LEVEL:-warn}", "execution:\n  enable_sandboxing: ${SCHEMAS_TEST_UNSET:-false}",
		"nats:\n  replicas: ${SCHEMAS_TEST_SLOTS}\n  ack_wait: ${SCHEMAS_TEST_SLOTS}s\n  urls:\n  - nats://${SCHEMAS_TEST_NAME}:4222",
	},
}

var refused = map[string][]string{
	"contract": {
		`[]`, `text`, `{}`, `{name: a}`, `{name: a, engine: local}`, `{engine: local, engine_spec: {command: [a]}}`, `{name: a, engine_spec: {command: [a]}}`,
		`{name: a, engine: k8s, engine_spec: {command: [a]}}`, `{name: a, engine: 1, engine_spec: {command: [a]}}`, `{name: a, engine: null, engine_spec: {command: [a]}}`,
		`{name: a b, engine: local, engine_spec: {command: [a]}}`, `{name: -a, engine: local, engine_spec: {command: [a]}}`, `{name: 1, engine: local, engine_spec: {command: [a]}}`,
		`{name: ` + strings.Repeat("a", 65) + `, engine: local, engine_spec: {command: [a]}}`,
		`{tools: {}}`, `{tools: null}`, `{tools: [a]}`, `{tools: [{}], name: a}`, `{tools: [{tools: []}]}`,
		`{name: a, engine: local, engine_spec: null}`, `{name: a, engine: local, engine_spec: []}`, `{name: a, engine: local, engine_spec: {}}`,
		`{name: a, engine: local, engine_spec: {command: [a]}, engineSpec: {command: [a]}}`,
		"~ Version: '1'", "~ version: ''", "~ args_env: ''", "~ on_output_limit: ''", "~ parameters: [{name: a, type: ''}]", "~ parameters: {type: ''}", "~ parameters: [{name: a, enum: []}]", "~ parameters: [{name: ''}]",
		"~ retry: null", "~ retry: {}", "~ retry: 3", "~ retry: {max_attempts: 0}", "~ retry: {max_attempts: 101}", "~ retry: {max_attempts: 2, on: []}", "~ retry: {max_attempts: 2, on: [succeeded]}",
		"~ retry: {max_attempts: 2, on: failed}", "~ retry: {max_attempts: 2, backoff: 0}", "~ retry: {max_attempts: 2, max_backoff: 0s}", "~ retry: {max_attempts: 2, factor: 2}",
		"~ delivery: exactly_once", "~ delivery: ''", "~ delivery: at_most_once, retry: {max_attempts: 2}", "~ delivery: at_most_once, retry: {max_attempts: 2, on: [unavailable, failed]}",
		"~ concurrency: 0", "~ concurrency: 10001", "~ concurrency: '1'", "~ concurrency_key: a", "~ concurrency: 1, concurrency_key: ''", `~ concurrency: 1, concurrency_key: "a\0"`,
		"~ fallback: ['']", "~ fallback: [{}]", "~ fallback: [{engine_spec: {command: [a]}}]", "~ parameters: {additionalProperties: {type: string}}", "~ parameters: {additionalProperties: null}", `{name: '', engine: local, engine_spec: {command: [a]}}`, `{tools: [{name: a, engine: local, engine_spec: {command: [a]}}], version: "1"}`,
		"~ version: 1.0", "~ version: ' 1'", "~ description: 1", "~ description: null", "~ args_env: both", "~ on_output_limit: Drop", `~ base_dir: "\0"`,
		"~ parameters: [], params: []", "~ parameters: a", "~ parameters: null", "~ parameters: [a]", "~ parameters: [{}]", "~ parameters: [{name: 1a}]", "~ parameters: [{name: a, type: text}]",
		"~ parameters: [{name: a, required: maybe}]", "~ parameters: [{name: a, required: 1}]", "~ parameters: [{name: a, default: 1}]", "~ parameters: [{name: a, type: integer, default: 1.5}]",
		"~ parameters: [{name: a, type: int, enum: ['1']}]", "~ parameters: [{name: a, type: bool, enum: [null]}]", "~ parameters: [{name: a, enum: b}]", "~ parameters: [{name: a, min: 1}]",
		"~ parameters: {type: array}", "~ parameters: {properties: []}", "~ parameters: {properties: {a b: {}}}", "~ parameters: {properties: {a: null}}", "~ parameters: {properties: {a: {items: {}}}}",
		"~ parameters: {properties: {a: {name: a}}}", "~ parameters: {additionalProperties: true}", "~ parameters: {required: a}", "~ parameters: {$schema: a}",
		"~ examples: {}", "~ sample_data_files: a", "~ integration: []", "~ language: [go]",
		"~ fallback: docker", "~ fallback: [docker]", "~ fallback: [local]", "~ fallback: [{engine: docker}]", "~ fallback: [k8s]", "~ fallback: [null]", "~ fallback: [[]]", "~ fallback: [1]",
		"~ fallback: [{engine: docker, engine_spec: {command: [a]}}]", "~ fallback: [{engine: dagger, engine_spec: {command: [a], shell: true}}]",
		"~ fallback: [{engine: dagger, engine_spec: {command: [a]}}, {engine: dagger, engine_spec: {command: [b]}}]",
		"~ fallback: [{engine: docker, engine_spec: {command: [a], image: a}}, {engine: docker-sdk, engine_spec: {command: [a], image: a}}]",
		"~ fallback: [{engine: dagger, engine_spec: {command: [a]}, engineSpec: {command: [a]}}]", "~ fallback: [{engine: dagger, engine_spec: {command: [a]}, timeout: 1}]",
		`{name: a, engine: docker, engine_spec: {command: [a], image: b}, fallback: [local]}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b}, fallback: [docker-sdk]}`,
		`{name: a, engine: dagger, engine_spec: {command: [a]}, fallback: [docker]}`, `{name: a, engine: dagger, engineSpec: {command: [a], image: ''}, fallback: [{engine: docker}]}`,
		`{name: a, engine: docker, engine_spec: {command: [a]}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: "a b"}}`, `{name: a, engine: dagger, engine_spec: {command: [a], user: "a\n"}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: ''}}`, `{name: a, engine: docker, engine_spec: {command: a, image: b}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, shell: true}}`, `{name: a, engine: dagger, engine_spec: {command: a b}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: a}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: ['']}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: null}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, entrypoint: [1]}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: /a}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: [a]}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: [/]}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: ['/a:b']}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: {/a: 0}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: {/a: null}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, tmpfs: {a: 1}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, shm_size: 0}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, shm_size: -1}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: []}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {files: 1}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {nofile: -2}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {nofile: '1:'}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {nofile: 1.5}}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, ulimits: {nofile: many}}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: 0}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: 1000}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: true}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: ''}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: [all]}}`,
		`{name: a, engine: docker, engine_spec: {command: [a], image: b, gpus: 'a,'}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: linux}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: Linux/amd64}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: ''}}`, `{name: a, engine: docker, engine_spec: {command: [a], image: b, platform: 1}}`,
		"^ image: a", "^ privileged: true", "^ cwd: a, working_dir: a", "^ cwd: 1", `^ cwd: "\0"`, "^ shell: 'true'", "^ shell: 1", `{name: a, engine: docker, engine_spec: {command: [a], image: b, sandbox: none}}`,
		`{name: a, engine: local, engine_spec: {command: [a], sandbox: strong}}`, `{name: a, engine: local, engine_spec: {command: [a], sandbox: ""}}`, `{name: a, engine: local, engineSpec: {command: [a], sandbox: false}}`,
		"^ env: []", "^ env: [A=b]", "^ env: {A: null}", "^ env: {A: []}", "^ env: {1A: b}", "^ env: {A-B: c}", `^ env: {A: "\0"}`, "^ env_passthrough: A", "^ env_passthrough: [A=b]", "^ env_passthrough: ['']",
		"^ timeout: 0", "^ timeout: -1", "^ timeout: 0s", "^ timeout: -1s", "^ timeout: '30'", "^ timeout: 1 min", "^ timeout: 1d", "^ timeout: 1e10", "^ timeout: true", "^ timeout: []", "^ timeout: ''",
		"^ memory_limit: 0", "^ memory_limit: 1MB", "^ memory_limit: '1 '", "^ memory_limit: 1kib", "^ memory_limit: 12345678901234567890k", "^ memory_limit: -1", "^ memory_limit: 0Mi", "^ memory_limit: 1.5", "^ memory_limit: 1G", "^ memory_limit: 1 GB extra", "^ memory_limit: Mi", "^ memory_limit: 1e6Ki", "^ memory_limit: [1]",
		"^ cpu_limit: 0", "^ cpu_limit: 0.0004", "^ cpu_limit: 0x1p-2", "^ cpu_limit: '1_0'", "^ cpu_limit: '+1'", "^ cpu_limit: -1", "^ cpu_limit: 0m", "^ cpu_limit: 1.5m", "^ cpu_limit: 4097", "^ cpu_limit: two", "^ cpu_limit: inf", "^ cpu_limit: true",
		"^ pids_limit: 0", "^ pids_limit: '1'", "^ pids_limit: 1.5", "^ network: a b", "^ network: a/b", "^ network: none, Network: none", "^ stdin: 1", "^ stdin: null", "^ capture_output: 'false'",
		"^ mounts: a:/b", "^ mounts: {'': /a}", "^ mounts: {a: ''}", "^ mounts: {a: /}", "^ mounts: {a: '//:rw'}", "^ mounts: {'a:b': /c}", "^ mounts: ['a:/b:c:ro']", `^ mounts: {a: "/b\0"}`, `^ mounts: {"a\0": /b}`, `^ cache_mounts: {a: "/b\0"}`, "^ cache_mounts: ['a:']", "^ mounts: {a: b}", "^ mounts: {a: '/b:rx'}", "^ mounts: {a: {target: /b}}", "^ mounts: {a: null}", "^ mounts: [a]", "^ mounts: [':/b']", "^ mounts: ['a:b']", "^ mounts: ['a:/b:']", "^ mounts: [{a: /b}]",
		"^ cache_mounts: pip", "^ cache_mounts: {pip: cache}", "^ cache_mounts: {pip: ~}", "^ cache_mounts: {pip: ~/}", "^ cache_mounts: {pip: ~/../a}", "^ cache_mounts: {pip: ~/..}", "^ cache_mounts: {pip: ~//a}", "^ cache_mounts: {a b: /c}", "^ cache_mounts: {.a: /c}",
		"^ cache_mounts: ['pip']", "^ cache_mounts: ['pip:~/../a']", "^ cache_mounts: [':/a']",
		`{name: a, engine: local, engine_spec: {command: []}}`, `{name: a, engine: local, engine_spec: {command: ['']}}`, `{name: a, engine: local, engine_spec: {command: ''}}`, `{name: a, engine: local, engine_spec: {command: [1]}}`,
		`{name: a, engine: local, engine_spec: {command: a b}}`, `{name: a, engine: local, engine_spec: {command: a b, shell: false}}`, `{name: a, engine: local, engine_spec: {command: null}}`, `{name: a, engine: local, engine_spec: {command: {a: b}}}`,
		`{name: a, engine: local, engine_spec: {command: "a {{args.b}}", shell: true}}`, `{name: a, engine: local, engine_spec: {command: [a, "{{ context.b }}"], shell: true}}`, `{name: a, engine: local, engine_spec: {command: [a, "\0"]}}`,
	},
	"request": {
		``, `null`, `[]`, `"a"`, `{`, `{}`, `{"tool": null}`, `{"tool": ""}`, `{"tool": "a b"}`, `{"tool": 1}`, `{"tool": "a"} {}`, `{"tool": "a",}`,
		`{"tool": "a", "contract": {"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}}`, `{"tool": "a", "contract": null}`, `{"contract": {}}`, `{"contract": []}`,
		`{"contract": {"tools": [{"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}]}}`, `{"version": "1", "contract": {"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}}}`,
		`{"tool": "a", "version": ""}`, `{"tool": "a", "version": 1}`, `{"tool": "a", "version": "-1"}`, `{"Tool": "a"}`, `{"tool": "a", "Args": {}}`, `{"tool": "a", "arguments": {}}`, `{"tool": "a", "engine": "local"}`,
		`{"tool": "a", "id": ""}`, `{"tool": "a", "id": "a.b"}`, `{"tool": "a", "id": "q1"}`, `{"tool": "a", "id": 1}`, `{"tool": "a", "id": "` + strings.Repeat("x", 65) + `"}`, `{"tool": "a", "id": "a\n"}`,
		`{"tool": "a", "args": []}`, `{"tool": "a", "args": null}`, `{"tool": "a", "context": "x"}`, `{"tool": "a", "stdin": 1}`, `{"tool": "a", "stdin": "a", "stdin_base64": "YQ=="}`,
		`{"tool": "a", "stdin_base64": "YQ"}`, `{"tool": "a", "stdin_base64": 1234}`, `{"tool": "a", "stdin_base64": true}`, `{"tool": "a", "stdin_base64": "Y===="}`, `{"tool": "a", "stdin_base64": "YQ==YQ=="}`, `{"tool": "a", "stdin_base64": "_w=="}`, `{"tool": "a", "stdin_base64": [1]}`,
		`{"tool": "a", "timeout": 0}`, `{"tool": "a", "timeout": "0s"}`, `{"tool": "a", "timeout": -1}`, `{"tool": "a", "timeout": "1"}`, `{"tool": "a", "queue_timeout": 0}`, `{"tool": "a", "queue_timeout": null}`, `{"tool": "a", "timeout": 1e999999999}`,
		`{"tool": "a", "deadline": "2026-01-31"}`, `{"tool": "a", "deadline": "2026-01-31T15:04:05+24:00"}`, `{"tool": "a", "deadline": "2026-01-31T1:04:05Z"}`, `{"tool": "a", "deadline": "2026-01-31T15:04:05,5Z"}`, `{"tool": "a", "deadline": "2026-01-31 15:04:05Z"}`, `{"tool": "a", "deadline": "2026-02-30T15:04:05Z"}`, `{"tool": "a", "deadline": "2026-01-31t15:04:05Z"}`, `{"tool": "a", "deadline": "2026-01-31T15:04:05z"}`, `{"tool": "a", "deadline": 1769871845}`, `{"tool": "a", "deadline": ""}`,
		`{"tool": "a", "priority": ""}`, `{"tool": "a", "priority": "urgent"}`, `{"tool": "a", "priority": "High"}`, `{"tool": "a", "priority": 1}`,
		`{"tool": "a", "fallback": "docker"}`, `{"tool": "a", "fallback": [""]}`, `{"tool": "a", "fallback": ["k8s"]}`, `{"tool": "a", "fallback": ["docker", "docker"]}`, `{"tool": "a", "fallback": ["docker", "docker-sdk"]}`, `{"tool": "a", "fallback": [{"engine": "docker"}]}`,
		`{"tool": "a", "reply_to": ""}`, `{"tool": "a", "reply_to": "a b"}`, `{"tool": "a", "reply_to": "a.*"}`, `{"tool": "a", "reply_to": ">"}`, `{"tool": "a", "reply_to": "a..b"}`, `{"tool": "a", "reply_to": ".a"}`, `{"tool": "a", "reply_to": "a."}`, `{"tool": "a", "reply_to": "a\u0000"}`, `{"tool": "a", "reply_to": "a\u007f"}`, `{"tool": "a", "reply_to": "a\u00a0"}`, `{"tool": "a", "reply_to": "` + strings.Repeat("x", 257) + `"}`,
		`{"tool": "a", "labels": []}`, `{"tool": "a", "labels": {"a": 1}}`, `{"tool": "a", "labels": {"a": "` + strings.Repeat("x", 257) + `"}}`, `{"tool": "a", "labels": {` + manyLabels(17) + `}}`,
	},
	"follow": {
		``, `null`, `[]`, `{}`, `{"id": ""}`, `{"id": null}`, `{"id": 1}`, `{"id": "a.b"}`, `{"id": "a"} {}`, `{"Id": "a"}`, `{"id": "` + strings.Repeat("x", 65) + `"}`,
		`{"id": "a", "from": -1}`, `{"id": "a", "from": 1.5}`, `{"id": "a", "from": "1"}`, `{"id": "a", "from": null}`, `{"id": "a", "attempt": -1}`, `{"id": "a", "attempt": true}`,
		`{"id": "a", "snapshot": 1}`, `{"id": "a", "snapshot": null}`, `{"id": "a", "snapshot": "true"}`, `{"id": "a", "skip_output": "no"}`, `{"id": "a", "skipOutput": true}`,
	},
	"discover": {`null`, `[]`, `"a"`, ` `, `{"tool": 1}`, `{"tool": null}`, `{"Tool": "a"}`, `{"tools": ["a"]}`, `{"as": ""}`, `{"as": "gemini"}`, `{"as": "OpenAI"}`, `{"as": null}`, `{"as": ["mcp"]}`},
	"configuration": {
		"[]", "text", "nats:", "nats: []", "nats: {url: nats://a}", "nats: {urls: []}", "nats: {urls: [1]}", "nats: {urls: [a], url: [b]}", "nat: {}", "nats: {uri: [a]}", "log: {level: INFO}", "log: {level: '7'}", "log: {level: disabled}", "execution: {dagger: {session_timeout: -1}}", "policy: {reply_prefixes: ['']}", "policy: {reply_prefixes: [_INBOX]}", "policy: {reply_prefixes: ['*.']}", "Nats: {}", "nats: {password: 1234}", "nats: {tls: true}",
		"nats: {subject_prefix: a.b}", "nats: {subject_prefix: 1a}", "nats: {inbox_prefix: ''}", "nats: {inbox_prefix: _INBOX.}", "nats: {replicas: 0}", "nats: {replicas: 6}", "nats: {replicas: three}", "nats: {ack_wait: 0.5}", "nats: {ack_wait: -1s}", "nats: {connect_timeout: 0}",
		"nats: {streams: {queue_messages: 0}}", "nats: {streams: {queue_bytes: 1024}}", "nats: {streams: {reply_age: 59}}", "nats: {streams: {dead_bytes: 1G}}", "nats: {streams: {result_age: week}}",
		"executor: {name: a.b}", "executor: {slots: -1}", "executor: {slots: 10001}", "executor: {slots: 1.5}", "executor: {max_attempts: 0}", "executor: {drain_timeout: -1}", "executor: {drain_timeout: -1s}", "executor: {data_dir: [a]}", "executor: {spill_bytes: -1}", "executor: {spill_bytes: 1T}",
		"execution: {default_engine: docker-sdk}", "execution: {default_engine: ''}", "execution: {enable_sandboxing: 'no'}", "execution: {enable_sandboxing: yes}", "execution: {max_execution_time: 0}", "execution: {result_inline_bytes: 1}", "execution: {result_inline_bytes: 67108865}", "execution: {max_output_bytes: -1}",
		"execution: {local: {path: ''}}", "execution: {local: {env: {a b: c}}}", "execution: {local: {env: [A=b]}}", "execution: {local: {kill_grace: -1}}", "execution: {dagger: {resource_limits: {cpu: 0}}}",
		"execution: {local: {sandbox: {mode: chroot}}}", "execution: {local: {sandbox: {min_tier: auto}}}", "execution: {local: {sandbox: {paths: [a]}}}", "execution: {local: {sandbox: {paths: [/]}}}",
		"execution: {local: {sandbox: {user: 0}}}", "execution: {local: {sandbox: {tmp_size: 1024}}}", "execution: {local: {sandbox: {shm_size: 0}}}", "execution: {local: {sandbox: {file_size: -1}}}",
		"execution: {local: {sandbox: {open_files: 1}}}", "execution: {local: {sandbox: {tier: none}}}", "execution: {local: {sandbox: {pids_limit: -1}}}", "execution: {local: {sandbox: {pids_limit: 4194305}}}", "execution: {local: {sandbox: {memory_limit: 1000}}}", "execution: {local: {sandbox: {memory_limit: -1}}}",
		"policy: {local: {commands: [python3]}}", "policy: {local: {commands: [/]}}", "policy: {local: {commands: /bin/sh}}", "policy: {local: {unsandboxed: 1}}", "policy: {local: [a]}", "policy: {local: {shell: true}}", "execution: {dagger: {resource_limits: {memory: 1M}}}",
		"execution: {podman: {}}",
		"execution: {docker: {host: podman}}", "execution: {docker: {user: ''}}", "execution: {docker: {network: ''}}", "execution: {docker: {pull: sometimes}}", "execution: {docker: {pids_limit: -1}}", "execution: {docker: {home_size: 1}}",
		"execution: {docker: {warm: {each: -1}}}", "execution: {docker: {warm: {size: 1}}}", "execution: {docker: {slots: 10001}}", "execution: {docker: {tls: {cert: [a]}}}", "execution: {docker: {kill_grace: -1}}", "execution: {docker: {call_timeout: 0}}", "policy: {images: python}",
		"policy: {network: host}", "policy: {shell: 1}", "policy: {reply_prefixes: [1]}", "tools: {directories: a}", "tools: [a]", "tools: {registry: 'false'}", "http: {listen: 8088}", "log: {level: loud}", "log: {level: ''}", "log: {format: text}", "log: {level: {a: b}}", "log: ${SCHEMAS_TEST_LEVEL:-warn}", "executor: {slots: '$SCHEMAS_TEST_SLOTS'}",
	},
}

func manyLabels(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"l%d": "x"`, i)
	}
	return strings.Join(list, ", ")
}

// onlyByGo are documents that the schema has to let pass.
var onlyByGo = []struct{ schema, document, why string }{
	{"contract", `{name: a, engine: local, engine_spec: {command: [a]}, name: b}`, "a JSON value has no key twice: the last one stays"},
	{"contract", "name: a\nengine: local\nengine_spec: {command: [a]}\n---\nname: a\nengine: local\nengine_spec: {command: [a]}\n", "two documents: a schema sees one at a time"},
	{"contract", `{tools: [{name: a, engine: local, engine_spec: {command: [a]}}, {name: a, engine: local, engine_spec: {command: [b]}}]}`, "the same tool twice: no comparison of parts of items"},
	{"contract", "~ version: 2026-01-01", "YAML makes a date of it, and readers of YAML a text again"},
	{"contract", "^ pids_limit: 1.0", "1.0 is a whole number for JSON Schema"},
	{"contract", "^ pids_limit: 9223372036854775808", "JSON has no largest number; Go's int64 has"},
	{"contract", "^ pids_limit: 0x10", "YAML makes 16 of it; the program takes decimals"},
	{"contract", "^ memory_limit: 1e6", "1e6 is a whole number for JSON Schema; sizes are counted in digits"},
	{"contract", "^ memory_limit: 0.3k", "no whole number of bytes: no arithmetic on text"},
	{"contract", "^ memory_limit: 9223372036854775808", "more bytes than fit: JSON has no largest number; Go's int64 has"},
	{"contract", "^ memory_limit: 99999999Ti", "more bytes than fit: no arithmetic on text"},
	{"contract", "^ timeout: 0.1ns", "0 once it is counted in nanoseconds: no arithmetic on text"},
	{"contract", "^ timeout: 1e-10", "0 once it is counted in nanoseconds; the schema's bound is 0"},
	{"contract", "^ timeout: 9999999h", "longer than fits: no arithmetic on text"},
	{"contract", "^ cpu_limit: 5000000m", "more than 4096: no arithmetic on text"},
	{"contract", "^ mounts: {a: /x/..}", "a mount over /: paths have to be cleaned first"},
	{"contract", "^ cache_mounts: {a: /x, b: /x/}", "two caches in one place: paths have to be cleaned first"},
	{"contract", `{name: a, engine: docker, engine_spec: {command: [a], image: "a\u200b"}}`, "more kinds of invisible characters than a pattern should list"},
	{"contract", `{name: a, engine: local, engine_spec: {command: [env, sh, -c, "{{args.a}}"]}}`, "an argument in shell text, wherever the shell stands in a list"},
	{"contract", "^ mounts: {a: /x, b: /x/}", "two mounts in one place: paths have to be cleaned first"},
	{"contract", "^ cache_mounts: {a: ~/b/../..}", "ends above HOME: paths have to be cleaned first"},
	{"contract", "~ parameters: [{name: a-b}, {name: a_b}]", "two arguments would meet in one variable"},
	{"contract", "~ parameters: [{name: a}, {name: a, type: any}]", "a name twice: no comparison of parts of items"},
	{"contract", "~ parameters: [{name: a, default: b, enum: [c]}]", "the default is not in enum: no comparison of two values"},
	{"contract", "~ parameters: {properties: {a: {}}, required: [b]}", "a name that is not among the properties: no comparison of two values"},
	{"contract", `{name: a, engine: local, engine_spec: {command: [a, "{{args.b}}"]}, parameters: [{name: c}]}`, "a placeholder of an unknown parameter: no comparison of two values"},
	{"contract", `{name: a, engine: local, engine_spec: {command: ["{{", "args.b}}"], shell: true}}`, "a placeholder only once the elements are joined"},
	{"contract", `{"name": "a", "engine": "local", "engine_spec": {"command": ["a"]}, "integration": ` + strings.Repeat(`{"a": `, 40) + "1" + strings.Repeat("}", 40) + "}", "nested deeper than 32 levels"},
	{"request", `{"tool": "a", "tool": "b"}`, "a JSON value has no key twice: the last one stays"},
	{"request", `{"tool": "a", "labels": {"aa": "` + strings.Repeat("x", 255) + `"}}`, "name and value together: no sum of lengths"},
	{"request", `{"tool": "a", "labels": {"a": "` + strings.Repeat("é", 200) + `"}}`, "JSON Schema counts characters, the program bytes"},
	{"request", `{"tool": "a", "reply_to": "` + strings.Repeat("é", 200) + `"}`, "JSON Schema counts characters, the program bytes"},
	{"request", `{"tool": "a", "stdin": "\ud800"}`, "half of a surrogate pair: JSON readers replace it"},
	{"request", `{"tool": "a", "args": {"a": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}}`, "nested deeper than 32 levels"},
	{"request", `{"tool": "a", "reply_to": "a\u200b"}`, "more kinds of invisible characters than a pattern should list"},
	{"request", `{"tool": "a", "deadline": "0001-01-01T00:00:00Z"}`, "the zero of Go's time, which means that there is none"},
	{"request", `{"tool": "a", "deadline": "2016-12-31T23:59:60Z"}`, "a leap second, which RFC 3339 has and Go's time does not"},
	{"follow", `{"id": "a", "id": "b"}`, "a JSON value has no key twice: the last one stays"},
	{"follow", `{"id": "a", "from": 1.0}`, "1.0 is a whole number for JSON Schema"},
	{"follow", `{"id": "a", "from": 18446744073709551616}`, "JSON has no largest number; Go's uint64 has"},
	{"follow", `{"id": "a", "attempt": 9223372036854775808}`, "JSON has no largest number; Go's int has"},
	{"discover", `{"tool": "a", "tool": "b"}`, "a JSON value has no key twice: the last one stays"},
	{"discover", `{"tool": "\ud800"}`, "half of a surrogate pair: JSON readers replace it"},
	{"configuration", "executor: {slots: '${SCHEMAS_TEST_SLOTS}'}", "in quotes a variable stays text; JSON Schema sees no quotes"},
	{"configuration", "executor:\n  slots: ${SCHEMAS_TEST_NAME}", "what a variable holds"},
	{"configuration", "executor:\n  slots: ${SCHEMAS_TEST_UNSET}", "that a variable is not set"},
	{"configuration", "nats: {ack_wait: 999ms}", "a lower bound of a text: no arithmetic on text"},
	{"configuration", "nats: {streams: {dead_bytes: 1023k}}", "a lower bound of a text: no arithmetic on text"},
	{"configuration", "execution: {result_inline_bytes: 65Mi}", "an upper bound of a text: no arithmetic on text"},
	{"configuration", "{}\n---\n{}\n", "two documents: a schema sees one at a time"},
	{"configuration", "log: {level: info, level: warn}", "a JSON value has no key twice: the last one stays"},
}

// onlyBySchema are documents that the program takes and should not, or need not. Each is a leniency of its decoders that
// no document says, and tolerated knows them. The list is to become shorter: a document that the program refuses now is
// named by the test.
var onlyBySchema = []struct{ schema, document, why string }{
	{"contract", "~ parameters: {properties: {a: {name: ''}}}", "empty is taken for absent"},
	{"request", `{"tool": "a", "deadline": "2026-01-31T15:04:05+01:60"}`, "not RFC 3339: an offset of sixty minutes"},
}

// written is a document of the tables with what it stands for.
func written(document string) string {
	if rest, ok := strings.CutPrefix(document, "~ "); ok {
		return "{name: a, engine: local, engine_spec: {command: [a]}, " + rest + "}"
	}
	if rest, ok := strings.CutPrefix(document, "^ "); ok {
		return "{name: a, engine: local, engine_spec: {command: [a], " + rest + "}}"
	}
	return document
}

func environment(t *testing.T) {
	t.Setenv("SCHEMAS_TEST_SLOTS", "3")
	t.Setenv("SCHEMAS_TEST_NAME", "three")
}

func TestAgreement(t *testing.T) {
	environment(t)
	count := 0
	for name, list := range accepted {
		for _, document := range list {
			count++
			text := []byte(written(document))
			if err := byGo(t, name, text); err != nil {
				t.Errorf("%s %s: the program refuses it: %v", name, text, err)
			}
			if err := bySchema(name, text); err != nil {
				t.Errorf("%s %s: the schema refuses it: %v", name, text, err)
			}
		}
	}
	for name, list := range refused {
		for _, document := range list {
			count++
			text := []byte(written(document))
			if err := byGo(t, name, text); err == nil {
				t.Errorf("%s %s: the program accepts it", name, text)
			}
			if err := bySchema(name, text); err == nil {
				t.Errorf("%s %s: the schema accepts it", name, text)
			}
		}
	}
	if count < 80 {
		t.Errorf("only %d documents", count)
	}
	t.Logf("%d documents on which both agree", count)
	for _, c := range onlyByGo {
		text := []byte(written(c.document))
		if byGo(t, c.schema, text) == nil {
			t.Errorf("%s %s: the program accepts it (%s)", c.schema, text, c.why)
		}
		if err := bySchema(c.schema, text); err != nil {
			t.Errorf("%s %s: the schema refuses it as well (%s): move it to the others: %v", c.schema, text, c.why, err)
		}
	}
	for _, c := range onlyBySchema {
		text := []byte(written(c.document))
		if bySchema(c.schema, text) == nil {
			t.Errorf("%s %s: the schema accepts it (%s)", c.schema, text, c.why)
		}
		if err := byGo(t, c.schema, text); err != nil {
			t.Errorf("%s %s: the program refuses it now, which is right (%s): move it to the documents that both refuse, and take its rule out of tolerated: %v", c.schema, text, c.why, err)
		}
		if c.schema != "configuration" && agree(c.schema, text) != nil {
			t.Errorf("%s %s: tolerated does not know it (%s)", c.schema, text, c.why)
		}
	}
}

// agree is an error where the program accepts a text that the schema refuses, for another reason than those of
// onlyBySchema.
func agree(name string, text []byte) error {
	if taken := read(name, text) == nil; !taken {
		return nil
	}
	documents := []any{nil}
	if trimmed := bytes.TrimSpace(text); name != "contract" || bytes.HasPrefix(trimmed, []byte("{")) && json.Valid(text) {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&documents[0]); err != nil {
			return fmt.Errorf("the program accepts what is not JSON: %w", err)
		}
	} else {
		trees, err := contracts.ParseYAML("", text)
		if err != nil {
			return fmt.Errorf("the program accepts what is not YAML: %w", err)
		}
		documents = nil
		for _, tree := range trees {
			documents = append(documents, plain(tree, 0))
		}
	}
	var all []error
	for _, d := range documents {
		err := check.Value(name, d)
		if err != nil && check.Value(name, tolerated(d)) != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// read has the program read a contract, a request or another question.
func read(name string, text []byte) error {
	var err error
	switch name {
	case "request":
		_, err = contracts.DecodeRequest(text)
	case "follow":
		_, err = contracts.DecodeFollow(text)
	case "discover":
		_, err = contracts.DecodeDiscover(text)
	default:
		_, err = contracts.ParseContracts("", text)
	}
	return err
}

// sixty is an offset that time.Parse takes and RFC 3339 has not.
var sixty = regexp.MustCompile(`[+-]\d\d:60$`)

// tolerated is a document without what only the schema refuses in it: the leniencies of onlyBySchema.
func tolerated(v any) any {
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			v[i] = tolerated(one)
		}
	case map[string]any:
		for key, value := range v {
			v[key] = tolerated(value)
			if s, isText := value.(string); key == "deadline" && isText && sixty.MatchString(s) || key == "name" && value == "" {
				delete(v, key)
			}
		}
	}
	return v
}

func FuzzAgreement(f *testing.F) {
	seed(f, "request")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := agree("request", text); err != nil {
			t.Errorf("the program accepts %q, the schema does not: %v", text, err)
		}
	})
}

func FuzzQuestionAgreement(f *testing.F) {
	seed(f, "follow")
	seed(f, "discover")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := agree("follow", text); err != nil {
			t.Errorf("the program takes %q for a follow, the schema does not: %v", text, err)
		}
		if len(text) == 0 {
			return // asks for everything
		}
		if err := agree("discover", text); err != nil {
			t.Errorf("the program takes %q for a discover, the schema does not: %v", text, err)
		}
	})
}

func FuzzContractAgreement(f *testing.F) {
	seed(f, "contract")
	for _, text := range fullContracts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := agree("contract", text); err != nil {
			t.Errorf("the program accepts %q, the schema does not: %v", text, err)
		}
	})
}

func seed(f *testing.F, name string) {
	for _, list := range [][]string{accepted[name], refused[name]} {
		for _, document := range list {
			f.Add([]byte(written(document)))
		}
	}
	for _, c := range append(onlyByGo, onlyBySchema...) {
		if c.schema == name {
			f.Add([]byte(written(c.document)))
		}
	}
}

// TestAgreementOfMutants: documents with one or two of their parts replaced, renamed or left out. Bytes that a fuzzer
// turns over are hardly ever a document; these nearly are.
func TestAgreementOfMutants(t *testing.T) {
	const each = 8000
	for _, name := range []string{"contract", "request"} {
		parsed := func(documents []string) (all []any) {
			for _, document := range documents {
				trees, err := contracts.ParseYAML("", []byte(written(document)))
				if err != nil {
					continue // among the refused
				}
				for _, tree := range trees {
					all = append(all, plain(tree, 0))
				}
			}
			return all
		}
		seeds := parsed(accepted[name])
		if name == "contract" {
			seeds = append(seeds, parsed(slices.Sorted(maps.Values(fullContracts)))...)
		}
		m := mutator{rand: rand.New(rand.NewPCG(1, 2)), keys: map[string]bool{}}
		for _, s := range append(parsed(refused[name]), seeds...) {
			m.learn(s)
		}
		m.names = slices.Sorted(maps.Keys(m.keys))
		accepted := 0
		for range each {
			mutant := m.mutate(clone(seeds[m.rand.IntN(len(seeds))]))
			if m.rand.IntN(4) == 0 {
				mutant = m.mutate(mutant)
			}
			text, err := json.Marshal(mutant)
			if err != nil {
				t.Fatal(err)
			}
			if err := agree(name, text); err != nil {
				t.Errorf("the program accepts %s, the schema does not: %v", text, err)
			}
			if read(name, text) == nil {
				accepted++
			}
		}
		if accepted < each/10 || accepted > each*9/10 {
			t.Errorf("the program accepts %d of %d mutants of a %s; too few or too many to tell anything", accepted, each, name)
		}
	}
}

// mutator changes documents by what it has seen in others.
type mutator struct {
	rand   *rand.Rand
	keys   map[string]bool
	names  []string
	values []any
}

func (m *mutator) learn(v any) {
	m.values = append(m.values, v)
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			m.keys[key] = true
			m.learn(v[key])
		}
	case []any:
		for _, one := range v {
			m.learn(one)
		}
	}
}

func (m *mutator) value() any { return clone(m.values[m.rand.IntN(len(m.values))]) }

func (m *mutator) name() string { return m.names[m.rand.IntN(len(m.names))] }

func (m *mutator) mutate(v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if len(keys) == 0 || m.rand.IntN(6) == 0 {
			v[m.name()] = m.value()
			return v
		}
		key := keys[m.rand.IntN(len(keys))]
		switch m.rand.IntN(8) {
		case 0:
			delete(v, key)
		case 1:
			v[m.name()] = v[key]
		case 2:
			v[key] = m.value()
		default:
			v[key] = m.mutate(v[key])
		}
		return v
	case []any:
		if len(v) == 0 || m.rand.IntN(4) == 0 {
			return append(v, m.value())
		}
		i := m.rand.IntN(len(v))
		switch m.rand.IntN(6) {
		case 0:
			return append(v, clone(v[i]))
		case 1:
			return slices.Delete(v, i, i+1)
		default:
			v[i] = m.mutate(v[i])
		}
		return v
	case string:
		if m.rand.IntN(2) == 0 && v != "" {
			i := m.rand.IntN(len(v))
			return strings.ToValidUTF8(v[:i]+[]string{"", ":", "/", ".", "-", "0", " ", "A", "\x00", "é"}[m.rand.IntN(10)]+v[i+m.rand.IntN(2):], "")
		}
	}
	return m.value()
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, one := range v {
			m[key] = clone(one)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = clone(one)
		}
		return list
	}
	return v
}
