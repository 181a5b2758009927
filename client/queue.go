package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Queue is how many requests wait for an engine, or run on it.
type Queue struct {
	Engine   string `json:"engine"`
	Priority string `json:"priority"`
	Requests uint64 `json:"requests"`
}

// Unfinished is a request that has no result yet.
type Unfinished struct {
	ID       string    `json:"id"`
	Tool     string    `json:"tool"`
	Engine   string    `json:"engine"` // of the queue that it is in
	Priority string    `json:"priority"`
	Seq      uint64    `json:"seq"`               // its place in the queue
	Queued   time.Time `json:"queued"`            // when it was stored there
	State    string    `json:"state"`             // "queued" or "running"
	Attempt  int       `json:"attempt,omitempty"` // the rest of one that runs
	Executor string    `json:"executor,omitempty"`
	Started  time.Time `json:"started,omitzero"`
}

// The states of an unfinished request.
const (
	StateQueued  = "queued"
	StateRunning = "running"
)

// Queues lists the queues that hold requests, and the requests, the oldest first, at most limit of them. It reads the
// streams: the connection needs the rights of an operator, because who knows the id of a run may follow and cancel it.
func (c *Client) Queues(ctx context.Context, limit int) ([]Queue, []Unfinished, error) {
	ctx, cancel := context.WithTimeout(ctx, queuesWait)
	defer cancel()
	queues, requests, err := c.queues(ctx, limit)
	if err != nil {
		return nil, nil, c.explain("read the queues", "EXEC", err)
	}
	return queues, requests, nil
}

// explain says what was being done with a stream, and what may be the cause where the error does not say it.
func (c *Client) explain(what, stream string, err error) error {
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("there is no stream %s: no executor has been started on this NATS server, or they have another subject prefix", c.subjects.Name(stream))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, jetstream.ErrNoStreamResponse):
		err = fmt.Errorf("%w; does this user have the right to read the streams?", err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// queuesWait is how long all questions of Queues may take together.
const queuesWait = 10 * time.Second

func (c *Client) queues(ctx context.Context, limit int) ([]Queue, []Unfinished, error) {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return nil, nil, err
	}
	exec, err := js.Stream(ctx, c.subjects.Name("EXEC"))
	if err != nil {
		return nil, nil, err
	}
	info, err := exec.Info(ctx, jetstream.WithSubjectFilter(c.subjects.Prefix()+".exec.>"))
	if err != nil {
		return nil, nil, err
	}
	queues := []Queue{}
	for subject, n := range info.State.Subjects {
		if engine, priority, ok := c.subjects.ParseExec(subject); ok {
			queues = append(queues, Queue{engine, priority, n})
		}
	}
	slices.SortFunc(queues, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(slices.Index(contracts.Priorities, a.Priority), slices.Index(contracts.Priorities, b.Priority)))
	})

	reply, err := js.Stream(ctx, c.subjects.Name("REPLY"))
	if err != nil {
		return nil, nil, err
	}
	requests := []Unfinished{}
	for next := info.State.FirstSeq; len(requests) < limit; {
		msg, err := exec.GetMsg(ctx, next, jetstream.WithGetMsgSubject(c.subjects.Prefix()+".exec.>"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		next = msg.Sequence + 1
		one := c.unfinished(msg, info.Created)
		status, err := reply.GetLastMsgForSubject(ctx, c.subjects.Status(one.ID))
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, nil, err
		}
		if err == nil {
			var event contracts.Event
			if json.Unmarshal(status.Data, &event) == nil && event.Type == TypeStarted && event.ExecSeq == one.Seq {
				one.State, one.Attempt, one.Executor, one.Started = StateRunning, event.Attempt, event.Executor, event.Time
			}
		}
		requests = append(requests, one)
	}
	return queues, requests, nil
}

// unfinished reads a request as far as it can be read: what is wrong with it is for the executor to say.
func (c *Client) unfinished(msg *jetstream.RawStreamMsg, created time.Time) Unfinished {
	one := Unfinished{Seq: msg.Sequence, Queued: msg.Time, State: StateQueued}
	one.Engine, one.Priority, _ = c.subjects.ParseExec(msg.Subject)
	var request struct {
		ID       string `json:"id"`
		Tool     string `json:"tool"`
		Contract struct {
			Name string `json:"name"`
		} `json:"contract"`
	}
	_ = json.Unmarshal(msg.Data, &request)
	one.ID, one.Tool = request.ID, cmp.Or(request.Tool, request.Contract.Name)
	if contracts.CheckID(one.ID) != nil {
		one.ID = contracts.QueueID(created, msg.Sequence)
	}
	return one
}
