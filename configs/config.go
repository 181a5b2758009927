// Package configs has the configuration of the program: what may be in its file, what holds where the file says nothing,
// and the examples that come with it. executor.yaml beside this file shows every key with its default.
package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger"
	"github.com/praxis-sdk/executor/internal/engines/docker"
	"github.com/praxis-sdk/executor/internal/engines/local"
	"github.com/praxis-sdk/executor/internal/executor"
)

// Config is the whole configuration, in the order of the file.
type Config struct {
	NATS      bus.Config      `json:"nats"`
	Executor  Instance        `json:"executor"`
	Execution Execution       `json:"execution"`
	Policy    executor.Policy `json:"policy"`
	Tools     Tools           `json:"tools"`
	HTTP      HTTP            `json:"http"`
	Log       Log             `json:"log"`

	// Secrets are files and directories that no tool in a sandbox or a container sees, beside those that the configuration names. Load adds
	// none; who knows of some does.
	Secrets []string `json:"-"`
}

// Instance is the section executor: this instance.
type Instance struct {
	Name         string             `json:"name"`  // "": host name and four digits
	Slots        int                `json:"slots"` // runs at a time; 0: four for each processor
	Weights      bus.Weights        `json:"priority_weights"`
	Strict       bool               `json:"strict_priorities"` // a lower priority only while nothing of a higher one waits
	MaxAttempts  int                `json:"max_attempts"`      // starts of a tool for one request, where executors died under it
	DrainTimeout contracts.Duration `json:"drain_timeout"`     // how long runs may go on after SIGTERM
	DataDir      string             `json:"data_dir"`          // "": DefaultDataDir
	SpillBytes   contracts.Size     `json:"spill_bytes"`       // output on disk while NATS is away, of all runs; 0: none
}

// Execution is the section execution, which has the shape it has in the Praxis SDK.
type Execution struct {
	DefaultEngine     string             `json:"default_engine"`
	EnableSandboxing  bool               `json:"enable_sandboxing"`
	MaxExecutionTime  contracts.Duration `json:"max_execution_time"` // bound on all timeouts
	CleanupTempFiles  bool               `json:"cleanup_temp_files"`
	ResultInlineBytes contracts.Size     `json:"result_inline_bytes"` // of stdout and stderr in a result
	MaxOutputBytes    contracts.Size     `json:"max_output_bytes"`    // published of one run
	Local             Local              `json:"local"`
	Docker            Docker             `json:"docker"`
	Dagger            Dagger             `json:"dagger"`
}

// Local is the section execution.local.
type Local struct {
	Enabled   bool                `json:"enabled"`
	Slots     int                 `json:"slots"` // of this engine alone; 0: those of the instance
	Path      string              `json:"path"`  // PATH of tools
	Env       contracts.Variables `json:"env"`   // added to the environment of every tool
	KillGrace contracts.Duration  `json:"kill_grace"`
	Sandbox   Sandbox             `json:"sandbox"`
}

// Sandbox is the section execution.local.sandbox: how far tools are kept apart from the host while enable_sandboxing is true.
type Sandbox struct {
	Mode      string         `json:"mode"`      // auto, or the one tier to use
	MinTier   string         `json:"min_tier"`  // the weakest that auto may take
	Paths     []string       `json:"paths"`     // files and directories that tools see beside those of the system
	User      int            `json:"user"`      // whom tools are where the executor is root
	WorkSize  contracts.Size `json:"work_size"` // 0: a directory on the disk, without a bound
	TmpSize   contracts.Size `json:"tmp_size"`
	ShmSize   contracts.Size `json:"shm_size"`
	FileSize  contracts.Size `json:"file_size"` // 0: no bound
	OpenFiles int            `json:"open_files"`
	PidsLimit int64          `json:"pids_limit"`   // of contracts that name none; 0: none
	Memory    contracts.Size `json:"memory_limit"` // of contracts that name none; 0: none
}

// Docker is the section execution.docker.
type Docker struct {
	Enabled        bool                `json:"enabled"`
	Slots          int                 `json:"slots"` // of this engine alone; 0: those of the instance
	Host           string              `json:"host"`  // of the daemon; "": as the environment says, as for the docker command
	TLS            DockerTLS           `json:"tls"`
	Runtime        string              `json:"runtime"` // "": the daemon's default
	Program        string              `json:"program"` // this program for the daemon's system; "": the running one
	User           string              `json:"user"`    // where neither contract nor image names one
	Network        string              `json:"network"` // where the contract names none
	ReadOnly       bool                `json:"read_only"`
	ResourceLimits ResourceLimits      `json:"resource_limits"`
	Pids           int64               `json:"pids_limit"` // 0: no bound
	HomeSize       contracts.Size      `json:"home_size"`
	TmpSize        contracts.Size      `json:"tmp_size"`
	ShmSize        contracts.Size      `json:"shm_size"`
	Env            contracts.Variables `json:"env"` // added to the environment of every tool
	Pull           string              `json:"pull"`
	PrePull        []string            `json:"pre_pull"`
	Credentials    string              `json:"credentials_dir"` // "": that of the executor's user
	KillGrace      contracts.Duration  `json:"kill_grace"`
	CallTimeout    contracts.Duration  `json:"call_timeout"`
	PullTimeout    contracts.Duration  `json:"pull_timeout"`
	Warm           Warm                `json:"warm"`
}

// DockerTLS is the section execution.docker.tls.
type DockerTLS struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Warm is the section execution.docker.warm: containers that are made ahead.
type Warm struct {
	Each   int                `json:"each"`   // of one kind at most; 0: none are made ahead
	Total  int                `json:"total"`  // of all kinds
	Memory contracts.Size     `json:"memory"` // of all that wait
	MaxAge contracts.Duration `json:"max_age"`
}

// Dagger is the section execution.dagger, which has the shape it has in the Praxis SDK, and more.
type Dagger struct {
	Enabled           bool               `json:"enabled"`
	Slots             int                `json:"slots"`           // of this engine alone; 0: those of the instance
	SessionTimeout    contracts.Duration `json:"session_timeout"` // new runs use a session as long; 0: no bound
	DefaultImage      string             `json:"default_image"`
	MountDockerSocket bool               `json:"mount_docker_socket"`
	ResourceLimits    ResourceLimits     `json:"resource_limits"` // which no engine of Dagger can apply
	CLI               string             `json:"cli"`             // path or name; "": from the environment, else dagger
	Engine            string             `json:"engine"`          // address; "": from the environment, else the CLI starts one
	ConnectTimeout    contracts.Duration `json:"connect_timeout"` // of one attempt
	PullTimeout       contracts.Duration `json:"pull_timeout"`    // of a container that is made, its image and mounts included
	Program           string             `json:"program"`         // this program for the engine's system; "": the running one
}

// ResourceLimits bound containers.
type ResourceLimits struct {
	CPU    contracts.CPU  `json:"cpu"`
	Memory contracts.Size `json:"memory"`
}

// Tools is the section tools.
type Tools struct {
	Directories []string `json:"directories"` // with contracts; relative ones are relative to the file
	Registry    bool     `json:"registry"`    // also those of the bucket that the fleet shares
}

// HTTP is the section http.
type HTTP struct {
	Listen string `json:"listen"` // address of /healthz and /readyz; "": none
}

// Log is the section log.
type Log struct {
	Level  string `json:"level"`
	Format string `json:"format"` // console, json, or auto: console on a terminal
}

// Default is what holds where the file says nothing. It is what a production instance should have.
func Default() Config {
	box := local.DefaultSandbox()
	boxes := docker.Default()
	return Config{
		NATS:     bus.DefaultConfig(),
		Executor: Instance{Weights: bus.Weights{High: 16, Normal: 4, Low: 1}, MaxAttempts: 3, DrainTimeout: contracts.Seconds(30), SpillBytes: 1 << 30},
		Execution: Execution{
			DefaultEngine: contracts.EngineLocal, EnableSandboxing: true, MaxExecutionTime: contracts.Seconds(3600), CleanupTempFiles: true,
			ResultInlineBytes: 256 << 10, MaxOutputBytes: 64 << 20,
			Local: Local{Enabled: true, Path: local.DefaultPath, KillGrace: contracts.Seconds(5), Sandbox: Sandbox{
				Mode: box.Mode, MinTier: box.MinTier, User: box.User, WorkSize: contracts.Size(box.WorkSize), TmpSize: contracts.Size(box.TempSize), ShmSize: contracts.Size(box.SharedSize), OpenFiles: int(box.OpenFiles), PidsLimit: box.PidsLimit,
			}},
			Docker: Docker{
				User: boxes.User, Network: boxes.Network, ReadOnly: boxes.ReadOnly, Pids: boxes.Pids,
				HomeSize: contracts.Size(boxes.HomeSize), TmpSize: contracts.Size(boxes.TempSize), ShmSize: contracts.Size(boxes.SharedSize),
				Pull: boxes.Pull, KillGrace: contracts.Duration(boxes.KillGrace), CallTimeout: contracts.Duration(boxes.CallTimeout), PullTimeout: contracts.Duration(boxes.PullTimeout),
				Warm: Warm{Each: boxes.Warm.Each, Total: boxes.Warm.Total, Memory: contracts.Size(boxes.Warm.Memory), MaxAge: contracts.Duration(boxes.Warm.MaxAge)},
			},
			Dagger: Dagger{ConnectTimeout: contracts.Seconds(60), PullTimeout: contracts.Seconds(600)},
		},
		Policy: executor.Policy{ReplyPrefixes: executor.DefaultReplyPrefixes},
		Tools:  Tools{Registry: true},
		HTTP:   HTTP{Listen: "127.0.0.1:8088"},
		Log:    Log{Level: "info", Format: "auto"},
	}
}

// Development is Default with what `executor dev` changes: a developer runs his own tools on his own machine.
func Development() Config {
	c := Default()
	c.Execution.EnableSandboxing = false
	c.Execution.Local.Path = os.Getenv("PATH")
	if c.Execution.Local.Path == "" {
		c.Execution.Local.Path = local.DefaultPath
	}
	c.Policy.InlineContracts, c.Policy.Shell, c.Policy.Local.Unsandboxed = true, true, true
	c.Policy.Network = []string{"host"}
	// JetStream reserves these of the disk at the start, at most three quarters of what is free.
	c.NATS.Streams.QueueBytes, c.NATS.Streams.ReplyBytes, c.NATS.Streams.ResultBytes, c.NATS.Streams.DeadBytes = 128<<20, 512<<20, 128<<20, 32<<20
	c.Log.Level = "warn"
	return c
}

// Load reads a file over what base holds. Unknown keys are errors; ${VAR} and ${VAR:-default} in values stand for
// variables of the environment. An error is of type contracts.Problems, or says why the file cannot be read.
func Load(file string, base Config) (Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return base, err
	}
	documents, err := contracts.ParseYAML(file, text)
	if err != nil {
		return base, err
	}
	switch len(documents) {
	case 0:
		return base, nil // nothing but comments
	case 1:
	default:
		return base, contracts.Problems{{File: file, Line: documents[1].Line, Column: 1, Message: "is a second document; a configuration is one"}}
	}
	root := documents[0]
	if problems := expand(file, root); len(problems) > 0 {
		return base, problems
	}
	c := base
	problems := contracts.Decode(file, root, &c)
	if len(problems) == 0 {
		problems = c.check(file, root)
	}
	if len(problems) > 0 {
		return base, problems
	}
	dir := filepath.Dir(file)
	for i, d := range c.Tools.Directories {
		if !filepath.IsAbs(d) {
			c.Tools.Directories[i] = filepath.Join(dir, d)
		}
	}
	return c, nil
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}`)

// expand replaces variables inside of values. It works on the tree, so that no value can add keys.
func expand(file string, n *yaml.Node) contracts.Problems {
	var problems contracts.Problems
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		problems = append(problems, expand(file, child)...)
	}
	if n.Kind != yaml.ScalarNode || !strings.Contains(n.Value, "${") {
		return problems
	}
	contracts.Substitute(n, variable.ReplaceAllStringFunc(n.Value, func(s string) string {
		m := variable.FindStringSubmatch(s)
		if value, set := os.LookupEnv(m[1]); set {
			return value
		}
		if strings.Contains(s, ":-") {
			return m[2]
		}
		problems = append(problems, contracts.Problem{File: file, Line: n.Line, Column: n.Column,
			Message: fmt.Sprintf("the environment variable %s is not set; set it, or give a default: ${%s:-…}", m[1], m[1])})
		return ""
	}))
	return problems
}

// check finds what is wrong beyond the types.
func (c *Config) check(file string, root *yaml.Node) contracts.Problems {
	var problems contracts.Problems
	bad := func(wrong bool, path, message string) {
		if wrong {
			n, at := contracts.Locate(root, strings.Split(path, ".")...)
			problems = append(problems, contracts.Problem{File: file, Line: n.Line, Column: n.Column, Path: at, Message: message})
		}
	}
	_, err := contracts.NewSubjects(c.NATS.SubjectPrefix)
	bad(err != nil, "nats.subject_prefix", fmt.Sprint(err))
	bad(len(c.NATS.URLs) == 0, "nats.urls", "is empty; name at least one server, as nats://127.0.0.1:4222")
	bad(!inboxPrefix.MatchString(c.NATS.InboxPrefix), "nats.inbox_prefix", "must be one token of letters, digits and _")
	bad(c.NATS.Replicas < 1 || c.NATS.Replicas > 5, "nats.replicas", "must be 1 to 5")
	bad(c.NATS.AckWait < contracts.Seconds(1), "nats.ack_wait", "must be at least 1 second")
	bad(c.NATS.ConnectWait <= 0, "nats.connect_timeout", "must be above 0")
	s := c.NATS.Streams
	bad(s.QueueMessages < 1, "nats.streams.queue_messages", "must be at least 1")
	for path, size := range map[string]contracts.Size{"queue_bytes": s.QueueBytes, "reply_bytes": s.ReplyBytes, "result_bytes": s.ResultBytes, "dead_bytes": s.DeadBytes} {
		bad(size < 1<<20, "nats.streams."+path, "must be at least 1Mi")
	}
	for path, age := range map[string]contracts.Duration{"reply_age": s.ReplyAge, "result_age": s.ResultAge, "dead_age": s.DeadAge} {
		bad(age < contracts.Seconds(60), "nats.streams."+path, "must be at least 1 minute")
	}
	bad(c.Executor.Name != "" && !instanceName.MatchString(c.Executor.Name), "executor.name", "must be letters, digits, _ and -, 64 at most")
	bad(c.Executor.Slots < 0 || c.Executor.Slots > 10_000, "executor.slots", "must be 0 (four for each processor) to 10000")
	for path, weight := range map[string]int{"high": c.Executor.Weights.High, "normal": c.Executor.Weights.Normal, "low": c.Executor.Weights.Low} {
		bad(weight < 1 || weight > 1000, "executor.priority_weights."+path, "must be 1 to 1000")
	}
	bad(c.Execution.Local.Slots < 0 || c.Execution.Local.Slots > 10_000, "execution.local.slots", "must be 0 (no bound of its own) to 10000")
	bad(c.Execution.Dagger.Slots < 0 || c.Execution.Dagger.Slots > 10_000, "execution.dagger.slots", "must be 0 (no bound of its own) to 10000")
	bad(c.Executor.MaxAttempts < 1, "executor.max_attempts", "must be at least 1")
	bad(c.Executor.DrainTimeout < 0, "executor.drain_timeout", "must not be below 0")
	e := c.Execution
	bad(!slices.Contains(contracts.Engines, e.DefaultEngine), "execution.default_engine", "must be "+strings.Join(contracts.Engines, ", or "))
	bad(e.MaxExecutionTime <= 0, "execution.max_execution_time", "must be above 0")
	bad(e.ResultInlineBytes < 1<<10 || e.ResultInlineBytes > 64<<20, "execution.result_inline_bytes", "must be 1Ki to 64Mi, and less than the server's max_payload")
	bad(e.MaxOutputBytes < 0, "execution.max_output_bytes", "must not be below 0")
	bad(e.Local.KillGrace < 0, "execution.local.kill_grace", "must not be below 0")
	bad(e.Local.Path == "", "execution.local.path", "must not be empty: it is where the commands of tools are looked up")
	box := e.Local.Sandbox
	bad(box.Mode != local.ModeAuto && !slices.Contains(local.Tiers, box.Mode), "execution.local.sandbox.mode", "must be "+local.ModeAuto+", "+strings.Join(local.Tiers, ", "))
	bad(!slices.Contains(local.Tiers, box.MinTier), "execution.local.sandbox.min_tier", "must be one of "+strings.Join(local.Tiers, ", "))
	for _, path := range box.Paths {
		bad(!filepath.IsAbs(path) || filepath.Clean(path) == "/", "execution.local.sandbox.paths", fmt.Sprintf("%q is not an absolute path below /", path))
	}
	bad(box.User < 1 || box.User > 1<<31-2, "execution.local.sandbox.user", "must be 1 to 2147483646: never root")
	bad(box.TmpSize < 1<<16, "execution.local.sandbox.tmp_size", "must be at least 64Ki")
	bad(box.ShmSize < 1<<16, "execution.local.sandbox.shm_size", "must be at least 64Ki")
	bad(box.OpenFiles < 64 || box.OpenFiles > 1<<20, "execution.local.sandbox.open_files", "must be 64 to 1048576")
	bad(box.PidsLimit < 0 || box.PidsLimit > 1<<22, "execution.local.sandbox.pids_limit", "must be 0 (none) to 4194304")
	bad(box.Memory != 0 && box.Memory < 1<<20, "execution.local.sandbox.memory_limit", "must be 0 (none) or at least 1Mi")
	for _, command := range c.Policy.Local.Commands {
		bad(!filepath.IsAbs(command) || filepath.Clean(command) == "/", "policy.local.commands", fmt.Sprintf("%q is neither the absolute path of a file, as /usr/bin/python3, nor of a directory with a slash at its end, as /opt/tools/", command))
	}
	inBox := e.Docker
	bad(inBox.Slots < 0 || inBox.Slots > 10_000, "execution.docker.slots", "must be 0 (no bound of its own) to 10000")
	bad(inBox.Host != "" && !dockerHost.MatchString(inBox.Host), "execution.docker.host", "must begin with unix://, tcp:// or ssh://, as ssh://user@build-host")
	bad((inBox.TLS.Cert == "") != (inBox.TLS.Key == ""), "execution.docker.tls", "has one of cert and key; a client that shows a certificate needs both")
	bad(inBox.User == "", "execution.docker.user", "must not be empty: it is whom tools are, as 65534:65534")
	bad(inBox.Network == "", "execution.docker.network", "must not be empty: write none, bridge, or the name of a network")
	bad(inBox.ResourceLimits.Memory < 0, "execution.docker.resource_limits.memory", "must not be below 0")
	bad(inBox.Pids < 0, "execution.docker.pids_limit", "must not be below 0")
	for path, size := range map[string]contracts.Size{"home_size": inBox.HomeSize, "tmp_size": inBox.TmpSize, "shm_size": inBox.ShmSize} {
		bad(size < 1<<16, "execution.docker."+path, "must be at least 64Ki")
	}
	bad(!slices.Contains(docker.Pulls, inBox.Pull), "execution.docker.pull", "must be "+strings.Join(docker.Pulls, ", or "))
	for _, image := range inBox.PrePull {
		_, err := engines.ImageName(image)
		bad(err != nil, "execution.docker.pre_pull", fmt.Sprintf("%q is not the name of an image", image))
	}
	bad(inBox.KillGrace < 0, "execution.docker.kill_grace", "must not be below 0")
	bad(inBox.CallTimeout < contracts.Seconds(1), "execution.docker.call_timeout", "must be at least 1 second")
	bad(inBox.PullTimeout < contracts.Seconds(1), "execution.docker.pull_timeout", "must be at least 1 second")
	bad(inBox.Warm.Each < 0 || inBox.Warm.Total < 0 || inBox.Warm.Memory < 0, "execution.docker.warm", "must not have values below 0")
	bad(inBox.Warm.MaxAge < contracts.Seconds(1), "execution.docker.warm.max_age", "must be at least 1 second")
	bad(e.Dagger.SessionTimeout < 0, "execution.dagger.session_timeout", "must not be below 0")
	bad(e.Dagger.ConnectTimeout <= 0, "execution.dagger.connect_timeout", "must be above 0")
	bad(e.Dagger.PullTimeout < contracts.Seconds(1), "execution.dagger.pull_timeout", "must be at least 1 second")
	for _, prefix := range c.Policy.ReplyPrefixes {
		bad(!replyPrefix.MatchString(prefix), "policy.reply_prefixes", fmt.Sprintf("%q is not the beginning of a subject that ends with a dot, as _INBOX.", prefix))
	}
	bad(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level", "must be debug, info, warn or error")
	bad(!slices.Contains([]string{"auto", "console", "json"}, c.Log.Format), "log.format", "must be auto, console or json")
	slices.SortFunc(problems, func(a, b contracts.Problem) int { return a.Line - b.Line })
	return problems
}

var (
	dockerHost   = regexp.MustCompile(`^(unix|tcp|ssh)://.+$`)
	inboxPrefix  = regexp.MustCompile(`^[A-Za-z0-9_]{1,32}$`)
	replyPrefix  = regexp.MustCompile(`^(?:[^.*>\s]+\.)+$`)
	instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

// DefaultDataDir is where an instance keeps its files that was told no place: /var/lib/executor for root as a service,
// else the user's state directory.
func DefaultDataDir(service bool) string {
	if service && os.Geteuid() == 0 {
		return "/var/lib/executor"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "executor")
	}
	if home, err := os.UserHomeDir(); err == nil && home != "" {
		return filepath.Join(home, ".local", "state", "executor")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("executor-%d", os.Geteuid()))
}

// Core is the part that the core of the executor takes.
func (c Config) Core(name string) executor.Config {
	return executor.Config{
		Name: name, DefaultEngine: c.Execution.DefaultEngine, MaxAttempts: c.Executor.MaxAttempts,
		MaxExecutionTime:  time.Duration(c.Execution.MaxExecutionTime),
		ResultInlineBytes: int(c.Execution.ResultInlineBytes), MaxOutputBytes: int64(c.Execution.MaxOutputBytes), Policy: c.Policy,
	}
}

// Weights are those of the priorities; none where they are strict.
func (c Config) Weights() bus.Weights {
	if c.Executor.Strict {
		return bus.Weights{}
	}
	return c.Executor.Weights
}

// EngineSlots is how many runs an engine may have at a time; 0 where only the instance bounds them.
func (c Config) EngineSlots(engine string) int {
	switch engine {
	case contracts.EngineLocal:
		return c.Execution.Local.Slots
	case contracts.EngineDocker:
		return c.Execution.Docker.Slots
	case contracts.EngineDagger:
		return c.Execution.Dagger.Slots
	}
	return 0
}

// DaggerEngine is the part that the Dagger engine takes.
func (c Config) DaggerEngine(dataDir string) dagger.Config {
	d := c.Execution.Dagger
	config := dagger.Config{
		CLI: d.CLI, RunnerHost: d.Engine, Program: d.Program, ConnectTimeout: time.Duration(d.ConnectTimeout), SessionTimeout: time.Duration(d.SessionTimeout),
		DefaultImage: d.DefaultImage, Images: c.Policy.Images, AllowDockerSocket: c.Policy.DockerSocket, MountRoots: c.Policy.Mounts,
		Secrets: c.secrets(dataDir), DataDir: filepath.Join(dataDir, "dagger"),
		MaxOutput:   max(dagger.LeastOutput, int64(c.Execution.MaxOutputBytes)+64<<10), // more than is published, so that who counts sees that
		PullTimeout: time.Duration(d.PullTimeout), Networks: c.Policy.Network, Root: c.Policy.Root,
	}
	if d.MountDockerSocket {
		config.DockerSocket = dagger.DockerSocket
	}
	if d.ResourceLimits.CPU != 0 {
		config.Limits = append(config.Limits, fmt.Sprintf("cpu %dm", d.ResourceLimits.CPU))
	}
	if d.ResourceLimits.Memory != 0 {
		config.Limits = append(config.Limits, fmt.Sprintf("memory %d bytes", d.ResourceLimits.Memory))
	}
	return config
}

// secrets are files and directories that no tool sees. They are absolute, because they are compared with what tools are shown.
func (c Config) secrets(dataDir string) []string {
	secrets := append([]string{dataDir}, c.Secrets...)
	for _, file := range []string{c.NATS.Creds, c.NATS.NKey, c.NATS.TLS.Key, c.Execution.Docker.TLS.Key, c.Execution.Docker.Credentials} {
		if file != "" {
			secrets = append(secrets, file)
		}
	}
	return absolute(secrets)
}

func absolute(paths []string) []string {
	paths = slices.Clone(paths)
	for i, path := range paths {
		if whole, err := filepath.Abs(path); err == nil { // else there is no working directory that it could be relative to
			paths[i] = whole
		}
	}
	return paths
}

// WritableTools are the roots of policy.mounts, as it has them, where tools may write contracts or programs of the operator's: they lie in,
// are, or hold a directory of tools.directories or policy.local.commands.
func (c Config) WritableTools() (list []string) {
	trusted := absolute(slices.Concat(c.Tools.Directories, c.Policy.Local.Commands))
	for _, entry := range c.Policy.Mounts {
		if root, writable := strings.CutSuffix(entry, ":rw"); writable && slices.ContainsFunc(trusted, func(dir string) bool {
			return engines.WithinSecret([]string{dir}, root) != "" || engines.HoldsSecret([]string{dir}, root, true) != ""
		}) {
			list = append(list, entry)
		}
	}
	return list
}

// LocalEngine is the part that the local engine takes.
func (c Config) LocalEngine(dataDir string) local.Config {
	box := c.Execution.Local.Sandbox
	// What the other engines log in with is on this machine whether they are served or not.
	secrets := slices.Concat(c.secrets(dataDir), docker.CredentialFiles(c.DockerEngine(dataDir)), dagger.CredentialFiles())
	if !c.Policy.DockerSocket {
		secrets = append(secrets, docker.Sockets(c.DockerEngine(dataDir))...)
	}
	return local.Config{
		DataDir: dataDir, Path: c.Execution.Local.Path, Env: c.Execution.Local.Env, KillGrace: time.Duration(c.Execution.Local.KillGrace),
		Commands: c.Policy.Local.Commands, Sandboxing: c.Execution.EnableSandboxing, KeepFiles: !c.Execution.CleanupTempFiles,
		Sandbox: local.Sandbox{
			Mode: box.Mode, MinTier: box.MinTier, Paths: box.Paths, MountRoots: c.Policy.Mounts, Secrets: secrets, User: box.User,
			WorkSize: int64(box.WorkSize), TempSize: int64(box.TmpSize), SharedSize: int64(box.ShmSize), FileSize: int64(box.FileSize), OpenFiles: int64(box.OpenFiles),
			PidsLimit: box.PidsLimit, MemoryLimit: int64(box.Memory),
		},
	}
}

// DockerEngine is the part that the Docker engine takes.
func (c Config) DockerEngine(dataDir string) docker.Config {
	d := c.Execution.Docker
	return docker.Config{
		Host: d.Host, CA: d.TLS.CA, Cert: d.TLS.Cert, Key: d.TLS.Key, Runtime: d.Runtime, Program: d.Program,
		User: d.User, Network: d.Network, ReadOnly: d.ReadOnly, Memory: int64(d.ResourceLimits.Memory), CPU: int64(d.ResourceLimits.CPU), Pids: d.Pids,
		HomeSize: int64(d.HomeSize), TempSize: int64(d.TmpSize), SharedSize: int64(d.ShmSize), Env: d.Env,
		Images: c.Policy.Images, MountRoots: c.Policy.Mounts, Secrets: c.secrets(dataDir), DockerSocket: c.Policy.DockerSocket, Root: c.Policy.Root, GPUs: c.Policy.GPUs,
		Pull: d.Pull, PrePull: d.PrePull, CredentialsDir: d.Credentials,
		KillGrace: time.Duration(d.KillGrace), CallTimeout: time.Duration(d.CallTimeout), PullTimeout: time.Duration(d.PullTimeout),
		Warm: docker.Warm{Each: d.Warm.Each, Total: d.Warm.Total, Memory: int64(d.Warm.Memory), MaxAge: time.Duration(d.Warm.MaxAge)},
	}
}
