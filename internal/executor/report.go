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
		return r.lost(s.err, 0)
	case s != nil:
		status, outcome = s.status, s.err
	case errors.As(err, &wrong):
		status, outcome = wrong.Status(), wrong
	case err != nil:
		// The engine lost the tool. Whether it ran to its end nobody knows; as after an executor's death, it is started
		// again, but not for ever.
		return r.lost(contracts.Errorf(contracts.ExecutorLost, "%s", err), time.Second)
	case exit.OOMKilled:
		status, outcome = contracts.Failed, contracts.Errorf(contracts.OOMKilled, "the tool went over its memory limit and was killed")
	case exit.Signal != "":
		status, outcome = contracts.Failed, contracts.Errorf(contracts.Signalled, "the tool was ended by %s", exit.Signal)
	case exit.Code != 0:
		status, outcome = contracts.Failed, contracts.Errorf(contracts.ExitNonzero, "the tool exited with %d", exit.Code)
	}
	if outcome != nil && r.contract.Again(status) && r.attempt < r.contract.Attempts(r.executor.config.MaxAttempts) {
		if again := r.retry(outcome, r.backoff(r.attempt)); again != nil {
			return *again
		}
	}
	result := r.resultOf(outcome)
	result.Status, result.Attempt = status, r.attempt
	if exit.Signal != "" {
		result.Signal = exit.Signal
	} else if wrong == nil {
		result.ExitCode = &exit.Code
	}
	r.fill(result)
	result.Isolation, result.Notes = &exit.Isolation, exit.Notes
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
		return r.elsewhere()
	case s != nil && s.status == "":
		return contracts.Settlement{Outcome: contracts.Again, Reason: s.err.Message}
	case s != nil:
		return r.refuse(s.err)
	case errors.As(err, &wrong) && isElsewhere(wrong):
		r.executor.Suspect(r.delivery.Engine)
		return r.route(wrong)
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
	if settlement.Outcome == contracts.Again {
		return settlement
	}
	if stored, err := r.executor.bus.StoreResult(r.store, result, ""); err == nil {
		r.executor.bus.CopyResult(r.copies, stored)
		r.finish(result.Attempt, result.Status)
	}
	return settlement
}

// elsewhere deals with a delivery whose run somebody else has by now. If that was through the same message, he tells the queue
// what becomes of it: a word of ours would be taken as his.
func (r *run) elsewhere() contracts.Settlement {
	if status := r.record.Status; r.record.Result == nil && status != nil && status.ExecSeq == r.delivery.Seq {
		r.log.Debug().Msg("the run is somebody else's")
		return contracts.Settlement{Outcome: contracts.Left}
	}
	return r.again("the run is somebody else's")
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

// lost deals with a run of which nobody knows whether its tool came to an end: this executor was stopped, or its engine lost
// sight of it. Where it may be started again it is left to anybody.
func (r *run) lost(why *contracts.Error, delay time.Duration) contracts.Settlement {
	if end := r.died(why.Message); end != nil {
		return r.refuse(end)
	}
	draining := delay == 0
	if most := r.contract.Attempts(r.executor.config.MaxAttempts); !draining && r.attempt >= most {
		return r.refuse(contracts.Errorf(contracts.ExecutorLost, "the tool was lost %d times, which is as often as it is tried (%s); at last: %s", r.attempt, bound(r.contract), why.Message))
	}
	if !draining && r.contract.Retry != nil {
		delay = r.backoff(r.attempt)
	}
	if again := r.retry(why, delay); again != nil {
		return *again
	}
	return r.refuse(contracts.Errorf(contracts.ExecutorLost, "%s, and its deadline passes before it could be started again", why.Message))
}

// backoff is the wait before the start that follows attempt.
func (r *run) backoff(attempt int) time.Duration {
	if r.contract.Retry == nil {
		return 0
	}
	return r.contract.Retry.Wait(attempt)
}

// retry gives a run back, to be started again by anybody when the delay is over. That is stored first, so that the wait
// holds whatever dies. nil means that there is no time for it.
func (r *run) retry(why *contracts.Error, delay time.Duration) *contracts.Settlement {
	if deadline := r.request.Deadline; !deadline.IsZero() && time.Now().Add(delay).After(deadline) {
		return nil
	}
	event := r.event(contracts.TypeRetry)
	event.Code, event.Reason, event.DelayMS = why.Code, clip(why.Message), milliseconds(delay)
	switch ours, err := r.advance(event); {
	case err != nil:
		s := r.interrupted(err)
		return &s
	case !ours: // somebody took us for dead and has it now
		return &contracts.Settlement{Outcome: contracts.Left}
	}
	r.executor.bus.CopyEvent(r.copies, event)
	r.log.Warn().Str("code", string(why.Code)).Str("reason", why.Message).Int("attempt", r.attempt).Dur("delay", delay).Msg("run will be started again")
	return &contracts.Settlement{Outcome: contracts.Again, Delay: delay, Reason: why.Message}
}

// retryUnavailable gives a run that no engine could take back, if its contract asks for that; nil where it does not, or not
// again.
func (r *run) retryUnavailable(why *contracts.Error) *contracts.Settlement {
	if r.contract == nil || r.contract.Retry == nil || !r.contract.Again(contracts.Unavailable) || r.tries+1 >= r.contract.Retry.MaxAttempts {
		return nil
	}
	tried, attempt := r.tried, r.attempt
	defer func() { r.tried, r.attempt = tried, attempt }()
	r.tries++
	r.tried = nil // all engines are asked again
	r.attempt--   // it was not claimed
	return r.retry(why, r.backoff(r.tries))
}

// refuse ends a run that is not started, or not again: its result says why. What is wrong with the request also goes to
// the dead letters, before the result, so that nothing vanishes.
func (r *run) refuse(why *contracts.Error) contracts.Settlement {
	result := r.resultOf(why)
	settlement := contracts.Settlement{Outcome: contracts.Done}
	switch result.Status {
	case contracts.Rejected, contracts.Lost, contracts.Unknown, contracts.Unavailable:
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
	if status := r.record.Status; status != nil && !r.owns(status) {
		// A message that does not own the claim writes nothing about the run.
		r.executor.bus.CopyResult(r.copies, result)
		return settlement
	} else if status != nil {
		result.Attempt = status.Attempt
	}
	if r.journal != nil { // claimed since the record was read
		result.Attempt = r.attempt
		r.fill(result)
	}
	if done := r.conclude(result); done.Outcome != contracts.Done {
		return done
	}
	return settlement
}

// owns reports whether what is stored about the run was stored for this message, or handed to it.
func (r *run) owns(status *contracts.Event) bool {
	return status.ExecSeq == r.delivery.Seq || r.inherited || status.Type == contracts.TypeFallback && r.hop > 0 && status.Hop == r.hop
}

// fill puts what the tool printed into its result.
func (r *run) fill(result *contracts.Result) {
	fill(result, &r.output.streams[0].capture, &r.output.streams[1].capture, r.executor.config.ResultInlineBytes)
	result.DroppedBytes = r.output.dropped
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
		Labels: r.request.Labels, Tried: r.tried, Time: now.UTC(),
	}
	if r.contract != nil {
		result.Version = r.contract.Version
	}
	switch {
	case why != nil && r.unknown:
		result.Status = contracts.Unknown
	case why != nil:
		result.Status = why.Status()
	}
	timings := &contracts.Timings{QueuedMS: milliseconds(r.fetched.Sub(r.since())), TotalMS: milliseconds(now.Sub(r.since()))}
	if !r.started.IsZero() {
		timings.PrepareMS = milliseconds(r.started.Sub(r.fetched))
		timings.RunMS = milliseconds(r.ended.Sub(r.started))
		timings.PullMS, timings.CreateMS, timings.StartMS = milliseconds(r.stages.Pull), milliseconds(r.stages.Create), milliseconds(r.stages.Start)
	}
	result.Timings = timings
	return result
}
