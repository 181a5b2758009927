package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// elsewhere are the codes with which an engine says that it cannot take a run, though another might.
var elsewhere = []contracts.Code{contracts.EngineUnavailable, contracts.ImageUnavailable, contracts.Unsupported, contracts.QueueFull}

func isElsewhere(err *contracts.Error) bool {
	return err != nil && slices.Contains(elsewhere, err.Code)
}

// maxReason is how much of a reason travels with a request, in bytes.
const maxReason = 256

// patience is how often a request may have been taken and still wait for another instance that serves the engine, before it
// goes to another engine.
const patience = 20

// Candidates are the engines on which a contract can run, in the order in which they are tried: the contract's own, those
// that the request names, the contract's fallback list, the default engine, and between docker and dagger the other one.
// Isolation does not get weaker unseen: a contract has a spec for the local engine only where its author wrote one, be it as
// its engine or in its list, and without a spec an engine is no candidate.
func (e *Executor) candidates(contract *contracts.Contract, request *contracts.Request) []string {
	list := append([]string{contract.Engine}, request.Fallback...)
	for _, f := range contract.Fallback {
		list = append(list, f.Engine)
	}
	list = append(list, e.config.DefaultEngine, contracts.EngineDocker, contracts.EngineDagger)
	var names []string
	for _, name := range list {
		if !slices.Contains(names, name) && contract.SpecFor(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// trust reads how far a request has come from what is stored. The headers only say where to look: they count if the last
// event says the same, for anybody can write headers.
func (r *run) trust() {
	hop := hopOf(r.delivery)
	status := r.record.Status
	if hop == 0 || status == nil || status.Digest != r.digest {
		return
	}
	switch {
	case status.Hop > hop: // it has gone further
		r.hop = hop
	case status.Hop == hop && (status.To == r.delivery.Engine || status.Engine == r.delivery.Engine):
		r.hop, r.tried = hop, status.Tried
	}
}

// hopOf is how often a request says that it was republished.
func hopOf(d contracts.Delivery) int {
	hop, err := strconv.Atoi(d.Header.Get(contracts.HeaderHop))
	if err != nil || hop < 1 {
		return 0
	}
	return hop
}

// route deals with a run that this engine cannot take: it is left to another instance that serves the engine, passed on to the
// next engine that can, or ends.
func (r *run) route(why *contracts.Error) contracts.Settlement {
	e := r.executor
	serving, _ := e.bus.Serving(r.store)
	if why.Code == contracts.EngineUnavailable && r.delivery.Delivered <= patience && slices.ContainsFunc(serving[r.delivery.Engine], func(name string) bool { return name != e.config.Name }) {
		return r.again("another executor serves the engine: " + why.Message)
	}
	return r.forward(why, append(slices.Clone(r.tried), contracts.Tried{Engine: r.delivery.Engine, Code: why.Code, Reason: clip(why.Message)}))
}

// forward passes a run on to the first engine that was not tried and is served. tried may be grown.
func (r *run) forward(why *contracts.Error, tried []contracts.Tried) contracts.Settlement {
	e := r.executor
	serving, known := e.serving(r.store)
	if r.contract != nil {
		for _, to := range e.candidates(r.contract, r.request) {
			if slices.ContainsFunc(tried, func(t contracts.Tried) bool { return t.Engine == to }) {
				continue
			}
			if known && !serving(to) {
				tried = append(tried, contracts.Tried{Engine: to, Code: contracts.EngineUnavailable, Reason: "no executor serves it"})
				continue
			}
			event := r.event(contracts.TypeFallback)
			event.Attempt-- // it is not claimed
			event.Engine, event.From, event.To, event.Hop, event.Tried = "", r.delivery.Engine, to, r.hop+1, tried
			event.Code, event.Reason = why.Code, clip(why.Message)
			switch ours, err := r.advance(event); {
			case err != nil:
				return r.interrupted(err)
			case !ours:
				return r.again("somebody else is about the run")
			}
			r.hop = event.Hop
			refused := r.pass(event)
			if refused == nil {
				return contracts.Settlement{Outcome: contracts.Done}
			}
			var full *contracts.Error
			if !errors.As(refused, &full) {
				return r.interrupted(refused)
			}
			tried = append(tried, contracts.Tried{Engine: to, Code: full.Code, Reason: clip(full.Message)})
		}
	}
	r.tried = tried
	if again := r.retryUnavailable(why); again != nil {
		return *again
	}
	return r.refuse(r.noEngine(why))
}

// pass republishes the request as its fallback event says. An error that is a *contracts.Error means that the queue there
// does not take it.
func (r *run) pass(event contracts.Event) error {
	r.executor.leave(r) // what is stored next may come back here before this one is done
	r.executor.bus.CopyEvent(r.copies, event)
	err := r.executor.bus.Republish(r.store, r.delivery, r.id, event)
	if errors.Is(err, contracts.ErrPermanent) {
		return contracts.Errorf(contracts.EngineUnavailable, "%s", err)
	}
	if err != nil {
		return err
	}
	r.log.Info().Str("from", event.From).Str("to", event.To).Str("code", string(event.Code)).Str("reason", event.Reason).Int("hop", event.Hop).Msg("run passed on to another engine")
	return nil
}

// passOn deals with a request that was passed on already, by somebody who could not say so to the queue. What he may not have
// come to is done again.
func (r *run) passOn(event *contracts.Event) contracts.Settlement {
	r.hop, r.tried = event.Hop, event.Tried
	var full *contracts.Error
	switch err := r.pass(*event); {
	case errors.As(err, &full): // as in forward: that engine counts as tried
		return r.forward(full, append(slices.Clone(event.Tried), contracts.Tried{Engine: event.To, Code: full.Code, Reason: clip(full.Message)}))
	case err != nil:
		return r.interrupted(err)
	}
	return contracts.Settlement{Outcome: contracts.Done}
}

// advance stores a status event; false where somebody else has written to the status since it was read.
func (r *run) advance(event contracts.Event) (bool, error) {
	seq, err := r.executor.bus.Advance(r.store, event, r.record.StatusSeq, r.copies.Trace)
	if err != nil || seq == 0 {
		return false, err
	}
	r.record.Status, r.record.StatusSeq = &event, seq
	return true, nil
}

// serving says whether somebody serves an engine; known is false where that cannot be told. Of our own engines we know more
// than what we have told.
func (e *Executor) serving(ctx context.Context) (serves func(engine string) bool, known bool) {
	ctx, cancel := context.WithTimeout(ctx, servingWait)
	defer cancel()
	all, known := e.bus.Serving(ctx)
	return func(engine string) bool {
		if e.Healthy(engine) == nil {
			return true
		}
		return slices.ContainsFunc(all[engine], func(name string) bool { return name != e.config.Name })
	}, known
}

// servingWait is how long we wait to hear who is there.
const servingWait = 2 * time.Second

// noEngine says that no engine could take a run: all that were tried, and what there is.
func (r *run) noEngine(why *contracts.Error) *contracts.Error {
	message := why.Message
	if len(r.tried) > 1 {
		var each []string
		for _, t := range r.tried {
			each = append(each, fmt.Sprintf("%s: %s", t.Engine, t.Reason))
		}
		message = "no engine could take it: " + strings.Join(each, "; ")
	}
	if serves, known := r.executor.serving(r.store); known {
		message += "; " + served(serves)
	}
	return contracts.Errorf(why.Code, "%s", message)
}

// served names the engines that there are.
func served(serves func(engine string) bool) string {
	names := slices.DeleteFunc(slices.Sorted(slices.Values(contracts.Engines)), func(engine string) bool { return !serves(engine) })
	if len(names) == 0 {
		return "no engine is served now"
	}
	return "served are " + strings.Join(names, ", ")
}

// clip shortens a reason.
func clip(text string) string {
	if len(text) <= maxReason {
		return text
	}
	end := maxReason
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
