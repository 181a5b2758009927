package executor

import (
	"context"
	"errors"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// run has the engine run the tool. An error that is a *stop says why it was stopped; errElsewhere that it was not ours.
func (r *run) run() (engines.Exit, error) {
	e := r.executor
	r.output = newOutput(e.config.MaxOutputBytes, e.config.ResultInlineBytes)
	if r.contract.OnOutputLimit == contracts.OutputStop {
		r.output.onLimit = func() {
			r.cancel(&stop{contracts.Failed, contracts.Errorf(contracts.OutputLimit, "the tool printed more than %d bytes (execution.max_output_bytes) and was stopped, as its contract asks", e.config.MaxOutputBytes)})
		}
	}
	var clocks []*time.Timer
	defer func() {
		for _, c := range clocks {
			c.Stop()
		}
	}()
	if deadline := r.request.Deadline; !deadline.IsZero() {
		clocks = append(clocks, time.AfterFunc(time.Until(deadline), func() {
			r.cancel(&stop{contracts.TimedOut, contracts.Errorf(contracts.Timeout, "the deadline %s passed while it ran", deadline.Format(time.RFC3339))})
		}))
	}
	job := &engines.Job{
		ID: r.id, Attempt: r.attempt, Contract: r.contract, Spec: r.spec,
		Args: r.args, Context: r.request.Context, Stdin: r.request.Input(r.spec.Common()),
		Passthrough: e.config.Policy.passthrough(r.spec.Common()),
		Starting: func() error {
			if err := r.claim(); err != nil {
				return err
			}
			clocks = append(clocks, time.AfterFunc(r.timeout, func() { r.cancel(&stop{contracts.TimedOut, r.timeoutError()}) }))
			return nil
		},
		Progress: r.progress,
	}
	exit, err := e.engines[r.delivery.Engine].Run(r.ctx, job, r.output.writer(contracts.Stdout), r.output.writer(contracts.Stderr))
	r.ended, r.stages = time.Now(), exit.Stages
	r.output.close()
	return exit, err
}

// claim makes the attempt ours, and opens its journal. The tool starts only after it.
func (r *run) claim() error {
	for {
		r.started = time.Now()
		started := r.event(contracts.TypeStarted)
		started.Tool, started.Delivery = r.contract.Name, r.contract.Delivery
		started.QueuedMS = milliseconds(r.fetched.Sub(r.since()))
		seq, err := r.executor.bus.Advance(r.ctx, started, r.record.StatusSeq, r.copies.Trace)
		if err != nil {
			r.started = time.Time{}
			return err
		}
		if seq > 0 {
			r.record.Status, r.record.StatusSeq = &started, seq
			r.executor.bus.CopyEvent(r.copies, started)
			r.openJournal()
			return nil
		}
		r.started = time.Time{}
		// Somebody wrote to the status since we read it. Was that a claim, or did the run go elsewhere?
		before := r.attempt
		if r.record, err = r.executor.bus.Record(r.ctx, r.id, true); err != nil {
			return err
		}
		status := r.record.Status
		if r.record.Result != nil || status == nil || status.Attempt >= before || status.Hop > r.hop || status.ExecSeq != r.delivery.Seq {
			return errElsewhere
		}
	}
}

// openJournal begins the attempt's journal. Keep looks at it from another goroutine.
func (r *run) openJournal() {
	journal := r.executor.bus.Journal(r.store, r.id, r.attempt, r.copies, r.output.poke)
	r.executor.mu.Lock()
	r.journal = journal
	r.executor.mu.Unlock()
	r.output.open(journal)
}

// event makes an event of this run.
func (r *run) event(kind string) contracts.Event {
	event := contracts.Event{Type: kind, ID: r.id, Attempt: r.attempt, Executor: r.executor.config.Name, Time: time.Now().UTC(),
		Digest: r.digest, ExecSeq: r.delivery.Seq, Engine: r.delivery.Engine, Hop: r.hop, Tried: r.tried, Tries: r.tries, Since: r.stored}
	if kind == contracts.TypeFallback {
		event.Since = r.since()
	}
	return event
}

// progress tells what is being done before the tool starts.
func (r *run) progress(stage, message string, percent float64) {
	if r.journal != nil {
		return // it would hide the claim
	}
	event := r.event(contracts.TypeProgress)
	event.Attempt-- // it is not claimed yet
	event.Stage, event.Message = stage, message
	if percent >= 0 {
		event.Percent = &percent
	}
	// Where somebody else has claimed the run meanwhile, it is not told: it would hide his claim.
	ctx, cancel := context.WithTimeout(r.ctx, progressWait)
	defer cancel()
	seq, err := r.executor.bus.Advance(ctx, event, r.record.StatusSeq, r.copies.Trace)
	if err != nil || seq == 0 {
		r.log.Debug().Err(err).Msg("progress was not stored")
		return
	}
	r.record.Status, r.record.StatusSeq = &event, seq
	r.executor.bus.CopyEvent(r.copies, event)
}

// progressWait is how long telling of progress may hold up what it tells of.
const progressWait = 2 * time.Second

func (r *run) sayRunning() {
	r.executor.mu.Lock()
	journal := r.journal
	r.executor.mu.Unlock()
	if journal != nil {
		journal.Running(r.event(contracts.TypeRunning), silence)
	}
}

func milliseconds(d time.Duration) float64 { return float64(max(d, 0).Microseconds()) / 1000 }

// stopped returns why a run was stopped, nil where it was not.
func stopped(err error) *stop {
	var s *stop
	if errors.As(err, &s) {
		return s
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return draining
	}
	return nil
}
