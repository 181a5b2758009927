package dagger

import "time"

// Config is what an operator decides about the Dagger engine.
type Config struct {
	// CLI is the dagger program, as a path or as a name in PATH. "": what _EXPERIMENTAL_DAGGER_CLI_BIN names, else dagger.
	CLI string
	// RunnerHost is where the engine is, as unix:///run/dagger/engine.sock or tcp://host:port. "": what
	// _EXPERIMENTAL_DAGGER_RUNNER_HOST names, else the CLI starts an engine with Docker.
	RunnerHost string
	// ConnectTimeout bounds one attempt to connect; what it started is killed then. 0: a minute.
	ConnectTimeout time.Duration
	// PullTimeout bounds the preparation of a run: the image is pulled, mounts are copied in. 0: ten minutes.
	PullTimeout time.Duration
	// SessionTimeout is how long new runs use a session; then there is a new one. 0: no bound.
	SessionTimeout time.Duration
	// DefaultImage is for contracts that name none.
	DefaultImage string
	// DockerSocket is a socket on this machine that all containers get as DockerSocket; "": none.
	DockerSocket string
	// AllowDockerSocket allows that, and contracts to mount a socket of the Docker daemon (policy.docker_socket).
	AllowDockerSocket bool
	// Images are patterns of the images that may be used (policy.images); none: all.
	Images []string
	// Networks are those that contracts may have (policy.network). Every container has "bridge"; without it, contracts run that ask
	// for that by name, as far as the policy lets them through, and no others.
	Networks []string
	// Root allows tools to be root in their containers (policy.root). Privileged ones may without.
	Root bool
	// MountRoots are where contracts may have mounts (policy.mounts).
	MountRoots []string
	// Secrets are files and directories of which no mount shows anything, beside the credentials that the dagger program uses.
	Secrets []string
	// DataDir is where output and changed files pass through that are too large for memory.
	DataDir string
	// Program stands beside the tool in its container: a static program for Linux that calls inside.Main. "": this one.
	Program string
	// MaxOutput is how many bytes of a run's output are taken; the rest is dropped where the tool is. 0: no bound.
	MaxOutput int64
	// Limits are limits of the configuration that nobody asked for by contract, as "memory 512Mi". They cannot be applied.
	Limits []string
}

// nobody is whom tools are where neither contract nor image names a user, or the image names root: user and group.
const nobody = "65534:65534"

// DockerSocket is where tools look for the Docker daemon.
const DockerSocket = "/var/run/docker.sock"

// mostAnswer bounds an answer of the engine, in bytes. With a program of ours beside the tool none comes near it; without, all that
// the tool printed is one. A variable for tests.
var mostAnswer int64 = 256 << 20

// LeastOutput is the least that MaxOutput is set to. It is far more than is published, because results have the end of an output, too.
const LeastOutput = 1 << 30

// Times of the engine. Variables for tests.
var (
	connectTimeout = time.Minute
	pullTimeout    = 10 * time.Minute
	probeEvery     = 5 * time.Second
	probeTimeout   = 3 * time.Second
	probesFailed   = 3 // in a row: the session is given up
	retryFirst     = 500 * time.Millisecond
	retryMost      = 30 * time.Second
	endTimeout     = 5 * time.Second        // for a CLI that was asked to end
	readyWait      = 3 * time.Second        // for a connect under way
	drainTimeout   = 5 * time.Second        // for the last output of a run that was stopped
	drainQuiet     = 300 * time.Millisecond // without output, after which that is taken for all
	stalled        = 2 * time.Second        // after the end of a run without any output, the rest is asked for
	keepFacts      = time.Minute            // what was seen in an image
	pullNotice     = time.Second            // a start that takes longer is told
)
