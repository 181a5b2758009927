package executor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestSuccess(t *testing.T) {
	r := newRig(t)
	copies, result := r.ask(`{"id":"ok-1","tool":"script","args":{"a":"out:hello ","b":"err:oops","c":"out:world"},"labels":{"agent":"planner"}}`,
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").read()
	if !strings.HasPrefix(copies, "started output") || !strings.HasSuffix(copies, " result") || strings.Contains(copies, "finished") {
		t.Errorf("copies: %s", copies)
	}
	if result.Status != contracts.Succeeded || *result.ExitCode != 0 || result.Stdout != "hello world" || result.Stderr != "oops" ||
		result.StdoutBytes != 11 || result.StderrBytes != 4 || result.Truncated || result.Error != nil {
		t.Errorf("%+v", result)
	}
	if result.Tool != "script" || result.Version != "1.0.0" || result.Engine != "local" || result.Executor != "rig" || result.Attempt != 1 ||
		result.Labels["agent"] != "planner" || result.ID != "ok-1" || result.Type != "result" || !strings.HasPrefix(result.Digest, "sha256:") {
		t.Errorf("%+v", result)
	}
	if result.Timings == nil || result.Timings.TotalMS <= 0 || result.Timings.TotalMS < result.Timings.RunMS || result.Isolation == nil || result.Time.IsZero() {
		t.Errorf("%+v %+v", result.Timings, result.Isolation)
	}
	r.expectStatus("ok-1", "started finished")
	r.queueEmpty()
	for _, m := range append(r.stored("TOOLS_REPLY", "tools.reply.ok-1.*"), r.stored("TOOLS_RESULT", "tools.reply.ok-1.result")...) {
		if m.Header.Get("traceparent") != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" || m.Header.Get("Tools-Id") != "ok-1" || m.Header.Get("Tools-Attempt") != "1" || m.Header.Get("Tools-Executor") != "rig" {
			t.Errorf("headers %v", m.Header)
		}
	}
	started := r.stored("TOOLS_REPLY", "tools.reply.ok-1.status")[0]
	var event contracts.Event
	if err := json.Unmarshal(started.Data, &event); err != nil || event.Engine != "local" || event.Tool != "script" || event.Digest != result.Digest || event.ExecSeq != 1 {
		t.Errorf("started: %s", started.Data)
	}
}

// Each way in which a tool can end.
func TestEnds(t *testing.T) {
	r := newRig(t)
	for name, test := range map[string]struct {
		verbs  []string
		status contracts.Status
		code   contracts.Code
		exit   int // -1: none
		signal string
	}{
		"exit 3":           {[]string{"out:x", "exit:3"}, contracts.Failed, contracts.ExitNonzero, 3, ""},
		"exit 255":         {[]string{"exit:255"}, contracts.Failed, contracts.ExitNonzero, 255, ""},
		"signal":           {[]string{"signal:KILL"}, contracts.Failed, contracts.Signalled, -1, "SIGKILL"},
		"memory":           {[]string{"oom"}, contracts.Failed, contracts.OOMKilled, -1, "SIGKILL"},
		"cannot start":     {[]string{"fail-before:spawn_failed:no such program"}, contracts.Rejected, contracts.SpawnFailed, -1, ""},
		"bad argument":     {[]string{"fail-before:invalid_args:two names meet"}, contracts.Rejected, contracts.InvalidArgs, -1, ""},
		"engine away":      {[]string{"fail-before:engine_unavailable:down"}, contracts.Unavailable, contracts.EngineUnavailable, -1, ""},
		"cannot enforce":   {[]string{"unsupported:no limits here"}, contracts.Unavailable, contracts.Unsupported, -1, ""},
		"fine, with stdin": {[]string{"cat"}, contracts.Succeeded, "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			result := r.ask(script("", test.verbs...)).result()
			if result.Status != test.status || result.Signal != test.signal {
				t.Errorf("%+v %+v", result, result.Error)
			}
			if result.Error != nil {
				if result.Error.Code != test.code || result.Error.Message == "" {
					t.Errorf("error %+v", result.Error)
				}
			} else if test.code != "" {
				t.Errorf("no error, want %s", test.code)
			}
			if (result.ExitCode == nil) != (test.exit < 0) || result.ExitCode != nil && *result.ExitCode != test.exit {
				t.Errorf("exit code %v, want %d", result.ExitCode, test.exit)
			}
		})
	}
	r.queueEmpty()
}

func TestTimeouts(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxExecutionTime = 2 * time.Second })
	for name, test := range map[string]struct{ request, want string }{
		"of the contract": {`{"tool":"brief"}`, "200ms, the timeout of the contract"},
		"of the request":  {`{"tool":"brief","timeout":0.1}`, "100ms, the timeout of the request"},
		"of the executor": {strings.Replace(script("x1", "out:x", "block"), `{"`, `{"timeout":50,"`, 1), "2s, the execution.max_execution_time"},
		"a deadline":      {strings.Replace(script("x2", "out:x", "block"), `{"`, `{"deadline":"DEADLINE","`, 1), "passed while it ran"},
	} {
		t.Run(name, func(t *testing.T) {
			deadline := time.Now().Add(1500 * time.Millisecond).Format(time.RFC3339Nano)
			result := r.ask(strings.Replace(test.request, "DEADLINE", deadline, 1)).result()
			if result.Status != contracts.TimedOut || result.Error.Code != contracts.Timeout || !strings.Contains(result.Error.Message, test.want) {
				t.Errorf("%+v %+v", result, result.Error)
			}
			if result.Stdout != "x" {
				t.Errorf("the output until then is missing: %q", result.Stdout)
			}
		})
	}
}

// What is wrong with a request is told in its result, and the request itself goes to the dead letters.
func TestRejections(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy.Shell = false })
	for name, test := range map[string]struct {
		request string
		code    contracts.Code
		want    string
		status  contracts.Status
	}{
		"not JSON":               {`{"tool": `, contracts.InvalidRequest, "is not JSON", ""},
		"empty":                  {``, contracts.InvalidRequest, "is empty", ""},
		"unknown field":          {`{"tool":"script","arg":{}}`, contracts.InvalidRequest, `did you mean "args"?`, ""},
		"tool and contract":      {`{"tool":"script","contract":{"name":"x","engine":"local","engine_spec":{"command":["x"]}}}`, contracts.InvalidRequest, "keep one", ""},
		"neither":                {`{}`, contracts.InvalidRequest, "name the tool to run", ""},
		"timeout 0":              {`{"tool":"script","timeout":0}`, contracts.InvalidRequest, "must be above 0", ""},
		"negative timeout":       {`{"tool":"script","timeout":-1}`, contracts.InvalidRequest, "must be above 0", ""},
		"bad id":                 {`{"id":"a b","tool":"script"}`, contracts.InvalidRequest, `"a b" is not an id`, ""},
		"an executor's id":       {`{"id":"q1-1","tool":"script"}`, contracts.InvalidRequest, "begins with q and a digit", ""},
		"unknown tool":           {`{"tool":"scrip"}`, contracts.UnknownTool, `did you mean "script"?`, ""},
		"unknown version":        {`{"tool":"script","version":"2.0.0"}`, contracts.UnknownTool, "it has 1.0.0", ""},
		"missing argument":       {`{"tool":"typed"}`, contracts.InvalidArgs, `"count" is missing`, ""},
		"unknown argument":       {`{"tool":"typed","args":{"count":1,"wrd":"x"}}`, contracts.InvalidArgs, `did you mean "word"?`, ""},
		"mistyped argument":      {`{"tool":"typed","args":{"count":"one"}}`, contracts.InvalidArgs, `"count" is the text "one"; it must be an integer`, ""},
		"not in the enum":        {`{"tool":"typed","args":{"count":1,"word":"ciao"}}`, contracts.InvalidArgs, `one of "hello", "bye"`, ""},
		"another engine":         {`{"tool":"container"}`, contracts.Unsupported, "has no engine_spec for local", contracts.Unavailable},
		"shell from the bus":     {`{"contract":{"name":"x","engine":"local","engine_spec":{"command":"id","shell":true}}}`, contracts.PolicyDenied, "policy.shell", ""},
		"network":                {`{"contract":{"name":"x","engine":"local","engine_spec":{"command":["id"],"network":"host"}}}`, contracts.PolicyDenied, "policy.network", ""},
		"mounts outside":         {`{"contract":{"name":"x","engine":"local","engine_spec":{"command":["id"],"mounts":{"/etc":"/x"}}}}`, contracts.PolicyDenied, "policy.mounts", ""},
		"a deadline in the past": {`{"tool":"script","deadline":"2001-01-01T00:00:00Z"}`, contracts.ExpiredCode, "the deadline 2001-01-01T00:00:00Z passed", contracts.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(r.deadLetters())
			copies, result := r.ask(test.request).read()
			status := test.status
			if status == "" {
				status = contracts.Rejected
			}
			if copies != "result" || result.Status != status || result.Error.Code != test.code || !strings.Contains(result.Error.Message, test.want) {
				t.Errorf("%s: %+v %+v", copies, result, result.Error)
			}
			if result.Attempt != 0 || result.ExitCode != nil {
				t.Errorf("it looks as if it had run: %+v", result)
			}
			letters := r.deadLetters()
			if status == contracts.Expired {
				if len(letters) != before {
					t.Errorf("a dead letter for what was not wrong: %+v", letters[before:])
				}
			} else if len(letters) != before+1 || letters[before].Error.Code != test.code {
				t.Errorf("dead letters: %+v", letters[before:])
			}
			if result.ID == "" {
				return
			}
			if n := len(r.stored("TOOLS_RESULT", "tools.reply."+result.ID+".result")); n != 1 {
				t.Errorf("%d results are stored", n)
			}
			r.expectStatus(result.ID, "finished")
		})
	}
	r.queueEmpty()
	if starts := r.engine.Starts(); len(starts) != 0 {
		t.Errorf("%d tools were started", len(starts))
	}
}

func TestInlineContractsAreDeniedByDefault(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = Policy{} })
	result := r.ask(script("", "out:x")).result()
	if result.Status != contracts.Rejected || result.Error.Code != contracts.PolicyDenied || !strings.Contains(result.Error.Message, "policy.inline_contracts") {
		t.Errorf("%+v %+v", result, result.Error)
	}
}

func TestArgumentsReachTheTool(t *testing.T) {
	r := newRig(t)
	result := r.ask(`{"tool":"typed","args":{"count":5}}`).result()
	if result.Stdout[:1] != "5" || !strings.Contains(result.Stdout, "hello") {
		t.Errorf("%q", result.Stdout)
	}
	job := r.engine.Starts()[0].Job
	if fmt.Sprint(job.Args["count"]) != "5" || job.Args["word"] != "hello" || job.Attempt != 1 {
		t.Errorf("%+v", job)
	}
}

// Nobody uses an executor to write where he may not.
func TestForbiddenReplyTo(t *testing.T) {
	r := newRig(t)
	for _, place := range []string{"private.place", "_EXECUTOR.rig.x", "$JS.ACK.TOOLS_EXEC.local.1.1.1.1.0", "tools.exec.local", "_INBOX.*", "_INBOX.a b", "_INBOXX.a"} {
		t.Run(place, func(t *testing.T) {
			sub, err := r.nc.SubscribeSync(">")
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Unsubscribe()
			for _, inHeader := range []bool{true, false} {
				id := fmt.Sprintf("r%x%v", place, inHeader)
				request := map[string]any{"id": id[:min(len(id), 64)], "tool": "script", "args": map[string]any{"a": "out:secret"}}
				var result *contracts.Result
				if inHeader {
					text, _ := json.Marshal(request)
					if strings.ContainsAny(place, " ") {
						continue
					}
					r.ask(string(text), contracts.HeaderReplyTo, place)
				} else {
					request["reply_to"] = place
					text, _ := json.Marshal(request)
					r.nc.Request("tools.exec.local", text, 5*time.Second)
				}
				for deadline := time.Now().Add(10 * time.Second); result == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					for _, m := range r.stored("TOOLS_RESULT", "tools.reply."+request["id"].(string)+".result") {
						result = &contracts.Result{}
						if err := json.Unmarshal(m.Data, result); err != nil {
							t.Fatal(err)
						}
					}
				}
				if result == nil || result.Status != contracts.Rejected {
					t.Errorf("%+v", result)
				}
			}
			for {
				m, err := sub.NextMsg(20 * time.Millisecond)
				if err != nil {
					break
				}
				if m.Subject == place && m.Header.Get(contracts.HeaderType) != "" {
					t.Errorf("wrote %s there", m.Data)
				}
			}
		})
	}
	if starts := r.engine.Starts(); len(starts) != 0 {
		t.Errorf("%d tools were started", len(starts))
	}
}

// The id of a request that has none comes from its place in the queue.
func TestQueueID(t *testing.T) {
	r := newRig(t)
	result := r.ask(script("", "out:x")).result()
	if !strings.HasPrefix(result.ID, "q") || !strings.HasSuffix(result.ID, "-1") {
		t.Errorf("id %s", result.ID)
	}
	if n := len(r.stored("TOOLS_RESULT", "tools.reply."+result.ID+".result")); n != 1 {
		t.Errorf("%d results", n)
	}
}

// The same id with the same ask is answered by the result that is there; with another one, only the asker is told.
func TestSameIDAgain(t *testing.T) {
	r := newRig(t)
	first := r.ask(script("same", "out:once")).result()
	r.expectStatus("same", "started finished")
	copies, second := r.ask(script("same", "out:once")).read()
	if copies != "result" || second.Stdout != "once" || !second.Time.Equal(first.Time) {
		t.Errorf("%s %+v", copies, second)
	}
	copies, other := r.ask(script("same", "out:something else")).read()
	if copies != "result" || other.Status != contracts.Rejected || other.Error.Code != contracts.IDConflict {
		t.Errorf("%s %+v", copies, other)
	}
	// A request that cannot even be read writes nothing about a run that is not its own.
	copies, broken := r.ask(`{"id":"same","tool":"script","tol":1}`).read()
	if copies != "result" || broken.Error.Code != contracts.InvalidRequest {
		t.Errorf("%s %+v", copies, broken)
	}
	r.queueEmpty()
	r.expectStatus("same", "started finished")
	if n := len(r.stored("TOOLS_RESULT", "tools.reply.same.result")); n != 1 || len(r.engine.Starts()) != 1 {
		t.Errorf("%d results, %d starts", n, len(r.engine.Starts()))
	}
}

// The same while the first still runs: the same ask waits for its result, another one is told at once.
func TestSameIDWhileItRuns(t *testing.T) {
	r := newRig(t)
	other := joinRig(t, r.url, func(c *Config) { c.Name = "other" })
	first := r.ask(script("same", "out:once", "await:go"))
	for deadline := time.Now().Add(10 * time.Second); len(r.engine.Starts())+len(other.engine.Starts()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first was not started within 10 s")
		}
	}
	for range 3 { // on either executor
		copies, result := r.ask(script("same", "out:something else")).read()
		if copies != "result" || result.Error == nil || result.Error.Code != contracts.IDConflict {
			t.Errorf("%s %+v", copies, result)
		}
	}
	waiting := []*answer{r.ask(script("same", "out:once", "await:go")), r.ask(script("same", "out:once", "await:go"))}
	r.engine.Release("go")
	other.engine.Release("go")
	for _, a := range append(waiting, first) {
		if result := a.result(); result.Stdout != "once" || result.Status != contracts.Succeeded {
			t.Errorf("%+v", result)
		}
	}
	r.queueEmpty()
	r.expectStatus("same", "started finished")
	if n := len(r.engine.Starts()) + len(other.engine.Starts()); n != 1 {
		t.Errorf("%d starts", n)
	}
}

func TestCancelBeforeAndDuring(t *testing.T) {
	r := newRig(t)
	if err := r.bus.Cancel(t.Context(), "early"); err != nil {
		t.Fatal(err)
	}
	if result := r.ask(script("early", "out:x")).result(); result.Status != contracts.Cancelled || result.Attempt != 0 {
		t.Errorf("cancelled before it came: %+v", result)
	}
	during := r.ask(script("during", "out:partial", "block"))
	r.engine.AwaitStarts(t, 1)
	if err := r.bus.Cancel(t.Context(), "during"); err != nil {
		t.Fatal(err)
	}
	if result := during.result(); result.Status != contracts.Cancelled || result.Error.Code != contracts.CancelledCode || result.Attempt != 1 || result.Stdout != "partial" {
		t.Errorf("cancelled while it ran: %+v", result)
	}
}

// A cancel whose live message was missed is found by the look that is taken from time to time.
func TestMissedCancelIsFound(t *testing.T) {
	r := newRig(t)
	a := r.ask(script("missed", "block"))
	r.engine.AwaitStarts(t, 1)
	// As if the message had come while we had no connection: only the stream has it.
	r.core.mu.Lock()
	run := r.core.runs["missed"]
	delete(r.core.runs, "missed")
	r.core.mu.Unlock()
	if err := r.bus.Cancel(t.Context(), "missed"); err != nil {
		t.Fatal(err)
	}
	r.nc.Flush()
	r.core.mu.Lock()
	r.core.runs["missed"] = run
	r.core.mu.Unlock()
	r.core.LookForCancels(t.Context())
	if result := a.result(); result.Status != contracts.Cancelled {
		t.Errorf("%+v", result)
	}
}

func TestQueueTimeout(t *testing.T) {
	r := newRig(t)
	r.stop(nil) // nobody takes
	a := r.ask(strings.Replace(script("late", "out:x"), `{"`, `{"queue_timeout":0.05,"`, 1))
	fresh := r.ask(strings.Replace(script("fresh", "out:x"), `{"`, `{"queue_timeout":60,"`, 1))
	<-time.After(100 * time.Millisecond)
	joinRig(t, r.url)
	if result := a.result(); result.Status != contracts.Expired || result.Error.Code != contracts.ExpiredCode {
		t.Errorf("%+v", result)
	}
	if result := fresh.result(); result.Status != contracts.Succeeded {
		t.Errorf("%+v", result)
	}
}

// Output beyond the limit is read and not published; a contract may ask for the end of the run instead.
func TestOutputLimit(t *testing.T) {
	r := newRig(t)
	result := r.ask(script("much", "flood:3000000")).result()
	if result.Status != contracts.Succeeded || result.StdoutBytes != 3000000 || result.DroppedBytes != 3000000-1<<20 || !result.Truncated {
		t.Errorf("%+v", result)
	}
	published := 0
	for i, m := range r.stored("TOOLS_REPLY", "tools.reply.much.output") {
		published += len(m.Data)
		if m.Header.Get("Tools-Seq") != fmt.Sprint(i+1) || m.Header.Get("Tools-Offset") != fmt.Sprint(published-len(m.Data)) {
			t.Fatalf("chunk %d: %v", i+1, m.Header)
		}
	}
	if published != 1<<20 {
		t.Errorf("%d bytes are published", published)
	}
	result = r.ask(`{"tool":"stops"}`).result()
	if result.Status != contracts.Failed || result.Error.Code != contracts.OutputLimit || result.DroppedBytes == 0 {
		t.Errorf("%+v %+v", result, result.Error)
	}
}

// An engine that loses a tool: it is started again, but not for ever.
func TestEngineLosesTheTool(t *testing.T) {
	r := newRig(t)
	result := r.ask(script("lost", "out:x", "fail-after:the daemon went away")).result()
	if result.Status != contracts.Lost || result.Error.Code != contracts.ExecutorLost || !strings.Contains(result.Error.Message, "the daemon went away") {
		t.Errorf("%+v %+v", result, result.Error)
	}
	if n := len(r.engine.Starts()); n != 3 {
		t.Errorf("%d starts", n)
	}
	r.expectStatus("lost", "started retry started retry started finished")
	letters := r.deadLetters()
	if len(letters) != 1 || letters[0].Attempts != 2 && letters[0].Attempts != 3 {
		t.Fatalf("%+v", letters)
	}
	var past []string
	for _, e := range letters[0].History {
		past = append(past, fmt.Sprint(e.Type, e.Attempt))
	}
	if got := strings.Join(past, " "); got != "started1 retry1 started2 retry2 started3" || letters[0].Digest != result.Digest || letters[0].Tool != "inline" {
		t.Errorf("history %s in %+v", got, letters[0])
	}
	r.queueEmpty()
}

// What is stopped because its executor stops is left to others, and finished by them.
func TestDrainLeavesRunsToOthers(t *testing.T) {
	r := newRig(t)
	a := r.ask(script("moved", "out:x", "await:go"))
	r.engine.AwaitStarts(t, 1)
	r.stop(Draining)
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	heir.engine.Release("go")
	if result := a.result(); result.Status != contracts.Succeeded || result.Executor != "heir" || result.Attempt != 2 {
		t.Errorf("%+v", result)
	}
	r.expectStatus("moved", "started retry started finished")
}

// An executor that crashed between the result and the last event: whoever gets the request again completes that, and
// runs nothing.
func TestCrashBetweenResultAndEnd(t *testing.T) {
	r := newRig(t)
	r.stop(nil)
	a := r.ask(script("half", "out:x"))
	digest := func() string {
		request, err := contracts.DecodeRequest([]byte(script("half", "out:x")))
		if err != nil {
			t.Fatal(err)
		}
		return request.Digest()
	}()
	event := contracts.Event{Type: contracts.TypeStarted, ID: "half", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 1, Digest: digest}
	if seq, err := r.bus.Advance(t.Context(), event, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	if _, err := r.bus.StoreResult(t.Context(), &contracts.Result{Type: "result", ID: "half", Status: contracts.Succeeded, Executor: "dead", Attempt: 1, Digest: digest}, ""); err != nil {
		t.Fatal(err)
	}
	// The dead executor had taken it once.
	js := r.bus.Conn()
	if _, err := js.Request("$JS.API.CONSUMER.MSG.NEXT.TOOLS_EXEC.local", []byte(`{"batch":1,"no_wait":true}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	heir := joinRig(t, r.url, func(c *Config) { c.Name = "heir" })
	if result := a.result(); result.Executor != "dead" || result.Status != contracts.Succeeded {
		t.Errorf("%+v", result)
	}
	r.expectStatus("half", "started finished")
	if n := len(heir.engine.Starts()); n != 0 {
		t.Errorf("%d starts", n)
	}
	r.queueEmpty()
}

// The request that had claimed a run has vanished from the queue without a result, as by a purge: one with its id takes
// over.
func TestClaimWhoseRequestIsGone(t *testing.T) {
	r := newRig(t)
	event := contracts.Event{Type: contracts.TypeStarted, ID: "orphan", Attempt: 1, Executor: "dead", Time: time.Now(), ExecSeq: 999}
	if seq, err := r.bus.Advance(t.Context(), event, 0, ""); seq == 0 || err != nil {
		t.Fatal(seq, err)
	}
	if result := r.ask(script("orphan", "out:x")).result(); result.Status != contracts.Succeeded || result.Attempt != 2 {
		t.Errorf("%+v", result)
	}
}

// Foreign code that panics takes one request with it, not the executor.
func TestPanicIsContained(t *testing.T) {
	r := newRig(t)
	a := r.ask(script("boom", "panic:boom"))
	r.engine.AwaitStarts(t, 1)
	if result := r.ask(script("fine", "out:x")).result(); result.Status != contracts.Succeeded {
		t.Errorf("%+v", result)
	}
	if result := a.result(); result.Status != contracts.Lost {
		t.Errorf("%+v", result)
	}
}
