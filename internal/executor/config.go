package executor

import (
	"math/rand/v2"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Config is what an operator decides about the core.
type Config struct {
	Name              string // of this instance
	DefaultEngine     string
	MaxAttempts       int           // starts of a tool for one request, where executors died under it
	MaxExecutionTime  time.Duration // bound on all timeouts
	ResultInlineBytes int           // stdout and stderr in a result, as JSON
	MaxOutputBytes    int64         // published output of one run
	Policy            Policy
}

// Policy is what this executor allows; the zero value allows least.
type Policy struct {
	InlineContracts bool     `json:"inline_contracts"` // requests may bring a contract of their own
	Shell           bool     `json:"shell"`            // those may use shell: true
	Network         []string `json:"network"`          // networks besides none that a contract may ask for
	Mounts          []string `json:"mounts"`           // roots below which mounts may lie; "path:rw" allows writing
	EnvPassthrough  []string `json:"env_passthrough"`  // variables of the executor that contracts may pass on
	Privileged      bool     `json:"privileged"`       // privileged containers
	DockerSocket    bool     `json:"docker_socket"`    // the docker socket inside of containers
	Root            bool     `json:"root"`             // containers whose user is root, inside of them
	GPUs            bool     `json:"gpus"`             // graphics processors inside of containers
	Images          []string `json:"images"`           // patterns of images that containers may be of; none: all
	ReplyPrefixes   []string `json:"reply_prefixes"`   // where answers may go, as _INBOX.
	Local           Local    `json:"local"`
}

// Local is what policy says about the local engine alone.
type Local struct {
	// Commands are the files that may be executed, and directories, with a slash at the end, with all in them; empty: all. The
	// engine looks, because only it knows which file a command is.
	Commands    []string `json:"commands"`
	Unsandboxed bool     `json:"unsandboxed"` // contracts may say sandbox: none
}

// DefaultReplyPrefixes are the inboxes of NATS clients.
var DefaultReplyPrefixes = []string{"_INBOX."}

// Times of the core.
const (
	// silence is how long a follower hears nothing before he is told that the run goes on.
	silence = 5 * time.Second
	// reportGrace is how long results may take to be stored after the drain time is over.
	reportGrace = 10 * time.Second
	// crowdedFirst and crowdedMost bound the wait of a request that finds too many others waiting for the same limit.
	crowdedFirst = 5 * time.Second
	crowdedMost  = 30 * time.Second
	// againFirst and againMost bound the wait before a delivery is looked at again whose run is somebody else's.
	againFirst = 100 * time.Millisecond
	againMost  = 5 * time.Second
)

// crowdedDelay is the wait of a request that found too many others waiting, varied so that they do not come back together.
func crowdedDelay(d contracts.Delivery) time.Duration {
	delay := min(crowdedMost, crowdedFirst<<min(d.Delivered-1, 10))
	return delay/2 + rand.N(delay)
}

// againDelay is the wait before the next look, longer each time.
func againDelay(d contracts.Delivery) time.Duration {
	return min(againMost, againFirst<<min(d.Delivered, 10))
}
