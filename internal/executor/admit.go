package executor

import (
	"cmp"
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
		record, err := r.executor.bus.Record(r.ctx, r.id, r.delivery.Delivered > 1)
		answers <- answer{record, err}
	}()
	denied := r.examine()
	a := <-answers
	if a.err != nil {
		return nil, a.err
	}
	r.record = a.record

	if s, err := r.settled(); s != nil || err != nil {
		return s, err
	}
	if denied == nil && r.record.Cancelled {
		denied = contracts.Errorf(contracts.CancelledCode, "somebody asked for the run to stop before it began")
	}
	if denied == nil {
		denied = r.expired(time.Now())
	}
	if denied != nil {
		s := r.refuse(denied)
		return &s, nil
	}
	if r.attempt > r.executor.config.MaxAttempts {
		s := r.refuse(contracts.Errorf(contracts.ExecutorLost, "executors were lost under it %d times, which is as often as it is tried (executor.max_attempts)", r.attempt-1))
		return &s, nil
	}
	return nil, nil
}

// settled looks at what is stored about the run: whether it has ended, or is somebody else's. Else it sets the attempt
// to be started.
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
	if status.ExecSeq != r.delivery.Seq && status.Attempt > 0 {
		// Another message with this id has claimed it.
		if status.Digest != "" && status.Digest != r.digest {
			s := r.conflict()
			return &s, nil
		}
		// While that one is in the queue, its run goes on or will.
		queued, err := r.executor.bus.Queued(r.ctx, status.ExecSeq)
		if err != nil {
			return nil, err
		}
		if queued {
			s := r.again("another request with this id is being run")
			return &s, nil
		}
		r.log.Warn().Uint64("other", status.ExecSeq).Msg("the request that claimed this run has left the queue without a result; taking over")
	}
	r.attempt = status.Attempt + 1
	return nil, nil
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
	if wait := time.Duration(request.QueueTimeout); wait > 0 && !begun && now.Sub(r.delivery.Stored) > wait {
		return contracts.Errorf(contracts.ExpiredCode, "it waited in the queue for longer than its queue_timeout of %s", wait)
	}
	return nil
}

// examine looks at what does not change with the state of the run: the contract, policy, and arguments.
func (r *run) examine() *contracts.Error {
	contract, spec, args, err := r.executor.examine(r.request, r.delivery.Engine)
	if err != nil {
		return contracts.AsError(err)
	}
	r.contract, r.spec, r.args = contract, spec, args
	r.timeout = r.executor.timeoutOf(r.request, spec.Common())
	return nil
}

func (e *Executor) examine(request *contracts.Request, engine string) (*contracts.Contract, contracts.Spec, map[string]any, error) {
	contract := request.Contract
	if contract == nil {
		var err error
		if contract, err = e.registry.Find(request.Tool, request.Version); err != nil {
			return nil, nil, nil, err
		}
	} else if !e.config.Policy.InlineContracts {
		return nil, nil, nil, contracts.Errorf(contracts.PolicyDenied,
			"a contract that comes with its request is not allowed on this executor; name a tool that it knows, or have its operator allow it by policy.inline_contracts")
	}
	args, err := contract.Parameters.Complete(request.Args)
	if err != nil {
		return nil, nil, nil, err
	}
	spec := contract.SpecFor(engine)
	if spec == nil {
		return nil, nil, nil, contracts.Errorf(contracts.Unsupported, "the tool %s runs on the engine %s and has no engine_spec for %s", contract.Name, contract.Engine, engine)
	}
	if err := e.config.Policy.CheckContract(contract, spec, request.Contract != nil); err != nil {
		return nil, nil, nil, err
	}
	one, served := e.engines[engine]
	if !served {
		return nil, nil, nil, contracts.Errorf(contracts.EngineUnavailable, "this executor does not serve the engine %s", engine)
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
// which the asker named, or of the contract's where that is "". An error is a *contracts.Error.
func (e *Executor) Admit(request *contracts.Request, named string) (string, error) {
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
	if _, here := e.engines[engine]; here {
		_, _, _, err := e.examine(request, engine)
		return engine, err
	}
	// Another executor will look at the rest.
	_, err := contract.Parameters.Complete(request.Args)
	return engine, err
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
