package contracts

import (
	"errors"
	"fmt"
	"time"
)

// Status says how a run ended. The set is closed.
type Status string

// The statuses.
const (
	Succeeded   Status = "succeeded"
	Failed      Status = "failed"      // the tool ran and exited non-zero, or was ended by a signal or a limit
	TimedOut    Status = "timed_out"   // its timeout or the request's deadline passed during the run
	Cancelled   Status = "cancelled"   // somebody asked for it to stop
	Rejected    Status = "rejected"    // the request or contract is wrong, or policy forbids it
	Unavailable Status = "unavailable" // no engine could take it
	Expired     Status = "expired"     // deadline or queue_timeout passed before the start
	Lost        Status = "lost"        // executors died under it too often
	Unknown     Status = "unknown"     // at-most-once, and an executor died after the claim
)

// Statuses are all of them.
var Statuses = []Status{Succeeded, Failed, TimedOut, Cancelled, Rejected, Unavailable, Expired, Lost, Unknown}

// Code says what went wrong, for programs. The set is closed.
type Code string

// The codes.
const (
	InvalidRequest    Code = "invalid_request"
	IDConflict        Code = "id_conflict"
	UnknownTool       Code = "unknown_tool"
	InvalidArgs       Code = "invalid_args"
	PolicyDenied      Code = "policy_denied"
	Unsupported       Code = "unsupported"
	QueueFull         Code = "queue_full"
	EngineUnavailable Code = "engine_unavailable"
	ImageUnavailable  Code = "image_unavailable"
	SpawnFailed       Code = "spawn_failed"
	ExitNonzero       Code = "exit_nonzero"
	Signalled         Code = "signalled"
	OOMKilled         Code = "oom_killed"
	Timeout           Code = "timeout"
	OutputLimit       Code = "output_limit"
	CancelledCode     Code = "cancelled"
	ExpiredCode       Code = "expired"
	ExecutorLost      Code = "executor_lost"
	Internal          Code = "internal"
)

// Codes are all of them.
var Codes = []Code{InvalidRequest, IDConflict, UnknownTool, InvalidArgs, PolicyDenied, Unsupported, QueueFull, EngineUnavailable, ImageUnavailable,
	SpawnFailed, ExitNonzero, Signalled, OOMKilled, Timeout, OutputLimit, CancelledCode, ExpiredCode, ExecutorLost, Internal}

// Error is what went wrong about a run: a code for programs and a message for people, which says what was wrong, where,
// and what to do about it.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Errorf makes an Error.
func Errorf(code Code, format string, a ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, a...)}
}

// Error is the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// AsError returns the Error in err's chain, or err as one with the code internal.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Internal, Message: err.Error()}
}

// Status is how a run ends that this error kept from running.
func (e *Error) Status() Status {
	switch e.Code {
	case EngineUnavailable, ImageUnavailable, Unsupported, QueueFull, Internal:
		return Unavailable
	case ExpiredCode:
		return Expired
	case CancelledCode:
		return Cancelled
	case ExecutorLost:
		return Lost
	case Timeout:
		return TimedOut
	}
	return Rejected
}

// Result is how a run ended: exactly one is stored for every request. Fields that do not apply are absent.
type Result struct {
	Type         string            `json:"type"`         // TypeResult
	ID           string            `json:"id,omitempty"` // absent where the request had none that could be read
	Tool         string            `json:"tool,omitempty"`
	Version      string            `json:"version,omitempty"`
	Digest       string            `json:"digest,omitempty"` // of the request that it answers
	Status       Status            `json:"status"`
	ExitCode     *int              `json:"exit_code,omitempty"` // nil where the tool did not exit by itself
	Signal       string            `json:"signal,omitempty"`    // that ended the tool, as SIGKILL
	Error        *Error            `json:"error,omitempty"`
	Stdout       string            `json:"stdout,omitempty"`
	StdoutBase64 []byte            `json:"stdout_base64,omitempty"` // in place of stdout where that is not UTF-8
	Stderr       string            `json:"stderr,omitempty"`
	StderrBase64 []byte            `json:"stderr_base64,omitempty"`
	StdoutBytes  int64             `json:"stdout_bytes"`            // all that the tool wrote
	StderrBytes  int64             `json:"stderr_bytes"`            //
	Truncated    bool              `json:"truncated,omitempty"`     // stdout or stderr hold only their first and last part
	DroppedBytes int64             `json:"dropped_bytes,omitempty"` // written beyond max_output_bytes and published nowhere
	Engine       string            `json:"engine,omitempty"`
	Executor     string            `json:"executor,omitempty"`
	Attempt      int               `json:"attempt,omitempty"` // 0: no attempt was started
	Tried        []Tried           `json:"tried,omitempty"`   // engines that could not take it, in order
	Timings      *Timings          `json:"timings,omitempty"`
	Usage        *Usage            `json:"usage,omitempty"`
	Isolation    *Isolation        `json:"isolation,omitempty"`
	Notes        []string          `json:"notes,omitempty"`  // for people: what was not as the contract asked, or as one would expect
	Labels       map[string]string `json:"labels,omitempty"` // those of the request
	Time         time.Time         `json:"time,omitzero"`
}

// Tried is an engine that could not take a run.
type Tried struct {
	Engine string `json:"engine"`
	Code   Code   `json:"code"`
	Reason string `json:"reason"`
}

// Timings say where the time of a run went, in milliseconds.
type Timings struct {
	QueuedMS  float64 `json:"queued_ms"`  // from the store of the request to its fetch
	PrepareMS float64 `json:"prepare_ms"` // from the fetch to the start of the tool
	RunMS     float64 `json:"run_ms"`     // from the start of the tool to its end, its whole tree gone
	TotalMS   float64 `json:"total_ms"`   // all of it

	// Parts of PrepareMS, where the engine has such a part.
	PullMS   float64 `json:"pull_ms,omitempty"`   // until the image was there
	CreateMS float64 `json:"create_ms,omitempty"` // of the container
	StartMS  float64 `json:"start_ms,omitempty"`  // of the container
}

// Usage is what a run used. What the engine cannot measure is absent.
type Usage struct {
	CPUMS       float64 `json:"cpu_ms,omitempty"`        // user and system time of all processes
	MaxRSSBytes int64   `json:"max_rss_bytes,omitempty"` // of the largest process; absent where it is too small to be told apart from the engine's helper
}

// Isolation says what kept the tool apart from the host.
type Isolation struct {
	Tier    string `json:"tier"`    // container, namespaces, bubblewrap, landlock, or none: an ordinary process
	Network string `json:"network"` // none; host: that of the executor; bridge or a name: that of the container's daemon
	Limits  string `json:"limits"`  // none, rlimit or cgroup
}
