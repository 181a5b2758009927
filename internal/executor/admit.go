package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// admit finds out whether the run is to be started here. A settlement means that it is not, and that all about it is
// done. An error means that it cannot be told now.
func (r *run) admit() (*contracts.Settlement, error) {
	// What is stored is asked for while the request is looked at. A first delivery is taken to have no status: its claim
	// finds out.
	type answer struct {
		record contracts.Record
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		record, err := r.executor.bus.Record(r.ctx, r.id, r.delivery.Delivered > 1 || hopOf(r.delivery) > 0)
		answers <- answer{record, err}
	}()
	denied := r.examine()
	a := <-answers
	if a.err != nil {
		return nil, a.err
	}
	r.record = a.record
	r.trust()

	if s, err := r.settled(); s != nil || err != nil {
		return s, err
	}
	if over := r.over(time.Now(), denied); over != nil {
		denied = over
	}
	settlement := contracts.Settlement{}
	switch {
	case denied == nil:
		return r.wait()
	case isElsewhere(denied):
		settlement = r.route(denied)
	default:
		settlement = r.refuse(denied)
	}
	return &settlement, nil
}

// over reports why a run is not to be started whatever the engine: it was cancelled, its time has passed, or it was started
// as often as it may. denied is what is wrong about the request now. Of a run that was started before, that is not the whole
// truth: its contract may have been taken away since.
func (r *run) over(now time.Time, denied *contracts.Error) *contracts.Error {
	status := r.record.Status
	wrong := denied != nil && !isElsewhere(denied)
	begun := status != nil && status.Attempt > 0
	if wrong && !begun {
		return nil
	}
	if r.record.Cancelled {
		return contracts.Errorf(contracts.CancelledCode, "somebody asked for the run to stop before it began")
	}
	if late := r.expired(now); late != nil {
		return late
	}
	if !begun {
		return nil
	}
	if status.Type == contracts.TypeStarted {
		if err := r.died("the executor " + status.Executor + " was lost under it"); err != nil {
			return err
		}
	}
	if wrong {
		return contracts.Errorf(contracts.ExecutorLost, "it was started %d times and came to no end, and cannot be started again: %s", status.Attempt, denied.Message)
	}
	if most := r.contract.Attempts(r.executor.config.MaxAttempts); r.attempt > most {
		return contracts.Errorf(contracts.ExecutorLost, "it was started %d times, which is as often as it is tried (%s), and no start came to an end", r.attempt-1, bound(r.contract))
	}
	return nil
}

// died is nil where a run whose executor died may be started again, else how it ends.
func (r *run) died(how string) *contracts.Error {
	started := r.record.Status
	switch {
	case r.contract != nil && r.contract.Delivery == contracts.AtMostOnce, started != nil && started.Delivery == contracts.AtMostOnce:
		r.unknown = true
		return contracts.Errorf(contracts.ExecutorLost, "%s after the start; whether the tool ran to its end nobody knows, and its contract forbids to start it twice (delivery: at_most_once): look what it has done", how)
	case r.contract != nil && !r.contract.Again(contracts.Lost):
		return contracts.Errorf(contracts.ExecutorLost, "%s, and its contract does not ask for another start (retry.on)", how)
	}
	return nil
}

// bound names what bounds the attempts.
func bound(c *contracts.Contract) string {
	if c.Retry != nil {
		return "retry.max_attempts of its contract"
	}
	return "executor.max_attempts"
}

// settled looks at what is stored about the run: whether it has ended, is somebody else's, or has to wait. Else it sets the
// attempt to be started.
func (r *run) settled() (*contracts.Settlement, error) {
	if result := r.record.Result; result != nil {
		s := r.answered(result)
		return &s, nil
	}
	status := r.record.Status
	if status == nil {
		r.attempt = 1
		return nil, nil
	}
	switch {
	case status.ExecSeq == r.delivery.Seq && status.Type == contracts.TypeFallback && status.Hop > r.hop:
		s := r.passOn(status)
		return &s, nil
	case r.owns(status):
		r.hop, r.tried, r.tries, r.stored = status.Hop, status.Tried, status.Tries, status.Since
		if left := pause(status, time.Now()); left > 0 && !r.record.Cancelled {
			return &contracts.Settlement{Outcome: contracts.Again, Delay: left, Reason: status.Reason}, nil
		}
	default:
		// Another message with this id is being handled, or was passed on.
		if status.Digest != "" && status.Digest != r.digest {
			s := r.conflict()
			return &s, nil
		}
		// While that one is in the queue, its run goes on or will. One that was passed on is in another queue, and leaves that
		// with a result, or another event.
		queued, err := r.executor.bus.Queued(r.ctx, status.ExecSeq)
		if err != nil {
			return nil, err
		}
		if queued || status.Type == contracts.TypeFallback {
			s := r.again("another request with this id is being run")
			return &s, nil
		}
		r.log.Warn().Uint64("other", status.ExecSeq).Msg("the request that claimed this run has left the queue without a result; taking over")
		r.inherited = true
		r.hop, r.tried, r.tries, r.stored = status.Hop, status.Tried, status.Tries, status.Since
	}
	r.attempt = status.Attempt + 1
	return nil, nil
}

// pause is what is left of the wait before another start. Clocks differ: it is never longer than it was to be.
func pause(status *contracts.Event, now time.Time) time.Duration {
	if status.Type != contracts.TypeRetry {
		return 0
	}
	delay := time.Duration(status.DelayMS * float64(time.Millisecond))
	if left := min(status.Time.Add(delay).Sub(now), delay); left > time.Millisecond {
		return left
	}
	return 0
}

// wait takes a place of the contract's limit. While it waits for one it has no slot.
func (r *run) wait() (*contracts.Settlement, error) {
	c := r.contract
	if c.Concurrency == 0 {
		return nil, nil
	}
	key := ""
	if c.ConcurrencyKey != "" {
		text, err := contracts.Expand([]string{c.ConcurrencyKey}, r.args, r.request.Context)
		if err != nil {
			s := r.refuse(contracts.AsError(err))
			return &s, nil
		}
		key = strings.Join(text, "")
	}
	tool := c.Name
	if r.request.Contract != nil {
		tool = "inline:" + tool // it shares nothing with the operator's tool of that name
	}
	limit := r.executor.bus.Limit(tool, key, c.Concurrency)
	free, err := limit.Try(r.ctx)
	if err != nil {
		return nil, err
	}
	if r.free = free; free != nil {
		return nil, nil
	}
	ctx, cancel := r.untilExpired()
	defer cancel()
	err = r.delivery.Yield(ctx, func(ctx context.Context) (err error) {
		r.free, err = limit.Wait(ctx)
		return err
	})
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, contracts.ErrCrowded):
		return &contracts.Settlement{Outcome: contracts.Again, Delay: crowdedDelay(r.delivery), Reason: err.Error()}, nil
	case errors.Is(err, contracts.ErrBusy):
		s := r.again(err.Error())
		return &s, nil
	case errors.Is(err, contracts.ErrStopping):
		return &contracts.Settlement{Outcome: contracts.Again, Reason: err.Error()}, nil
	}
	if late := r.expired(time.Now()); late != nil {
		s := r.refuse(late)
		return &s, nil
	}
	s := r.notStarted(err)
	return &s, nil
}

// untilExpired is the context of a run that waits: it ends when there is no point in it any more.
func (r *run) untilExpired() (context.Context, func()) {
	ctx, cancel := r.ctx, func() {}
	if deadline := r.request.Deadline; !deadline.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, deadline)
	}
	if wait := time.Duration(r.request.QueueTimeout); wait > 0 && r.attempt == 1 {
		before := cancel
		timed, cancelTimed := context.WithDeadline(ctx, r.since().Add(wait).Add(time.Millisecond))
		ctx, cancel = timed, func() { cancelTimed(); before() }
	}
	return ctx, cancel
}

// since is when the request was stored, in its first queue.
func (r *run) since() time.Time {
	if !r.stored.IsZero() {
		return r.stored
	}
	return r.delivery.Stored
}

// giveBack gives the place of a limit back.
func (r *run) giveBack() {
	if r.free != nil {
		r.free()
	}
}

// answered deals with a run that has its result: the same request is answered with it, another one is told so.
func (r *run) answered(result *contracts.Result) contracts.Settlement {
	if result.Digest != "" && result.Digest != r.digest {
		return r.conflict()
	}
	r.log.Debug().Msg("answered by the stored result")
	if status := r.record.Status; status != nil && status.ExecSeq == r.delivery.Seq && status.Type != contracts.TypeFinished {
		r.finish(status.Attempt, result.Status) // whoever stored the result did not come to it
	}
	r.executor.bus.CopyResult(r.copies, result)
	return contracts.Settlement{Outcome: contracts.Done}
}

// beside deals with a request while another one with its id is looked at or run here, which asks for something else. Whose the id is, is
// what is stored: the other may be the one that is about to be refused.
func (r *run) beside() contracts.Settlement {
	record, err := r.executor.bus.Record(r.ctx, r.id, true)
	if err != nil {
		return r.interrupted(err)
	}
	taken := func(digest string) bool { return digest != "" && digest != r.digest }
	if record.Result != nil && taken(record.Result.Digest) || record.Status != nil && taken(record.Status.Digest) {
		return r.conflict()
	}
	return r.again("another request with this id is being looked at here")
}

// conflict refuses a request whose id belongs to another one. Only the asker is told.
func (r *run) conflict() contracts.Settlement {
	err := contracts.Errorf(contracts.IDConflict, "the id %s belongs to another request, which asked for something else; choose a new one", r.id)
	r.executor.bus.CopyResult(r.copies, r.resultOf(err))
	return r.bury(err)
}

// expired reports whether the time for the start has passed.
func (r *run) expired(now time.Time) *contracts.Error {
	request := r.request
	begun := r.record.Status != nil && r.record.Status.Attempt > 0 // an attempt was, and this would be another
	if !request.Deadline.IsZero() && now.After(request.Deadline) {
		if begun {
			return contracts.Errorf(contracts.Timeout, "the deadline %s passed before it could be started again", request.Deadline.Format(time.RFC3339))
		}
		return contracts.Errorf(contracts.ExpiredCode, "the deadline %s passed before it could be started", request.Deadline.Format(time.RFC3339))
	}
	if wait := time.Duration(request.QueueTimeout); wait > 0 && !begun && now.Sub(r.since()) > wait {
		return contracts.Errorf(contracts.ExpiredCode, "it waited in the queue for longer than its queue_timeout of %s", wait)
	}
	return nil
}

// examine looks at what does not change with the state of the run: the contract, policy, and arguments.
func (r *run) examine() *contracts.Error {
	contract, spec, args, err := r.executor.examine(r.request, r.delivery.Engine)
	r.contract, r.spec, r.args = contract, spec, args
	if err == nil {
		err = r.executor.Healthy(r.delivery.Engine)
	}
	if err != nil {
		denied := contracts.AsError(err)
		if _, ours := r.executor.engines[r.delivery.Engine]; !ours && (denied.Code == contracts.UnknownTool || denied.Code == contracts.PolicyDenied) {
			// Those who serve the engine may know the tool, or allow it.
			denied = contracts.Errorf(contracts.EngineUnavailable, "no executor serves the engine %s, and this one cannot pass the request on: %s", r.delivery.Engine, denied.Message)
		}
		return denied
	}
	r.timeout = r.executor.timeoutOf(r.request, spec.Common())
	return nil
}

// examine finds the contract of a request, completes its args, and looks whether an engine can take it here. With an error the
// contract is there all the same, if it is known.
func (e *Executor) examine(request *contracts.Request, engine string) (*contracts.Contract, contracts.Spec, map[string]any, error) {
	contract := request.Contract
	if contract == nil {
		var err error
		if contract, err = e.registry.Find(request.Tool, request.Version); err != nil {
			return nil, nil, nil, err
		}
	} else if !e.config.Policy.InlineContracts {
		return contract, nil, nil, contracts.Errorf(contracts.PolicyDenied,
			"a contract that comes with its request is not allowed on this executor; name a tool that it knows, or have its operator allow it by policy.inline_contracts")
	}
	args, err := contract.Parameters.Complete(request.Args)
	if err != nil {
		return contract, nil, nil, err
	}
	spec := contract.SpecFor(engine)
	if spec == nil {
		return contract, nil, nil, contracts.Errorf(contracts.Unsupported, "the tool %s runs on the engine %s and has no engine_spec for %s", contract.Name, contract.Engine, engine)
	}
	if err := e.config.Policy.CheckContract(contract, spec, request.Contract != nil); err != nil {
		return contract, nil, nil, err
	}
	one, served := e.engines[engine]
	if !served {
		return contract, nil, nil, contracts.Errorf(contracts.EngineUnavailable, "this executor does not serve the engine %s", engine)
	}
	return contract, spec, args, one.Check(contract)
}

// timeoutOf is the shortest of the timeouts that hold for a run.
func (e *Executor) timeoutOf(request *contracts.Request, spec *contracts.CommonSpec) time.Duration {
	timeout := time.Duration(spec.Timeout)
	if timeout == 0 {
		timeout = time.Duration(contracts.DefaultTimeout)
	}
	if asked := time.Duration(request.Timeout); asked > 0 {
		timeout = min(timeout, asked)
	}
	if most := e.config.MaxExecutionTime; most > 0 {
		timeout = min(timeout, most)
	}
	return timeout
}

// Admit checks a request for the front door, before it is stored, and says which engine's queue is its: that of the engine
// which the asker named, or of the contract's where that is "". Where that engine is not served, or cannot take the contract,
// but another can, the request is stored all the same, and passed on by whoever takes it. An error is a *contracts.Error.
func (e *Executor) Admit(ctx context.Context, request *contracts.Request, named string) (string, error) {
	if named != "" && !slices.Contains(contracts.Engines, named) {
		near := ""
		if n := contracts.Closest(named, contracts.Engines); n != "" {
			near = fmt.Sprintf("; did you mean %q?", n)
		}
		return "", contracts.Errorf(contracts.EngineUnavailable, "there is no engine %q; there are %s%s", named, strings.Join(contracts.Engines, ", "), near)
	}
	contract := request.Contract
	if contract == nil {
		var err error
		if contract, err = e.registry.Find(request.Tool, request.Version); err != nil {
			return "", err
		}
	}
	engine := cmp.Or(named, contract.Engine)
	serves, known := e.serving(ctx)
	err := e.admits(request, contract, engine, serves, known)
	if why := (*contracts.Error)(nil); errors.As(err, &why) && isElsewhere(why) {
		for _, other := range e.candidates(contract, request) {
			if other != engine && e.admits(request, contract, other, serves, known) == nil {
				return engine, nil
			}
		}
	}
	return engine, err
}

// Unserved reports whether nobody serves an engine, as far as that can be told.
func (e *Executor) Unserved(engine string) bool {
	serves, known := e.serving(context.Background())
	return known && !serves(engine)
}

// admits reports whether a request could run on an engine, as far as this instance can tell.
func (e *Executor) admits(request *contracts.Request, contract *contracts.Contract, engine string, serves func(engine string) bool, known bool) error {
	if _, here := e.engines[engine]; here {
		if _, _, _, err := e.examine(request, engine); err != nil {
			return err
		}
	} else if _, err := contract.Parameters.Complete(request.Args); err != nil {
		return err // another executor will look at the rest
	}
	if known && !serves(engine) {
		why := ""
		if _, here := e.engines[engine]; here {
			if err := e.Healthy(engine); err != nil {
				why = "; on this one: " + contracts.AsError(err).Message
			}
		}
		return contracts.Errorf(contracts.EngineUnavailable, "no executor serves the engine %s%s; %s", engine, why, served(serves))
	}
	return nil
}

// Tools lists the contracts that requests may name.
func (e *Executor) Tools() []*contracts.Contract { return e.registry.List() }

// Engines lists the names of the engines.
func (e *Executor) Engines() []string {
	names := make([]string, 0, len(e.engines))
	for name := range e.engines {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// timeoutError says which bound a run went over.
func (r *run) timeoutError() *contracts.Error {
	what := "timeout of the contract"
	switch r.timeout {
	case time.Duration(r.request.Timeout):
		what = "timeout of the request"
	case r.executor.config.MaxExecutionTime:
		what = "execution.max_execution_time of the executor"
	case time.Duration(contracts.DefaultTimeout):
		if r.spec.Common().Timeout == 0 {
			what = "default timeout"
		}
	}
	return contracts.Errorf(contracts.Timeout, "the tool ran for longer than %s, the %s, and was stopped", fmt.Sprint(r.timeout), what)
}
