package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// report turns the end of a run into its result, stores that, and says what becomes of the request.
func (r *run) report(exit engines.Exit, err error) contracts.Settlement {
	if err != nil && r.journal == nil {
		return r.notStarted(err)
	}
	if err := r.journal.Flush(); err != nil {
		// Its output cannot be stored, so its result must not be: it would say that all went well.
		if errors.Is(err, contracts.ErrPermanent) {
			return r.unstorable(fmt.Errorf("the output of the run: %w", err))
		}
		r.log.Error().Err(err).Msg("the output of a run could not be stored; it is left to others")
		return contracts.Settlement{Outcome: contracts.Again, Delay: againDelay(r.delivery), Reason: err.Error()}
	}
	var outcome *contracts.Error
	status := contracts.Succeeded
	s := stopped(err)
	var wrong *contracts.Error
	switch {
	case s != nil && s.status == "":
		return r.leave(s.err, 0)
	case s != nil:
		status, outcome = s.status, s.err
	case errors.As(err, &wrong):
		status, outcome = wrong.Status(), wrong
	case err != nil:
		// The engine lost the tool. Whether it ran to its end nobody knows; as after an executor's death, it is started
		// again, but not for ever.
		if r.attempt < r.executor.config.MaxAttempts {
			return r.leave(contracts.Errorf(contracts.Internal, "%s", err), time.Second)
		}
		return r.refuse(contracts.Errorf(contracts.ExecutorLost, "the tool was lost %d times, which is as often as it is tried (executor.max_attempts); at last: %s", r.attempt, err))
	case exit.OOMKilled:
		status, outcome = contracts.Failed, contracts.Errorf(contracts.OOMKilled, "the tool went over its memory limit and was killed")
	case exit.Signal != "":
		status, outcome = contracts.Failed, contracts.Errorf(contracts.Signalled, "the tool was ended by %s", exit.Signal)
	case exit.Code != 0:
		status, outcome = contracts.Failed, contracts.Errorf(contracts.ExitNonzero, "the tool exited with %d", exit.Code)
	}
	result := r.resultOf(outcome)
	result.Status, result.Attempt = status, r.attempt
	if exit.Signal != "" {
		result.Signal = exit.Signal
	} else if wrong == nil {
		result.ExitCode = &exit.Code
	}
	fill(result, &r.output.streams[0].capture, &r.output.streams[1].capture, r.executor.config.ResultInlineBytes)
	result.DroppedBytes = r.output.dropped
	result.Isolation = &exit.Isolation
	if exit.Usage != (contracts.Usage{}) {
		result.Usage = &exit.Usage
	}
	return r.conclude(result)
}

// notStarted deals with a run whose tool was never started.
func (r *run) notStarted(err error) contracts.Settlement {
	var wrong *contracts.Error
	switch s := stopped(err); {
	case errors.Is(err, errElsewhere):
		return r.again("the run is somebody else's")
	case s != nil && s.status == "":
		return contracts.Settlement{Outcome: contracts.Again, Reason: s.err.Message}
	case s != nil:
		return r.refuse(s.err)
	case errors.As(err, &wrong):
		return r.refuse(wrong)
	}
	if errors.Is(err, contracts.ErrPermanent) {
		return r.refuse(contracts.Errorf(contracts.Internal, "NATS refuses what has to be stored about the run: %s", err))
	}
	return r.interrupted(err)
}

// unstorable ends a run of which NATS refuses for good what has to be stored. Starting it again would end the same way;
// its result, if that can be stored, says so, and the request is kept as a dead letter.
func (r *run) unstorable(err error) contracts.Settlement {
	r.log.Error().Err(err).Msg("NATS refuses what has to be stored about a run")
	why := contracts.Errorf(contracts.Internal, "NATS refuses what has to be stored about the run: %s", err)
	result := r.resultOf(why)
	result.Attempt = r.attempt
	if r.journal != nil {
		result.Status = contracts.Failed // the tool ran
	}
	settlement := r.bury(why)
	if stored, err := r.executor.bus.StoreResult(r.store, result, ""); err == nil {
		r.executor.bus.CopyResult(r.copies, stored)
		r.finish(result.Attempt, result.Status)
	}
	return settlement
}

// interrupted leaves a delivery to be taken again: what it needs cannot be asked or told now.
func (r *run) interrupted(err error) contracts.Settlement {
	if stopped(err) == nil {
		r.log.Warn().Err(err).Msg("a request could not be handled now; it will be taken again")
	}
	return contracts.Settlement{Outcome: contracts.Again, Delay: againDelay(r.delivery), Reason: err.Error()}
}

// again leaves a delivery to be looked at later.
func (r *run) again(reason string) contracts.Settlement {
	r.log.Debug().Str("reason", reason).Msg("looking at a request again later")
	return contracts.Settlement{Outcome: contracts.Again, Delay: againDelay(r.delivery), Reason: reason}
}

// leave gives a claimed run back, to be started again by anybody.
func (r *run) leave(why *contracts.Error, delay time.Duration) contracts.Settlement {
	event := r.event(contracts.TypeRetry)
	event.Code, event.Reason, event.DelayMS = why.Code, why.Message, milliseconds(delay)
	err := r.journal.Event(event)
	if err == nil {
		err = r.journal.Flush()
	}
	r.log.Warn().AnErr("store", err).Str("reason", why.Message).Int("attempt", r.attempt).Msg("left a run to others")
	return contracts.Settlement{Outcome: contracts.Again, Delay: delay, Reason: why.Message}
}

// refuse ends a run that is not started, or not again: its result says why. What is wrong with the request also goes to
// the dead letters, before the result, so that nothing vanishes.
func (r *run) refuse(why *contracts.Error) contracts.Settlement {
	result := r.resultOf(why)
	settlement := contracts.Settlement{Outcome: contracts.Done}
	if result.Status == contracts.Rejected || result.Status == contracts.Lost {
		if settlement = r.bury(why); settlement.Outcome == contracts.Again {
			return settlement
		}
	}
	if r.id == "" { // it names an id that cannot be one: there is nowhere to store a result
		r.executor.bus.CopyResult(r.copies, result)
		return settlement
	}
	if r.record.Status == nil { // whose is the id?
		record, err := r.executor.bus.Record(r.store, r.id, true)
		if err != nil {
			return r.interrupted(err)
		}
		r.record = record
	}
	if stored := r.record.Result; stored != nil && stored.Digest != result.Digest {
		r.executor.bus.CopyResult(r.copies, result)
		return settlement
	}
	if status := r.record.Status; status != nil && status.Attempt > 0 && status.ExecSeq != r.delivery.Seq {
		// A message that does not own the claim writes nothing about the run.
		r.executor.bus.CopyResult(r.copies, result)
		return settlement
	} else if status != nil {
		result.Attempt = status.Attempt
	}
	if r.journal != nil { // claimed since the record was read
		result.Attempt = r.attempt
	}
	if done := r.conclude(result); done.Outcome != contracts.Done {
		return done
	}
	return settlement
}

// bury stores the request as a dead letter.
func (r *run) bury(why *contracts.Error) contracts.Settlement {
	d := r.delivery
	err := r.executor.bus.Bury(r.store, contracts.DeadLetter{
		ID: r.id, Digest: r.digest, Engine: d.Engine, Seq: d.Seq, Stored: d.Stored, Executor: r.executor.config.Name, Time: time.Now().UTC(),
		Delivered: d.Delivered, Attempts: max(r.attempt-1, 0), Error: why,
	}, d)
	if errors.Is(err, contracts.ErrPermanent) {
		// Nothing can be kept of it but this line. Left in the queue, it would come again for ever.
		r.log.Error().Err(err).Uint64("seq", d.Seq).Str("code", string(why.Code)).Msg("a request was given up on, and NATS refuses its dead letter")
	} else if err != nil {
		return r.interrupted(err)
	}
	return contracts.Settlement{Outcome: contracts.Refused, Reason: why.Error()}
}

// conclude stores the result, if nobody was faster, and tells everybody of the one that is stored.
func (r *run) conclude(result *contracts.Result) contracts.Settlement {
	stored, err := r.executor.bus.StoreResult(r.store, result, r.copies.Trace)
	if errors.Is(err, contracts.ErrPermanent) {
		if result.Error != nil && result.Error.Code == contracts.Internal { // not even that it cannot be stored
			return r.bury(result.Error)
		}
		return r.unstorable(err)
	}
	if err != nil {
		return r.interrupted(err)
	}
	r.executor.bus.CopyResult(r.copies, stored)
	if stored != result && (stored.Executor != result.Executor || stored.Attempt != result.Attempt) {
		r.log.Warn().Str("winner", stored.Executor).Int("attempt", r.attempt).Msg("the run had a result already; this one was dropped")
		return contracts.Settlement{Outcome: contracts.Done}
	}
	r.finish(result.Attempt, result.Status)
	event := r.log.Info().Str("status", string(result.Status)).Int("attempt", result.Attempt)
	if result.Error != nil {
		event = event.Str("code", string(result.Error.Code))
	}
	if t := result.Timings; t != nil {
		event = event.Float64("run_ms", t.RunMS).Float64("total_ms", t.TotalMS)
	}
	event.Msg("run ended")
	return contracts.Settlement{Outcome: contracts.Done}
}

// finish stores the last event of the run. Without it followers end by the result, a little later.
func (r *run) finish(attempt int, status contracts.Status) {
	journal := r.journal
	if journal == nil {
		journal = r.executor.bus.Journal(r.store, r.id, attempt, r.copies, nil)
	}
	event := r.event(contracts.TypeFinished)
	event.Attempt, event.Status = attempt, status
	err := journal.Event(event)
	if err == nil {
		err = journal.Flush()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		r.log.Warn().Err(err).Msg("the last event of a run was not stored")
	}
}

// resultOf begins a result: an error's, or that of a tool that ended well.
func (r *run) resultOf(why *contracts.Error) *contracts.Result {
	now := time.Now()
	result := &contracts.Result{
		Type: contracts.TypeResult, ID: r.id, Tool: toolOf(r.request), Version: r.request.Version, Digest: r.digest,
		Status: contracts.Succeeded, Error: why, Engine: r.delivery.Engine, Executor: r.executor.config.Name,
		Labels: r.request.Labels, Time: now.UTC(),
	}
	if r.contract != nil {
		result.Version = r.contract.Version
	}
	if why != nil {
		result.Status = why.Status()
	}
	timings := &contracts.Timings{QueuedMS: milliseconds(r.fetched.Sub(r.delivery.Stored)), TotalMS: milliseconds(now.Sub(r.delivery.Stored))}
	if !r.started.IsZero() {
		timings.PrepareMS = milliseconds(r.started.Sub(r.fetched))
		timings.RunMS = milliseconds(r.ended.Sub(r.started))
	}
	result.Timings = timings
	return result
}
