package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// The messages of the wire protocol; docs/wire-protocol.md describes them field by field.
type (
	// Request is one ask to run a tool.
	Request = contracts.Request
	// Contract describes a tool; a request may bring its own where the executors allow that.
	Contract = contracts.Contract
	// Result is how a run ended.
	Result = contracts.Result
	// Error is what went wrong about a run: a code and a message.
	Error = contracts.Error
	// Status says how a run ended, as "succeeded".
	Status = contracts.Status
	// Code says what went wrong, as "invalid_args".
	Code = contracts.Code
	// Discovery is what there is: tools, engines, executors.
	Discovery = contracts.Discovery
	// Declaration tells a language model about a tool, in the form that its API takes.
	Declaration = contracts.Declaration
	// PastEvent is an event of a run in the history of its dead letter.
	PastEvent = contracts.PastEvent
	// Duration is a span of time, in JSON a number of seconds.
	Duration = contracts.Duration
)

// The types of events.
const (
	TypeAccepted = contracts.TypeAccepted
	TypeStarted  = contracts.TypeStarted
	TypeOutput   = contracts.TypeOutput
	TypeProgress = contracts.TypeProgress
	TypeRunning  = contracts.TypeRunning
	TypeFallback = contracts.TypeFallback
	TypeRetry    = contracts.TypeRetry
	TypeResult   = contracts.TypeResult
)

// ErrNoExecutor means that no executor is connected to this NATS server, or none with this subject prefix.
var ErrNoExecutor = errors.New("no executor answers")

// askWait is how long an answer to one question may take.
const askWait = 5 * time.Second

// Client asks executors. It may be used by many goroutines; the connection stays the caller's.
type Client struct {
	nc       *nats.Conn
	subjects contracts.Subjects
}

// Option changes a Client.
type Option func(*options)

type options struct{ prefix string }

// Prefix chooses the fleet, by the subject prefix that its executors are configured with (default "tools").
func Prefix(prefix string) Option { return func(o *options) { o.prefix = prefix } }

// New makes a client of a connection.
func New(nc *nats.Conn, opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	subjects, err := contracts.NewSubjects(o.prefix)
	if err != nil {
		return nil, err
	}
	return &Client{nc, subjects}, nil
}

// NewID makes an id for a request: 128 random bits. Who knows the id of a run may follow and cancel it.
func NewID() string { return rand.Text() }

// Cancel asks for the end of a run, queued or running. It returns when the ask is stored; the run's result tells the rest.
func (c *Client) Cancel(ctx context.Context, id string) error {
	reply, err := c.ask(ctx, c.subjects.Cancel(id), nil)
	if err != nil {
		return fmt.Errorf("cancel %s: %w", id, err)
	}
	var ack struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Error != nil {
		return fmt.Errorf("cancel %s: the server did not store it: %s", id, reply.Data)
	}
	return nil
}

// Discover lists the tools, engines and executors that are there; only the tool of that name where one is given.
func (c *Client) Discover(ctx context.Context, tool string) (*Discovery, error) {
	var discovery Discovery
	if err := c.discover(ctx, contracts.Discover{Tool: tool}, &discovery); err != nil {
		return nil, err
	}
	return &discovery, nil
}

// Declarations are the tools as a language model's API takes them: as is "openai", "anthropic" or "mcp". Names and
// arguments are those of the contracts, so that what a model calls is Request.Tool and Request.Args.
func (c *Client) Declarations(ctx context.Context, tool, as string) ([]Declaration, error) {
	var declarations contracts.Declarations
	if err := c.discover(ctx, contracts.Discover{Tool: tool, As: as}, &declarations); err != nil {
		return nil, err
	}
	return declarations.Tools, nil
}

func (c *Client) discover(ctx context.Context, ask contracts.Discover, answer any) error {
	question, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	reply, err := c.ask(ctx, c.subjects.Discover(), question)
	if err != nil {
		return fmt.Errorf("discover: %w", err)
	}
	if err := json.Unmarshal(reply.Data, answer); err != nil {
		return fmt.Errorf("discover: the answer cannot be read: %w", err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, subject, data)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, ErrNoExecutor
	}
	if err != nil {
		return nil, err
	}
	if text := reply.Header.Get(contracts.HeaderServiceError); text != "" {
		return nil, errors.New(text)
	}
	return reply, nil
}
