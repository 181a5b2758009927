package executor

import (
	"errors"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestRetries(t *testing.T) {
	r := newRig(t)
	for name, test := range map[string]struct {
		request string
		status  contracts.Status
		attempt int
		events  string
	}{
		"fails always":    {`{"id":"f","tool":"again","args":{"a":"exit:7"}}`, contracts.Failed, 3, "started retry started retry started finished"},
		"never ends":      {`{"id":"t","tool":"again","args":{"a":"block"}}`, contracts.TimedOut, 3, "started retry started retry started finished"},
		"is lost":         {`{"id":"l","tool":"again","args":{"a":"fail-after:gone"}}`, contracts.Lost, 3, "started retry started retry started finished"},
		"succeeds":        {`{"id":"s","tool":"again","args":{"a":"out:x"}}`, contracts.Succeeded, 1, "started finished"},
		"no engine":       {`{"id":"u","tool":"again","args":{"a":"fail-before:engine_unavailable:no"}}`, contracts.Unavailable, 0, "retry retry finished"},
		"has no retry":    {`{"id":"n","tool":"script","args":{"a":"exit:7"}}`, contracts.Failed, 1, "started finished"},
		"no time is left": {`{"id":"d","tool":"slowly","args":{"a":"exit:7"},"deadline":"` + time.Now().Add(20*time.Second).Format(time.RFC3339) + `"}`, contracts.Failed, 1, "started finished"},
	} {
		t.Run(name, func(t *testing.T) {
			result := r.ask(test.request).result()
			if result.Status != test.status || result.Attempt != test.attempt {
				t.Errorf("%+v %v", result, result.Error)
			}
			r.expectStatus(result.ID, test.events)
		})
	}
	r.queueEmpty()
}

// The wait before another start outlives the executor that began it, and is not cut short by a redelivery.
func TestBackoffOutlivesTheExecutor(t *testing.T) {
	r := newRig(t)
	before := time.Now()
	a := r.ask(`{"id":"w","tool":"again","args":{"a":"exit:1"}}`)
	r.engine.AwaitStarts(t, 1)
	r.stop(Draining)
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	result := a.result()
	if result.Status != contracts.Failed || result.Attempt != 3 || result.Executor != "heir" {
		t.Errorf("%+v", result)
	}
	if n := len(heir.engine.Starts()) + len(r.engine.Starts()); n != 3 {
		t.Errorf("%d starts", n)
	}
	if took := time.Since(before); took < 150*time.Millisecond {
		t.Errorf("three attempts within %s", took)
	}
}

// Nor by the death of an executor that had stored when the next start is to be, and had not told the queue yet.
func TestBackoffIsReadAgain(t *testing.T) {
	r := newRig(t)
	r.stop(nil)
	text := `{"id":"later","tool":"again","args":{"a":"out:x"}}`
	a := r.ask(text)
	request, err := contracts.DecodeRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	const delay = 3500 * time.Millisecond // longer than the lease of the dead one
	event := contracts.Event{Type: contracts.TypeStarted, ID: "later", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 1, Digest: request.Digest(), Engine: "local"}
	seq, err := r.bus.Advance(t.Context(), event, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	event.Type, event.Code, event.Reason, event.DelayMS = contracts.TypeRetry, contracts.ExitNonzero, "x", milliseconds(delay)
	if seq, err = r.bus.Advance(t.Context(), event, seq, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	// The dead executor had taken it.
	if _, err := r.bus.Conn().Request("$JS.API.CONSUMER.MSG.NEXT.TOOLS_EXEC.local", []byte(`{"batch":1,"no_wait":true}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	result := a.result()
	if result.Status != contracts.Succeeded || result.Attempt != 2 {
		t.Errorf("%+v", result)
	}
	if began := result.Time.Add(-time.Duration(result.Timings.RunMS * float64(time.Millisecond))); began.Before(event.Time.Add(delay)) {
		t.Errorf("started again %s before its time", event.Time.Add(delay).Sub(began))
	}
}

// Deaths of executors and retries count together, and each claim has a number of its own.
func TestAttemptsAcrossDeathsAndRetries(t *testing.T) {
	r := newRig(t)
	r.stop(nil)
	a := r.ask(`{"id":"mix","tool":"again","args":{"a":"exit:1"}}`)
	request, err := contracts.DecodeRequest([]byte(`{"id":"mix","tool":"again","args":{"a":"exit:1"}}`))
	if err != nil {
		t.Fatal(err)
	}
	dead := contracts.Event{Type: contracts.TypeStarted, ID: "mix", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 1, Digest: request.Digest(), Engine: "local"}
	if seq, err := r.bus.Advance(t.Context(), dead, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	result := a.result()
	if result.Status != contracts.Failed || result.Attempt != 3 {
		t.Errorf("%+v", result)
	}
	if starts := heir.engine.Starts(); len(starts) != 2 || starts[0].Attempt != 2 || starts[1].Attempt != 3 {
		t.Errorf("%+v", starts)
	}
}

// A tool that must not run twice is not started again, and its status says that nobody knows.
func TestAtMostOnce(t *testing.T) {
	request := `{"id":"once","tool":"once","args":{"a":"out:x"}}`
	digest := func() string {
		r, err := contracts.DecodeRequest([]byte(request))
		if err != nil {
			t.Fatal(err)
		}
		return r.Digest()
	}()
	r := newRig(t)
	r.stop(nil)
	a := r.ask(request)
	dead := contracts.Event{Type: contracts.TypeStarted, ID: "once", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 1, Digest: digest, Engine: "local"}
	if seq, err := r.bus.Advance(t.Context(), dead, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	if result := a.result(); result.Status != contracts.Unknown || result.Attempt != 1 || result.Error.Code != contracts.ExecutorLost {
		t.Errorf("%+v %v", result, result.Error)
	}
	if n := len(heir.engine.Starts()); n != 0 {
		t.Errorf("%d starts", n)
	}
	if letters := heir.deadLetters(); len(letters) != 1 {
		t.Errorf("%+v", letters)
	}
	// The same where the engine lost it, and where the executor is stopped.
	if result := heir.ask(`{"tool":"once","args":{"a":"fail-after:gone"}}`).result(); result.Status != contracts.Unknown {
		t.Errorf("%+v", result)
	}
	b := heir.ask(`{"tool":"once","args":{"a":"block"}}`)
	heir.engine.AwaitStarts(t, 2)
	heir.stop(Draining)
	if result := b.result(); result.Status != contracts.Unknown {
		t.Errorf("%+v", result)
	}
	heir.queueEmpty()
}

// Nor does it matter that its contract has gone since: it was started, and that is what counts.
func TestAtMostOnceWithoutItsContract(t *testing.T) {
	r := newRig(t)
	r.stop(nil)
	text := `{"id":"gone","tool":"removed"}`
	a := r.ask(text)
	request, err := contracts.DecodeRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	dead := contracts.Event{Type: contracts.TypeStarted, ID: "gone", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 1, Digest: request.Digest(), Engine: "local", Delivery: contracts.AtMostOnce}
	if seq, err := r.bus.Advance(t.Context(), dead, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	if _, err := r.bus.Conn().Request("$JS.API.CONSUMER.MSG.NEXT.TOOLS_EXEC.local", []byte(`{"batch":1,"no_wait":true}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	if result := a.result(); result.Status != contracts.Unknown || result.Attempt != 1 {
		t.Errorf("%+v %v", result, result.Error)
	}
}

// A holder that was taken for dead says nothing to the queue: what he says would be taken as said by the new one.
func TestStaleHolder(t *testing.T) {
	r := newRig(t)
	a := r.ask(script("stale", "await:claimed", "out:x"))
	r.awaitQueued(1)
	rec, err := r.bus.Record(t.Context(), "stale", true)
	if err != nil || rec.Status != nil {
		t.Fatal(rec, err)
	}
	// Somebody else claims it meanwhile, through the same message.
	request, err := contracts.DecodeRequest([]byte(script("stale", "await:claimed", "out:x")))
	if err != nil {
		t.Fatal(err)
	}
	other := contracts.Event{Type: contracts.TypeStarted, ID: "stale", Attempt: 1, Executor: "other", Time: time.Now(), ExecSeq: 1, Digest: request.Digest(), Engine: "local"}
	if seq, err := r.bus.Advance(t.Context(), other, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	r.engine.Release("claimed")
	// Nothing is said, so the message comes again when the lease is over, and not before: attempt 2, after an ack-wait.
	before := time.Now()
	if result := a.result(); result.Attempt != 2 || result.Status != contracts.Succeeded {
		t.Errorf("%+v", result)
	}
	if took := time.Since(before); took < time.Second {
		t.Errorf("started again after %s, though the other may still run it", took)
	}
}

// A retry of a holder that was taken for dead is not stored: it would hide the claim of the new one, whose number would be
// given twice.
func TestStaleRetry(t *testing.T) {
	r := newRig(t)
	text := `{"id":"late","contract":{"name":"c","engine":"local","engine_spec":{"command":["tool","out:x","await:go","exit:1"]},"retry":{"max_attempts":3,"backoff":0.1}}}`
	a := r.ask(text)
	r.engine.AwaitStarts(t, 1)
	request, err := contracts.DecodeRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.bus.Record(t.Context(), "late", true)
	if err != nil {
		t.Fatal(err)
	}
	other := contracts.Event{Type: contracts.TypeStarted, ID: "late", Attempt: 2, Executor: "other", Time: time.Now(), ExecSeq: 1, Digest: request.Digest(), Engine: "local"}
	if seq, err := r.bus.Advance(t.Context(), other, rec.StatusSeq, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	r.engine.Release("go")
	if result := a.result(); result.Status != contracts.Failed || result.Attempt != 3 {
		t.Errorf("%+v", result)
	}
	if starts := r.engine.Starts(); len(starts) != 2 || starts[1].Attempt != 3 {
		t.Errorf("%+v", starts)
	}
	r.expectStatus("late", "started started started finished")
}

// Somebody who cancels a run that waits for another start hears at once that it ended.
func TestCancelInABackoff(t *testing.T) {
	r := newRig(t)
	a := r.ask(`{"id":"wait","tool":"slowly","args":{"a":"exit:1"}}`)
	r.expectStatus("wait", "started retry")
	before := time.Now()
	if err := r.bus.Cancel(t.Context(), "wait"); err != nil {
		t.Fatal(err)
	}
	if result := a.result(); result.Status != contracts.Cancelled || result.Attempt != 1 {
		t.Errorf("%+v", result)
	}
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("after %s", took)
	}
	r.expectStatus("wait", "started retry finished")
}

// A cancel in the middle of what comes before the start, as a pull.
func TestCancelDuringThePreparation(t *testing.T) {
	r := newRig(t)
	a := r.ask(script("prep", "progress:pull:layer 1", "await:never", "out:x"))
	r.expectStatus("prep", "progress")
	if err := r.bus.Cancel(t.Context(), "prep"); err != nil {
		t.Fatal(err)
	}
	if result := a.result(); result.Status != contracts.Cancelled || result.Attempt != 0 {
		t.Errorf("%+v", result)
	}
	if n := len(r.engine.Starts()); n != 0 {
		t.Errorf("%d starts", n)
	}
}

// A cancel that comes when the run has just been passed on is seen by whoever takes it there.
func TestCancelInAFallback(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	var busy []*answer
	for range 4 { // all slots
		busy = append(busy, fleet[1].ask(script("", "out:x", "await:go")))
	}
	fleet[1].engine.AwaitStarts(t, 4)
	a := fleet[0].askOn("tools.exec.docker", `{"id":"mid","tool":"moves","args":{"a":"fail-before:engine_unavailable:no"}}`)
	fleet[0].expectStatus("mid", "fallback")
	if err := fleet[0].bus.Cancel(t.Context(), "mid"); err != nil {
		t.Fatal(err)
	}
	fleet[1].engine.Release("go")
	if result := a.result(); result.Status != contracts.Cancelled || triedOf(result) != "docker:engine_unavailable" {
		t.Errorf("%+v", result)
	}
	for _, a := range busy {
		a.result()
	}
	fleet[0].expectStatus("mid", "fallback finished")
	fleet[0].queueEmpty()
}

// An engine that takes no work is not asked for any, and is again when it recovers.
func TestHealth(t *testing.T) {
	healthFirst, healthEvery = 20*time.Millisecond, 50*time.Millisecond
	t.Cleanup(func() { healthFirst, healthEvery = 500*time.Millisecond, 5*time.Second })
	fleet := fleetOf(t, []string{"docker"}, []string{"docker", "local"})
	ill := fleet[0]
	ill.engine.SetReady(errors.New("the daemon has gone"))
	ill.await("it is noticed", func() bool { return ill.core.Healthy("docker") != nil })
	for range 10 {
		if result := ill.askOn("tools.exec.docker", `{"tool":"container"}`).result(); result.Executor != fleet[1].core.config.Name {
			t.Errorf("%+v", result)
		}
	}
	ill.engine.SetReady(nil)
	ill.await("it recovers", func() bool { return ill.core.Healthy("docker") == nil })
	for len(ill.engine.Starts()) == 0 {
		if result := ill.askOn("tools.exec.docker", `{"tool":"container"}`).result(); result.Status != contracts.Succeeded {
			t.Fatalf("%+v", result)
		}
	}
}

// The runs of a tool that bounds them are never more than that, and those that wait take no slot from others.
func TestConcurrency(t *testing.T) {
	first := newRig(t)
	second := joinRig(t, first.url, func(c *Config) { c.Name = "second" })
	var all []*answer
	for range 20 { // more than there are slots
		all = append(all, first.ask(`{"tool":"few","args":{"a":"sleep:20ms"}}`))
	}
	if result := first.ask(script("", "out:x")).result(); result.Status != contracts.Succeeded || result.Timings.QueuedMS > 1000 {
		t.Errorf("another tool: %+v %+v", result, result.Timings)
	}
	for _, a := range all {
		if result := a.result(); result.Status != contracts.Succeeded {
			t.Errorf("%+v %v", result, result.Error)
		}
	}
	_, one := first.engine.Running()
	_, two := second.engine.Running()
	if one > 2 || two > 2 { // one of few, and the other tool
		t.Errorf("%d and %d ran at once", one, two)
	}
	first.queueEmpty()
}

// Waiting for a place ends with the run's time, with a cancel, and with the executor.
func TestWaitingForAPlaceEnds(t *testing.T) {
	r := newRig(t)
	holder := r.ask(`{"tool":"few","args":{"a":"out:x","b":"await:go"}}`)
	r.engine.AwaitStarts(t, 1)
	late := r.ask(`{"tool":"few","args":{"a":"out:x"},"queue_timeout":0.3}`)
	gone := r.ask(`{"id":"gone","tool":"few","args":{"a":"out:x"}}`)
	other := r.ask(`{"tool":"few","args":{"a":"out:x","k":"other"}}`)
	if result := other.result(); result.Status != contracts.Succeeded {
		t.Errorf("another key: %+v", result)
	}
	if result := late.result(); result.Status != contracts.Expired {
		t.Errorf("%+v", result)
	}
	if err := r.bus.Cancel(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if result := gone.result(); result.Status != contracts.Cancelled {
		t.Errorf("%+v", result)
	}
	left := r.ask(`{"tool":"few","args":{"a":"out:x"}}`)
	r.awaitQueued(2)
	r.engine.Release("go")
	r.stop(nil)
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	for _, a := range []*answer{holder, left} {
		if result := a.result(); result.Status != contracts.Succeeded {
			t.Errorf("%+v %v", result, result.Error)
		}
	}
	heir.queueEmpty()
}
