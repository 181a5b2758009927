package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/dagger"
	"github.com/praxis-sdk/executor/internal/engines/docker"
	"github.com/praxis-sdk/executor/internal/engines/local"
	"github.com/praxis-sdk/executor/internal/executor"
)

// unwritable are keys whose default no value stands for. executor.yaml shows them in a comment.
var unwritable = []string{"execution.docker.resource_limits.cpu", "execution.dagger.resource_limits.cpu"}

// TestExecutorYAML: the reference file says every key, in the order of the structs, and each value is the default.
func TestExecutorYAML(t *testing.T) {
	text, err := os.ReadFile("executor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Over nothing, not over the defaults: so it is the file that has the values.
	got, err := Load("executor.yaml", Config{})
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, "", reflect.ValueOf(got), reflect.ValueOf(Default()))

	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var want []string
	keysOf(reflect.TypeFor[Config](), "", func(key string) { want = append(want, key) })
	var keys []string
	keysIn(t, document.Content[0], "", func(key string) { keys = append(keys, key) })
	i := 0
	for _, key := range want {
		if i < len(keys) && keys[i] == key {
			i++
			continue
		}
		if leaf := key[strings.LastIndexByte(key, '.')+1:]; slices.Contains(unwritable, key) && regexp.MustCompile(`(?m)^ +# `+leaf+`: `).Match(text) {
			continue
		}
		t.Fatalf("executor.yaml does not have %s where it belongs; it has %q", key, keys[i:])
	}
	if i < len(keys) {
		t.Errorf("executor.yaml has %q beyond what there is", keys[i:])
	}

	// Each key is explained: the line before it, at the same depth, is a comment.
	lines := strings.Split(string(text), "\n")
	key := regexp.MustCompile(`^( *)(?:# )?([a-z_]+):( |$)`)
	for n, line := range lines {
		m := key.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if n == 0 || !strings.HasPrefix(lines[n-1], m[1]+"# ") {
			t.Errorf("executor.yaml:%d: nothing explains %s", n+1, m[2])
		}
	}
}

// sameConfig compares values field by field, so that a failure names the key. Empty and absent lists are the same.
func sameConfig(t *testing.T, at string, got, want reflect.Value) {
	t.Helper()
	if got.Kind() == reflect.Struct {
		for _, f := range reflect.VisibleFields(got.Type()) {
			sameConfig(t, at+"."+f.Tag.Get("json"), got.FieldByIndex(f.Index), want.FieldByIndex(f.Index))
		}
		return
	}
	if (got.Kind() == reflect.Slice || got.Kind() == reflect.Map) && got.Len() == 0 && want.Len() == 0 {
		return
	}
	if !reflect.DeepEqual(got.Interface(), want.Interface()) {
		t.Errorf("%s is %v, want %v", strings.TrimPrefix(at, "."), got, want)
	}
}

// keysOf lists the keys of a struct, sections before what is in them.
func keysOf(t reflect.Type, at string, each func(string)) {
	for _, f := range reflect.VisibleFields(t) {
		key := f.Tag.Get("json")
		if key == "-" {
			continue
		}
		each(at + key)
		if f.Type.Kind() == reflect.Struct {
			keysOf(f.Type, at+key+".", each)
		}
	}
}

func keysIn(t *testing.T, n *yaml.Node, at string, each func(string)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		each(at + key.Value)
		if value.Kind == yaml.MappingNode {
			keysIn(t, value, at+key.Value+".", each)
		}
	}
}

// TestDevelopmentYAML: the file is what `executor dev` uses, but for the log, which dev decides by its flags.
func TestDevelopmentYAML(t *testing.T) {
	t.Setenv("PATH", "/home/dev/bin:/usr/bin")
	got, err := Load("development.yaml", Default())
	if err != nil {
		t.Fatal(err)
	}
	want := Development()
	want.Log = Log{Level: "debug", Format: "console"}
	sameConfig(t, "", reflect.ValueOf(got), reflect.ValueOf(want))
	if got.Execution.Local.Path != "/home/dev/bin:/usr/bin" {
		t.Errorf("path is %q", got.Execution.Local.Path)
	}
	again, err := Load("development.yaml", Development()) // as dev does
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, "", reflect.ValueOf(again), reflect.ValueOf(want))
}

func TestProductionYAML(t *testing.T) {
	if _, err := Load("production.yaml", Default()); err == nil || !strings.Contains(err.Error(), "NATS_URL") {
		t.Errorf("without a server: %v", err)
	}
	t.Setenv("NATS_URL", "tls://nats-0.nats.internal:4222,tls://nats-1.nats.internal:4222")
	t.Setenv("NATS_CREDS", "/run/secrets/executor.creds")
	got, err := Load("production.yaml", Default())
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.NATS.URLs = []string{"tls://nats-0.nats.internal:4222,tls://nats-1.nats.internal:4222"}
	want.NATS.Creds = "/run/secrets/executor.creds"
	want.NATS.Replicas = 3
	want.Executor.DrainTimeout = contracts.Seconds(60)
	want.Executor.DataDir = "/var/lib/executor"
	want.Execution.MaxExecutionTime = contracts.Seconds(600)
	want.Tools.Directories = []string{"/etc/executor/tools", "/usr/share/executor/tools"}
	want.HTTP.Listen = "0.0.0.0:8088"
	want.Log.Format = "json"
	sameConfig(t, "", reflect.ValueOf(got), reflect.ValueOf(want))
	sameConfig(t, "policy", reflect.ValueOf(got.Policy), reflect.ValueOf(executor.Policy{ReplyPrefixes: []string{"_INBOX."}})) // least rights
}

// praxis is the section as it stands in the documentation of the Praxis SDK ("Global Execution Settings").
const praxis = `execution:
  default_engine: "dagger"
  dagger:
    enabled: true
    session_timeout: 300
    default_image: "python:3.11-slim"
    mount_docker_socket: true
    resource_limits:
      cpu: "1000m"
      memory: "512Mi"
  enable_sandboxing: true
  max_execution_time: 600
  cleanup_temp_files: true
`

func TestPraxisSection(t *testing.T) {
	got, err := Load(write(t, praxis), Default())
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Execution.DefaultEngine = "dagger"
	want.Execution.EnableSandboxing = true
	want.Execution.MaxExecutionTime = contracts.Seconds(600)
	want.Execution.CleanupTempFiles = true
	want.Execution.Dagger = Dagger{
		Enabled: true, SessionTimeout: contracts.Seconds(300), DefaultImage: "python:3.11-slim", MountDockerSocket: true, ConnectTimeout: contracts.Seconds(60), PullTimeout: contracts.Seconds(600),
		ResourceLimits: ResourceLimits{CPU: 1000, Memory: 512 << 20},
	}
	sameConfig(t, "", reflect.ValueOf(got), reflect.ValueOf(want))

	// The other sections on that page name one key each.
	for _, text := range []string{"execution:\n  dagger:\n    resource_limits:\n      cpu: \"2000m\"\n      memory: \"1Gi\"\n", "execution:\n  max_execution_time: 1200\n  enable_sandboxing: true\n"} {
		if _, err := Load(write(t, text), Default()); err != nil {
			t.Error(err)
		}
	}
}

func write(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "executor.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestLoad: what a file changes is changed, and nothing else.
func TestLoad(t *testing.T) {
	t.Setenv("CONFIGS_TEST_PORT", "7")
	t.Setenv("CONFIGS_TEST_HOST", "nats.example")
	t.Setenv("CONFIGS_TEST_EMPTY", "")
	t.Setenv("CONFIGS_TEST_YAML", "a, b: [c]\nslots: 9 # ${CONFIGS_TEST_PORT}")
	for _, c := range []struct {
		name, text string
		want       func(*Config)
	}{
		{"empty", "", func(*Config) {}},
		{"only comments", "# nothing\n---\n# still nothing\n", func(*Config) {}},
		{"empty mapping", "{}", func(*Config) {}},
		{"json", `{"executor": {"slots": 2}}`, func(c *Config) { c.Executor.Slots = 2 }},
		{"variables", "nats:\n  urls: [\"nats://${CONFIGS_TEST_HOST}:${CONFIGS_TEST_PORT}\"]\n", func(c *Config) { c.NATS.URLs = []string{"nats://nats.example:7"} }},
		{"a variable as a number", "executor:\n  slots: ${CONFIGS_TEST_PORT}\n", func(c *Config) { c.Executor.Slots = 7 }},
		{"a variable in quotes stays text", "executor:\n  name: \"${CONFIGS_TEST_PORT}\"\n", func(c *Config) { c.Executor.Name = "7" }},
		{"a variable as a part", "nats:\n  ack_wait: ${CONFIGS_TEST_PORT}m\n", func(c *Config) { c.NATS.AckWait = contracts.Seconds(420) }},
		{"default of a variable", "log:\n  level: ${CONFIGS_TEST_UNSET:-warn}\n", func(c *Config) { c.Log.Level = "warn" }},
		{"default as a truth value", "execution:\n  cleanup_temp_files: ${CONFIGS_TEST_UNSET:-false}\n", func(c *Config) { c.Execution.CleanupTempFiles = false }},
		{"empty default", "executor:\n  name: \"${CONFIGS_TEST_UNSET:-}\"\n", func(*Config) {}},
		{"a set variable wins over its default", "executor:\n  slots: ${CONFIGS_TEST_PORT:-3}\n", func(c *Config) { c.Executor.Slots = 7 }},
		{"set and empty is set", "nats:\n  user: \"${CONFIGS_TEST_EMPTY:-x}\"\n", func(c *Config) { c.NATS.User = "" }},
		{"a variable cannot add keys", "nats:\n  user: ${CONFIGS_TEST_YAML}\n", func(c *Config) { c.NATS.User = "a, b: [c]\nslots: 9 # ${CONFIGS_TEST_PORT}" }},
		{"no variable", "nats:\n  user: $CONFIGS_TEST_PORT ${1} $${ {x}\n", func(c *Config) { c.NATS.User = "$CONFIGS_TEST_PORT ${1} $${ {x}" }},
		{"a secret that looks like a number", "nats: {password: \"${CONFIGS_TEST_PORT}\"}\n", func(c *Config) { c.NATS.Password = "7" }},
		{"the same without quotes", "nats:\n  password: ${CONFIGS_TEST_PORT}\n", func(c *Config) { c.NATS.Password = "7" }},
		{"an empty default", "nats:\n  token: ${CONFIGS_TEST_UNSET:-}\n", func(c *Config) {}},
		{"an anchor", "nats: {streams: {reply_age: &day 24h, result_age: *day}}", func(c *Config) { c.NATS.Streams.ResultAge = contracts.Seconds(24 * 3600) }},
		{"empty list", "policy: {reply_prefixes: []}", func(c *Config) { c.Policy.ReplyPrefixes = nil }},
		{"variables of tools", "execution: {local: {env: {HTTPS_PROXY: 'http://proxy', N: 1}}}", func(c *Config) {
			c.Execution.Local.Env = contracts.Variables{"HTTPS_PROXY": "http://proxy", "N": "1"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Load(write(t, c.text), Default())
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			c.want(&want)
			sameConfig(t, "", reflect.ValueOf(got), reflect.ValueOf(want))
		})
	}
}

// TestLoadPaths: directories are relative to the file, wherever the program was started.
func TestLoadPaths(t *testing.T) {
	file := write(t, "tools: {directories: [tools, ../more, /etc/tools]}")
	got, err := Load(file, Default())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := []string{filepath.Join(dir, "tools"), filepath.Join(filepath.Dir(dir), "more"), "/etc/tools"}
	if !reflect.DeepEqual(got.Tools.Directories, want) {
		t.Errorf("directories are %q, want %q", got.Tools.Directories, want)
	}
}

// TestLoadRefuses pins what a person reads who made a mistake: FILE is the name of the file.
func TestLoadRefuses(t *testing.T) {
	t.Setenv("CONFIGS_TEST_WORD", "three")
	for _, c := range []struct{ name, text, want string }{
		{"unknown section", "nats: {}\nlogs: {}\n", `FILE:2:1: logs: unknown key; did you mean "log"?`},
		{"unknown key", "nats:\n  servers: [a]\n", `FILE:2:3: nats.servers: unknown key; known are urls, creds, nkey, user, password, token, tls, subject_prefix, inbox_prefix, connect_timeout, replicas, ack_wait, streams`},
		{"near miss", "execution:\n  enable_sandbox: false\n", `FILE:2:3: execution.enable_sandbox: unknown key; did you mean "enable_sandboxing"?`},
		{"other letters", "executor: {maxAttempts: 1, Slots: 2}", "FILE:1:12: executor.maxAttempts: unknown key; did you mean \"max_attempts\"?\nFILE:1:28: executor.Slots: unknown key; did you mean \"slots\"?"},
		{"twice", "log: {level: info, level: warn}", "FILE:1:20: log.level: is given twice, first in line 1; keep one"},
		{"text for a list", "nats:\n  urls: nats://a\n", `FILE:2:9: nats.urls: is text ("nats://a"); it must be a list: write ["nats://a"]`},
		{"number for text", "nats:\n  password: 1234\n", `FILE:2:13: nats.password: is the number 1234; it must be text: write "1234" in quotes`},
		{"text for a number", "executor:\n  slots: many\n", `FILE:2:10: executor.slots: is text ("many"); it must be a whole number`},
		{"fraction", "executor: {slots: 1.5}", `FILE:1:19: executor.slots: is the number 1.5; it must be a whole number`},
		{"text for a truth value", "policy:\n  shell: 'true'\n", `FILE:2:10: policy.shell: is text ("true"); it must be true or false`},
		{"yes", "policy:\n  shell: yes\n", `FILE:2:10: policy.shell: is text ("yes"); it must be true or false`},
		{"list for a section", "nats: []", "FILE:1:7: nats: is a list; it must be a mapping (key: value)"},
		{"no value", "executor:\n  name:\n", "FILE:2:8: executor.name: has no value; give it one or leave the key out"},
		{"empty section", "nats:\nlog: {}\n", "FILE:1:6: nats: has no value; give it one or leave the key out"},
		{"duration", "nats: {ack_wait: soon}", `FILE:1:18: nats.ack_wait: text ("soon") is not a duration; write seconds (30, 0.5) or "1m30s"`},
		{"size", "execution: {max_output_bytes: 64 megs}", `FILE:1:31: execution.max_output_bytes: "64 megs" has an unknown unit; there are Ki, Mi, Gi, Ti, and k, m, g, t for the same`},
		{"size of two meanings", "execution: {max_output_bytes: 64M}", `FILE:1:31: execution.max_output_bytes: "64M" could mean 1000s or 1024s; write "64Mi" (1024s) or the bytes`},
		{"cpu", "execution: {dagger: {resource_limits: {cpu: 0}}}", `FILE:1:45: execution.dagger.resource_limits.cpu: the number 0 is not a share of processors; write 1.5 or "1500m"`},
		{"name of a variable", "execution: {local: {env: {a b: c}}}", "FILE:1:27: execution.local.env.a b: is not a name of an environment variable (letters, digits and _, no digit first)"},
		{"a variable that is text", "executor:\n  slots: ${CONFIGS_TEST_WORD}\n", `FILE:2:10: executor.slots: is what ${CONFIGS_TEST_WORD} stands for; it must be a whole number`},
		{"a variable that is not set", "nats:\n  creds: \"${CONFIGS_TEST_UNSET}\"\n", "FILE:2:10: the environment variable CONFIGS_TEST_UNSET is not set; set it, or give a default: ${CONFIGS_TEST_UNSET:-…}"},
		{"two that are not set", "nats:\n  urls: ['${CONFIGS_TEST_UNSET}:${CONFIGS_TEST_UNSET_2}']\n",
			"FILE:2:10: the environment variable CONFIGS_TEST_UNSET is not set; set it, or give a default: ${CONFIGS_TEST_UNSET:-…}\n" +
				"FILE:2:10: the environment variable CONFIGS_TEST_UNSET_2 is not set; set it, or give a default: ${CONFIGS_TEST_UNSET_2:-…}"},
		{"subject_prefix", "nats: {subject_prefix: a.b}", `FILE:1:24: nats.subject_prefix: "a.b" is not a subject prefix: a letter, then letters, digits, '_' and '-', 32 at most`},
		{"no servers", "nats: {urls: []}", "FILE:1:14: nats.urls: is empty; name at least one server, as nats://127.0.0.1:4222"},
		{"inbox_prefix", "nats: {inbox_prefix: _INBOX.}", "FILE:1:22: nats.inbox_prefix: must be one token of letters, digits and _"},
		{"connect_timeout", "nats: {connect_timeout: 0}", "FILE:1:25: nats.connect_timeout: must be above 0"},
		{"replicas", "nats: {replicas: 6}", "FILE:1:18: nats.replicas: must be 1 to 5"},
		{"ack_wait", "nats: {ack_wait: 999ms}", "FILE:1:18: nats.ack_wait: must be at least 1 second"},
		{"queue_messages", "nats: {streams: {queue_messages: 0}}", "FILE:1:34: nats.streams.queue_messages: must be at least 1"},
		{"queue_bytes", "nats: {streams: {queue_bytes: 1023k}}", "FILE:1:31: nats.streams.queue_bytes: must be at least 1Mi"},
		{"reply_bytes", "nats: {streams: {reply_bytes: 0}}", "FILE:1:31: nats.streams.reply_bytes: must be at least 1Mi"},
		{"result_bytes", "nats: {streams: {result_bytes: 0}}", "FILE:1:32: nats.streams.result_bytes: must be at least 1Mi"},
		{"dead_bytes", "nats: {streams: {dead_bytes: 0}}", "FILE:1:30: nats.streams.dead_bytes: must be at least 1Mi"},
		{"reply_age", "nats: {streams: {reply_age: 59}}", "FILE:1:29: nats.streams.reply_age: must be at least 1 minute"},
		{"result_age", "nats: {streams: {result_age: 59}}", "FILE:1:30: nats.streams.result_age: must be at least 1 minute"},
		{"dead_age", "nats: {streams: {dead_age: 59}}", "FILE:1:28: nats.streams.dead_age: must be at least 1 minute"},
		{"name", "executor: {name: a.b}", "FILE:1:18: executor.name: must be letters, digits, _ and -, 64 at most"},
		{"slots", "executor: {slots: 10001}", "FILE:1:19: executor.slots: must be 0 (four for each processor) to 10000"},
		{"max_attempts", "executor: {max_attempts: 0}", "FILE:1:26: executor.max_attempts: must be at least 1"},
		{"drain_timeout", "executor: {drain_timeout: -1s}", "FILE:1:27: executor.drain_timeout: must not be below 0"},
		{"default_engine", "execution: {default_engine: docker-sdk}", "FILE:1:29: execution.default_engine: must be local, or docker, or dagger"},
		{"max_execution_time", "execution: {max_execution_time: 0}", "FILE:1:33: execution.max_execution_time: must be above 0"},
		{"result_inline_bytes", "execution: {result_inline_bytes: 65Mi}", "FILE:1:34: execution.result_inline_bytes: must be 1Ki to 64Mi, and less than the server's max_payload"},
		{"kill_grace", "execution: {local: {kill_grace: -1}}", "FILE:1:33: execution.local.kill_grace: must not be below 0"},
		{"path", "execution: {local: {path: ''}}", "FILE:1:27: execution.local.path: must not be empty: it is where the commands of tools are looked up"},
		{"level", "log: {level: loud}", "FILE:1:14: log.level: must be debug, info, warn or error"},
		{"format", "log: {format: text}", "FILE:1:15: log.format: must be auto, console or json"},
		{"several, in the order of the file", "log: {format: text}\nnats:\n  replicas: 0\nexecutor:\n  slots: -1\n",
			"FILE:1:15: log.format: must be auto, console or json\nFILE:3:13: nats.replicas: must be 1 to 5\nFILE:5:10: executor.slots: must be 0 (four for each processor) to 10000"},
		{"two documents", "nats: {}\n---\nlog: {}\n", "FILE:3:1: is a second document; a configuration is one"},
		{"a list", "- nats\n", "FILE:1:1: is a list; it must be a mapping (key: value)"},
		{"text", "nats\n", `FILE:1:1: is text ("nats"); it must be a mapping (key: value)`},
		{"not YAML", "nats:\n  urls: [a\n", "FILE:2: is not YAML: did not find expected ',' or ']'; a bracket is not closed, or a comma is missing"},
		{"a tab", "nats:\n\turls: [a]\n", "FILE:2:1: is not YAML: a tab indents this line; write spaces"},
		{"not text", "nats: \xff\xfe", "FILE:1:7: is not UTF-8 text"},
		{"nested too deeply", "log: " + strings.Repeat("{a: ", 40) + "b" + strings.Repeat("}", 40), "FILE:1:130: is nested deeper than 32 levels; make it flatter"},
		{"merged into itself", "log: &l\n  <<: *l\n  level: info\n", "FILE:2:7: the alias *l stands inside of what it names"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, c.text)
			got, err := Load(file, Default())
			if err == nil {
				t.Fatal("accepted")
			}
			if text := strings.ReplaceAll(err.Error(), file, "FILE"); text != c.want {
				t.Errorf("\n got %s\nwant %s", text, c.want)
			}
			if !reflect.DeepEqual(got, Default()) {
				t.Errorf("a refused file changed something: %+v", got)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), Default()); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestDefaults: what the program starts with would be accepted from a file, and is what its parts have.
func TestDefaults(t *testing.T) {
	nothing := &yaml.Node{Kind: yaml.MappingNode}
	t.Setenv("PATH", "")
	for name, c := range map[string]Config{"Default": Default(), "Development": Development()} {
		if problems := c.check("", nothing); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
	if !reflect.DeepEqual(Default().NATS, bus.DefaultConfig()) {
		t.Error("the defaults of the section nats are not those of the bus")
	}
	if Default().Execution.Local.Path != local.DefaultPath || Development().Execution.Local.Path != local.DefaultPath {
		t.Error("without a PATH it is the local engine's")
	}
	p := Default().Policy
	p.ReplyPrefixes = nil
	if !reflect.DeepEqual(p, executor.Policy{}) {
		t.Errorf("the default policy allows something: %+v", p)
	}
}

// TestParts: what the file says arrives at the parts of the program.
func TestParts(t *testing.T) {
	c, err := Load(write(t, `
executor: {max_attempts: 5}
execution:
  default_engine: docker
  enable_sandboxing: false
  max_execution_time: 2m
  cleanup_temp_files: false
  result_inline_bytes: 2Ki
  max_output_bytes: 3Ki
  local: {path: /bin, env: {A: b}, kill_grace: 7s, sandbox: {mode: namespaces, min_tier: none, paths: [/opt], user: 1234, work_size: 4Mi, tmp_size: 1Mi, shm_size: 2Mi, file_size: 3Mi, open_files: 128, pids_limit: 9, memory_limit: 4Mi}}
nats: {creds: /creds}
policy: {shell: true, mounts: ["/data:rw"], local: {commands: [/bin/sh, /opt/], unsandboxed: true}}
`), Default())
	if err != nil {
		t.Fatal(err)
	}
	core := executor.Config{Name: "me", DefaultEngine: "docker", MaxAttempts: 5, MaxExecutionTime: 120e9, ResultInlineBytes: 2048, MaxOutputBytes: 3072,
		Policy: executor.Policy{Shell: true, Mounts: []string{"/data:rw"}, ReplyPrefixes: []string{"_INBOX."}, Local: executor.Local{Commands: []string{"/bin/sh", "/opt/"}, Unsandboxed: true}}}
	if got := c.Core("me"); !reflect.DeepEqual(got, core) {
		t.Errorf("Core: got %+v, want %+v", got, core)
	}
	c.Secrets = []string{"/etc/executor.yaml"}
	c.Execution.Docker.TLS.Key, c.Execution.Docker.Credentials = "/docker/key.pem", "/docker/credentials"
	engine := local.Config{DataDir: "/data", Path: "/bin", Env: map[string]string{"A": "b"}, KillGrace: 7e9, Sandboxing: false, KeepFiles: true, Commands: []string{"/bin/sh", "/opt/"}, Sandbox: local.DefaultSandbox()}
	named := []string{"/data", "/etc/executor.yaml", "/creds", "/docker/key.pem", "/docker/credentials"}
	engine.Sandbox.MountRoots, engine.Sandbox.Secrets = []string{"/data:rw"}, slices.Concat(named, docker.CredentialFiles(c.DockerEngine("/data")), dagger.CredentialFiles(), []string{"/var/run/docker.sock"})
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	engine.Sandbox.Mode, engine.Sandbox.MinTier, engine.Sandbox.Paths, engine.Sandbox.User = "namespaces", "none", []string{"/opt"}, 1234
	engine.Sandbox.WorkSize, engine.Sandbox.TempSize, engine.Sandbox.SharedSize, engine.Sandbox.FileSize, engine.Sandbox.OpenFiles = 4<<20, 1<<20, 2<<20, 3<<20, 128
	engine.Sandbox.PidsLimit, engine.Sandbox.MemoryLimit = 9, 4<<20
	if got := c.LocalEngine("/data"); !reflect.DeepEqual(got, engine) {
		t.Errorf("LocalEngine: got %+v, want %+v", got, engine)
	}
	if got := c.DockerEngine("/data").Secrets; !reflect.DeepEqual(got, named) {
		t.Errorf("the Docker engine hides %q, want %q", got, named)
	}
	c.Policy.Images, c.Execution.Docker.Runtime = []string{"python"}, "runsc"
	for i := range 3 { // one allows nothing of the others
		c.Policy.DockerSocket, c.Policy.Root, c.Policy.GPUs = i == 0, i == 1, i == 2
		got := c.DockerEngine("/data")
		if got.DockerSocket != (i == 0) || got.Root != (i == 1) || got.GPUs != (i == 2) || !reflect.DeepEqual(got.Images, []string{"python"}) || got.Runtime != "runsc" || !reflect.DeepEqual(got.MountRoots, []string{"/data:rw"}) {
			t.Errorf("the Docker engine has %+v of %+v", got, c.Policy)
		}
	}
	if got := c.DaggerEngine("/data").Secrets; !reflect.DeepEqual(got, named) {
		t.Errorf("the Dagger engine hides %q, want %q", got, named)
	}
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("HOME", "/home/a")
	t.Setenv("XDG_STATE_HOME", "")
	if got := DefaultDataDir(false); got != "/home/a/.local/state/executor" {
		t.Errorf("in HOME: %s", got)
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	if got := DefaultDataDir(false); got != "/home/a/.local/state/executor" {
		t.Errorf("a relative XDG_STATE_HOME is to be passed over: %s", got)
	}
	t.Setenv("XDG_STATE_HOME", "/state")
	if got := DefaultDataDir(false); got != "/state/executor" {
		t.Errorf("in XDG_STATE_HOME: %s", got)
	}
	want := "/state/executor"
	if os.Geteuid() == 0 {
		want = "/var/lib/executor"
	}
	if got := DefaultDataDir(true); got != want {
		t.Errorf("as a service: %s, want %s", got, want)
	}
}

// FuzzLoad: no file makes Load panic, and what it accepts is within all bounds.
func FuzzLoad(f *testing.F) {
	for _, file := range []string{"executor.yaml", "development.yaml", "production.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range []string{praxis, "", "{}", "a: &a [*a]", "log: &l {<<: *l}", "nats: {ack_wait: ${X:-1}}", "execution:\n  local:\n    path: ${PATH}", "---\n---\nlog: {}", "nats: !!binary aGk=", "executor: {slots: 0x10}",
		"&a log: *a", "? [a]\n: b", "nats: {streams: {queue_bytes: 1e9}}", "executor: {drain_timeout: -0s}"} {
		f.Add([]byte(text))
	}
	nothing := &yaml.Node{Kind: yaml.MappingNode}
	file := filepath.Join(f.TempDir(), "executor.yaml") // one a process: each worker of the fuzzer has a directory of its own
	f.Fuzz(func(t *testing.T, text []byte) {
		defer os.Remove(file) // writing over a file waits for the disk, on some file systems
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		before := Default()
		got, err := Load(file, before)
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a word")
			}
			if !reflect.DeepEqual(got, Default()) {
				t.Errorf("a refused file changed something: %+v", got)
			}
			return
		}
		if problems := got.check(file, nothing); len(problems) > 0 {
			t.Errorf("accepted, but not within bounds: %v", problems)
		}
		for _, dir := range got.Tools.Directories {
			if !filepath.IsAbs(dir) {
				t.Errorf("the directory %q is relative to nothing", dir)
			}
		}
	})
}

// What no tool sees is known by its whole name, also where it is called by another.
func TestSecretsAreAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	c := Default()
	c.NATS.Creds, c.NATS.NKey, c.NATS.TLS.Key, c.Execution.Docker.Credentials = "nats.creds", "./nkey", "../key.pem", "docker"
	t.Setenv("DOCKER_CERT_PATH", "certs")
	t.Setenv("DOCKER_HOST", "unix:///run/other.sock")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	got := c.LocalEngine("data").Sandbox.Secrets
	for _, want := range []string{dir + "/data", dir + "/nats.creds", dir + "/nkey", filepath.Dir(dir) + "/key.pem", dir + "/docker", "/run/other.sock", "/var/run/docker.sock", "/run/user/7/docker.sock"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is shown: %q", want, got)
		}
	}
	for _, secret := range got {
		if !filepath.IsAbs(secret) {
			t.Errorf("%s is relative", secret)
		}
	}
	c.Policy.DockerSocket = true
	if got := c.LocalEngine("data").Sandbox.Secrets; slices.Contains(got, "/var/run/docker.sock") {
		t.Errorf("the socket is hidden, though policy.docker_socket allows it: %q", got)
	}
}

func TestWritableTools(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"tools/inner", "programs", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := Default()
	t.Chdir(dir)
	c.Tools.Directories, c.Policy.Local.Commands = []string{"tools"}, []string{dir + "/programs/"}
	c.Policy.Mounts = []string{dir, dir + "/tools", dir + "/data:rw", dir + "/programs:rw", dir + "/tools/inner:rw", dir + ":rw"}
	want := []string{dir + "/programs:rw", dir + "/tools/inner:rw", dir + ":rw"}
	if got := c.WritableTools(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
