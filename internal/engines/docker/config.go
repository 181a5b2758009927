package docker

import (
	"os"
	"time"
)

// Config is what an operator decides about the Docker engine.
type Config struct {
	// Host is where the daemon is: unix://, tcp:// or ssh://. "" is what the environment says (DOCKER_HOST, DOCKER_TLS_VERIFY,
	// DOCKER_CERT_PATH), as for the docker command, else this machine's.
	Host string
	// CA, Cert and Key are files for a tcp:// host with TLS.
	CA, Cert, Key string
	// Runtime is that of containers, as runc or runsc; "" is the daemon's default.
	Runtime string
	// Program is a file with this program, built without cgo for the system of the daemon. "" is the running one.
	Program string

	// User is whom tools are where neither contract nor image names a user, as 65534:65534.
	User string
	// Network is that of contracts that name none: none, bridge, or the name of one.
	Network string
	// ReadOnly makes the root of containers read-only where the contract does not say.
	ReadOnly bool
	// Memory in bytes, CPU in thousandths of a processor and Pids bound containers whose contracts do not; 0 is no bound.
	Memory, CPU, Pids int64
	// HomeSize, TempSize and SharedSize bound HOME, /tmp and /dev/shm, in bytes. They are memory.
	HomeSize, TempSize, SharedSize int64
	// Env is added to the environment of every tool, as proxy settings.
	Env map[string]string

	// Images are patterns of the images that may be used; none: all.
	Images []string
	// MountRoots are where contracts may have mounts (policy.mounts).
	MountRoots []string
	// Secrets are files and directories of which no mount shows anything, beside the credentials that this configuration names.
	Secrets []string
	// DockerSocket, Root and GPUs allow what they are called (policy).
	DockerSocket, Root, GPUs bool

	// Pull says when images are pulled: PullMissing, PullAlways or PullNever.
	Pull string
	// PrePull are images that are pulled at the start.
	PrePull []string
	// CredentialsDir has the config.json of the docker command, with the credentials of registries; "": that of the
	// executor's user.
	CredentialsDir string

	// KillGrace is how long a tool may go on after it was asked to stop (SIGTERM).
	KillGrace time.Duration
	// CallTimeout bounds every call to the daemon; of a pull, until the daemon says something of it. PullTimeout bounds all of that.
	CallTimeout, PullTimeout time.Duration

	// Warm says how many containers are made ahead.
	Warm Warm
}

// Warm bounds the containers that wait for a run.
type Warm struct {
	// Each is how many there are of one kind at most, Total of all; 0: none.
	Each, Total int
	// Memory bounds what those that wait use together, in bytes. Each counts with WarmCost.
	Memory int64
	// MaxAge is how long one waits; then it is removed.
	MaxAge time.Duration
}

// WarmCost is what a container that waits for a run costs in memory, the daemon's part included.
const WarmCost = 16 << 20

// When images are pulled.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)

// Pulls are all of them.
var Pulls = []string{PullMissing, PullAlways, PullNever}

// Default is what holds where an operator decides nothing.
func Default() Config {
	return Config{
		User: "65534:65534", Network: "none", ReadOnly: true, Pids: 1024, HomeSize: 1 << 30, TempSize: 256 << 20, SharedSize: 64 << 20,
		Pull: PullMissing, KillGrace: 5 * time.Second, CallTimeout: 30 * time.Second, PullTimeout: 10 * time.Minute,
		Warm: Warm{Each: 4, Total: 16, Memory: 512 << 20, MaxAge: 5 * time.Minute},
	}
}

// defaultSocket is where the daemon of this machine listens.
const defaultSocket = "/var/run/docker.sock"

// Here reports whether it looks as if the engine could be served without anything being configured: there is a daemon for this user,
// and this program can start in containers.
func Here() bool {
	if _, err := os.Stat(defaultSocket); err != nil && os.Getenv("DOCKER_HOST") == "" {
		return false
	}
	name, err := os.Executable()
	if err != nil {
		return false
	}
	program, err := os.Open(name)
	if err != nil {
		return false
	}
	defer program.Close()
	return static(program) == nil
}
