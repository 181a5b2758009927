package contracts

import "time"

// Headers of the messages about a run. Clients dispatch on HeaderType alone.
const (
	HeaderType     = "Tools-Type"     // one of the types below
	HeaderID       = "Tools-Id"       // of the request
	HeaderAttempt  = "Tools-Attempt"  // 1, 2, …; 0 before the first
	HeaderExecutor = "Tools-Executor" // name of the instance

	HeaderStream = "Tools-Stream" // of output: stdout or stderr
	HeaderSeq    = "Tools-Seq"    // of output: 1, 2, 3 … per attempt, both streams together
	HeaderOffset = "Tools-Offset" // of output: bytes of its stream before this chunk
)

// Headers of requests.
const (
	HeaderReplyTo = "Tools-Reply-To" // where copies go; wins over reply_to
	HeaderReply   = "Tools-Reply"    // what the copies hold: ReplyEvents or ReplyResult
	HeaderHop     = "Tools-Hop"      // how often the request was republished
	HeaderTried   = "Tools-Tried"    // engines that could not take it, as JSON

	HeaderTraceparent = "traceparent" // W3C Trace Context, passed on everywhere
)

// Headers that NATS's own clients print for an error reply (ADR-32).
const (
	HeaderServiceError     = "Nats-Service-Error"
	HeaderServiceErrorCode = "Nats-Service-Error-Code"
)

// The values of HeaderReply.
const (
	ReplyEvents = "events" // every event, the result, an empty message; the default
	ReplyResult = "result" // the result alone
)

// The types of messages about a run.
const (
	TypeAccepted = "accepted" // in replies of tools.stream: the request is stored
	TypeStarted  = "started"  // the claim: who holds it owns the attempt
	TypeOutput   = "output"   // raw bytes of the tool
	TypeProgress = "progress" // a stage of the preparation
	TypeRunning  = "running"  // in copies only: nothing was said for a while, but the run goes on
	TypeFallback = "fallback" // republished to another engine
	TypeRetry    = "retry"    // will be tried again
	TypeResult   = "result"   // how it ended
	TypeFinished = "finished" // the last event of a run
)

// The values of HeaderStream.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Event is what an executor says about a run, apart from its output and result. Which fields it has depends on its
// type; readers pass over fields they do not know.
type Event struct {
	Type     string    `json:"type"`
	ID       string    `json:"id"`
	Attempt  int       `json:"attempt"` // 0 before the first
	Executor string    `json:"executor"`
	Time     time.Time `json:"time"`

	// all that are stored: whose run it is
	Digest  string `json:"digest,omitempty"`   // of the request
	ExecSeq uint64 `json:"exec_seq,omitempty"` // its place in its stream

	// those of a request that was passed on to another engine: how often, and the engines that could not take it, in order
	Hop   int       `json:"hop,omitempty"`
	Tried []Tried   `json:"tried,omitempty"`
	Since time.Time `json:"since,omitzero"` // when the request was stored in its first queue

	// started, progress, retry: where the request is
	Engine string `json:"engine,omitempty"`

	// started
	Tool     string  `json:"tool,omitempty"`
	Delivery string  `json:"delivery,omitempty"` // of the contract, which may be another one when somebody asks
	QueuedMS float64 `json:"queued_ms,omitempty"`

	// progress
	Stage   string   `json:"stage,omitempty"`
	Message string   `json:"message,omitempty"`
	Percent *float64 `json:"percent,omitempty"`

	// fallback
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`

	// fallback and retry
	Code   Code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`

	// retry
	DelayMS float64 `json:"delay_ms,omitempty"` // until it may be taken again
	Tries   int     `json:"tries,omitempty"`    // how often no engine could take it, so far; kept in the events that follow

	// finished
	Status Status `json:"status,omitempty"`

	// accepted
	Stream string `json:"stream,omitempty"` // that holds the request
	Seq    uint64 `json:"seq,omitempty"`    // its sequence there
	Reply  string `json:"reply,omitempty"`  // the subject below which the events are
}

// Chunk is a piece of a tool's output.
type Chunk struct {
	Stream string // Stdout or Stderr
	Seq    uint64
	Offset int64
	Data   []byte
}
