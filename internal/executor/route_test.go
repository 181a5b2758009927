package executor

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// fleetOf are instances on one server, each with the engines that it serves.
func fleetOf(t *testing.T, engines ...[]string) []*rig {
	t.Helper()
	first := newRig(t)
	first.stop(nil)
	var fleet []*rig
	for i, names := range engines {
		fleet = append(fleet, joinRigOf(t, first.url, names, func(c *Config) { c.Name = "rig-" + strings.Join(names, "-") + string(rune('a'+i)) }))
	}
	for _, r := range fleet {
		r.await("every instance knows of the others", func() bool {
			known, ok := r.core.serving(t.Context())
			for _, names := range engines {
				for _, name := range names {
					ok = ok && known(name)
				}
			}
			return ok
		})
	}
	return fleet
}

func triedOf(result *contracts.Result) string {
	var each []string
	for _, t := range result.Tried {
		each = append(each, t.Engine+":"+string(t.Code))
	}
	return strings.Join(each, " ")
}

// A run whose engine cannot take it goes to the next, across instances that serve different ones.
func TestFallbackAcrossInstances(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	for name, test := range map[string]struct{ verb, tried string }{
		"engine": {"fail-before:engine_unavailable:no daemon", "docker:engine_unavailable dagger:engine_unavailable"},
		"image":  {"fail-before:image_unavailable:no such image", "docker:image_unavailable dagger:engine_unavailable"},
		"cannot": {"fail-before:unsupported:no", "docker:unsupported dagger:engine_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			copies, result := fleet[0].askOn("tools.exec.docker", `{"id":"move-`+name+`","tool":"moves","args":{"a":"`+test.verb+`"},"labels":{"a":"b"}}`).read()
			if result.Status != contracts.Succeeded || result.Stdout != "local" || result.Engine != "local" || result.Attempt != 1 {
				t.Errorf("%+v %v", result, result.Error)
			}
			if got := triedOf(result); got != strings.Fields(test.tried)[0] && got != test.tried {
				t.Errorf("tried %s", got)
			}
			if copies != "fallback started output result" {
				t.Errorf("copies: %s", copies)
			}
			fleet[0].expectStatus("move-"+name, "fallback started finished")
		})
	}
	fleet[0].queueEmpty()
}

// A request without an id keeps the one of its first queue.
func TestFallbackKeepsTheID(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	result := fleet[0].askOn("tools.exec.docker", `{"tool":"moves","args":{"a":"fail-before:engine_unavailable:no"}}`).result()
	if result.Status != contracts.Succeeded || !strings.HasSuffix(result.ID, "-1") {
		t.Errorf("%+v", result)
	}
	if n := len(fleet[0].stored("TOOLS_RESULT", "tools.reply.*.result")); n != 1 {
		t.Errorf("%d results", n)
	}
	fleet[0].queueEmpty()
}

// A tool that fails is a result, and no reason to try it elsewhere.
func TestNoFallbackAfterTheStart(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "local"})
	result := fleet[0].askOn("tools.exec.docker", `{"tool":"moves","args":{"a":"exit:3"}}`).result()
	if result.Status != contracts.Failed || result.Engine != "docker" || len(result.Tried) != 0 {
		t.Errorf("%+v", result)
	}
}

// At the end of the list the result says all that was tried, and the request is kept as a dead letter.
func TestNoEngineTakesIt(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "local"})
	result := fleet[0].askOn("tools.exec.docker", `{"id":"none","tool":"moves","args":{"a":"fail-before:engine_unavailable:no daemon","b":"fail-before:unsupported:no way"}}`).result()
	if result.Status != contracts.Unavailable || result.Attempt != 0 || triedOf(result) != "docker:engine_unavailable local:unsupported dagger:engine_unavailable" {
		t.Errorf("%+v %v", result, result.Error)
	}
	for _, want := range []string{"no daemon", "no way", "no executor serves it"} {
		if !strings.Contains(result.Error.Message, want) {
			t.Errorf("%q is not in %s", want, result.Error.Message)
		}
	}
	if letters := fleet[0].deadLetters(); len(letters) != 1 || letters[0].ID != "none" {
		t.Errorf("%+v", letters)
	}
	fleet[0].queueEmpty()
}

// Loop protection: an engine is tried once, whatever the list of the request says.
func TestRequestsOwnFallback(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "dagger", "local"})
	result := fleet[0].askOn("tools.exec.docker", `{"tool":"moves","fallback":["dagger","docker","local"],"args":{"a":"fail-before:engine_unavailable:no"}}`).result()
	if result.Status != contracts.Succeeded || result.Engine != "local" || triedOf(result) != "docker:engine_unavailable dagger:engine_unavailable" {
		t.Errorf("%+v %v", result, result.Error)
	}
	// Isolation never gets weaker because a request asks for it: the contract has no spec for a process.
	result = fleet[0].askOn("tools.exec.docker", `{"contract":{"name":"c","engine":"docker","engine_spec":{"image":"busybox","command":["tool","fail-before:engine_unavailable:no"]}},"fallback":["local"]}`).result()
	if result.Status != contracts.Unavailable || strings.Contains(triedOf(result), "local") {
		t.Errorf("%+v %v", result, result.Error)
	}
}

// Who writes the headers of a request that was passed on is not believed.
func TestForgedHops(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "local"})
	for _, headers := range [][]string{
		{"Tools-Hop", "7", "Tools-Tried", `[{"engine":"local","code":"unsupported","reason":"x"}]`},
		{"Tools-Hop", "1", "Tools-Id", "stolen"},
		{"Tools-Hop", "-1"}, {"Tools-Hop", "x", "Tools-Id", "a b"},
	} {
		result := fleet[0].askOn("tools.exec.docker", `{"tool":"moves","args":{"a":"fail-before:engine_unavailable:no"}}`, headers...).result()
		if result.Status != contracts.Succeeded || result.ID == "stolen" || triedOf(result) != "docker:engine_unavailable" {
			t.Errorf("%v: %+v %v", headers, result, result.Error)
		}
	}
	fleet[0].queueEmpty()
}

// Whoever uses the message id of a republish before cannot make it vanish.
func TestForgedMessageID(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	msg := nats.NewMsg("tools.exec.local")
	msg.Data = []byte(script("other", "out:x"))
	msg.Header.Set(nats.MsgIdHdr, "mine.1.local")
	if err := fleet[0].nc.PublishMsg(msg); err != nil {
		t.Fatal(err)
	}
	result := fleet[0].askOn("tools.exec.docker", `{"id":"mine","tool":"moves","args":{"a":"fail-before:engine_unavailable:no"}}`).result()
	if result.Status != contracts.Succeeded || result.Stdout != "local" {
		t.Errorf("%+v %v", result, result.Error)
	}
}

// A request in a queue that its contract neither names nor lists is moved to where it belongs.
func TestMoved(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "local"})
	result := fleet[0].askOn("tools.exec.local", `{"tool":"container"}`).result()
	if result.Status != contracts.Succeeded || result.Engine != "docker" || triedOf(result) != "local:unsupported" {
		t.Errorf("%+v %v", result, result.Error)
	}
	result = fleet[0].askOn("tools.exec.local", `{"tool":"moves"}`).result()
	if result.Status != contracts.Succeeded || result.Engine != "local" || len(result.Tried) != 0 {
		t.Errorf("a queue that the contract lists: %+v %v", result, result.Error)
	}
	fleet[0].queueEmpty()
}

// Engines that nobody serves, and those that nobody has ever heard of, get their answer after the grace.
func TestUnserved(t *testing.T) {
	fleet := fleetOf(t, []string{"local"}, []string{"local"})
	for subject, want := range map[string]struct {
		request string
		status  contracts.Status
		engine  string
	}{
		"tools.exec.docker":      {`{"tool":"container"}`, contracts.Unavailable, "docker"},
		"tools.exec.dagger.low":  {`{"tool":"container"}`, contracts.Unavailable, "dagger"},
		"tools.exec.docker.high": {`{"tool":"moves"}`, contracts.Succeeded, "local"},
		"tools.exec.gpu":         {script("", "out:x"), contracts.Succeeded, "local"},
		"tools.exec.g/p~u":       {`{"tool":"container"}`, contracts.Unavailable, "g/p~u"},
		"tools.exec.never":       {`{"tool":"script","queue_timeout":0.1}`, contracts.Expired, "never"},
	} {
		t.Run(subject, func(t *testing.T) {
			result := fleet[0].askOn(subject, want.request).result()
			if result.Status != want.status || result.Engine != want.engine {
				t.Errorf("%+v %v", result, result.Error)
			}
			if want.status == contracts.Unavailable && !strings.Contains(result.Error.Message, "served are local") {
				t.Errorf("it does not say what there is: %v", result.Error)
			}
		})
	}
	fleet[0].queueEmpty()
}

// While an engine is served, if only by others, its requests wait for it.
func TestServedElsewhereWaits(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	a := fleet[0].askOn("tools.exec.docker", `{"tool":"moves","args":{"a":"sleep:300ms"}}`)
	fleet[0].engine.AwaitStarts(t, 1)
	var more []*answer
	for range 8 {
		more = append(more, fleet[0].askOn("tools.exec.docker", `{"tool":"moves","args":{"a":"sleep:300ms"}}`))
	}
	for _, a := range append(more, a) {
		if result := a.result(); result.Engine != "docker" {
			t.Errorf("%+v", result)
		}
	}
}

// A queue that is full counts as an engine that cannot take it; where the contract asks for another try, that is made, and
// ends with a result.
func TestFullQueueAndRetry(t *testing.T) {
	fleet := fleetOf(t, []string{"docker", "local"})
	var js struct{ Config json.RawMessage }
	info, err := fleet[0].nc.Request("$JS.API.STREAM.INFO.TOOLS_EXEC", nil, 5*time.Second)
	if err != nil || json.Unmarshal(info.Data, &js) != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(js.Config, &config); err != nil {
		t.Fatal(err)
	}
	config["max_msgs_per_subject"] = 1
	text, _ := json.Marshal(config)
	// One that runs is still in the queue, and fills it.
	busy := fleet[0].ask(script("busy", "out:x", "await:go"))
	fleet[0].fakes["local"].AwaitStarts(t, 1)
	if _, err := fleet[0].nc.Request("$JS.API.STREAM.UPDATE.TOOLS_EXEC", text, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	request := `{"id":"full","contract":{"name":"c","engine":"docker","engine_spec":{"image":"x","command":["tool","fail-before:engine_unavailable:no"]},
		"fallback":[{"engine":"local","engine_spec":{"command":["tool","out:local"]}}],"retry":{"max_attempts":2,"backoff":0.1,"on":["unavailable"]}}}`
	result := fleet[0].askOn("tools.exec.docker", request).result()
	if result.Status != contracts.Unavailable || triedOf(result) != "docker:engine_unavailable local:queue_full dagger:engine_unavailable" {
		t.Errorf("%+v %v", result, result.Error)
	}
	fleet[0].expectStatus("full", "fallback retry fallback finished")
	fleet[0].fakes["local"].Release("go")
	busy.result()
	fleet[0].queueEmpty()
}

// Who asks again for a run that was passed on and waits there changes nothing about it, with the same request or another.
func TestAskingAgainWhileItIsPassedOn(t *testing.T) {
	fleet := fleetOf(t, []string{"docker"}, []string{"local"})
	var busy []*answer
	for range 4 { // all slots
		busy = append(busy, fleet[1].ask(script("", "out:x", "await:go")))
	}
	fleet[1].engine.AwaitStarts(t, 4)
	request := `{"id":"twice","tool":"moves","args":{"a":"fail-before:engine_unavailable:no"}}`
	first := fleet[0].askOn("tools.exec.docker", request)
	fleet[0].expectStatus("twice", "fallback")
	fleet[0].awaitQueued(5)
	other := fleet[0].askOn("tools.exec.docker", `{"id":"twice","tool":"moves","args":{"no":"such"}}`)
	if result := other.result(); result.Status != contracts.Rejected {
		t.Errorf("%+v", result)
	}
	if n := len(fleet[0].stored("TOOLS_RESULT", "tools.reply.twice.result")); n != 0 {
		t.Error("another request's result is stored for it")
	}
	again := fleet[0].askOn("tools.exec.docker", request)
	fleet[0].await("the one that asks again waits", func() bool {
		return strings.Contains(fleet[0].logs.text(), "another request with this id is being run")
	})
	fleet[1].engine.Release("go")
	for _, a := range []*answer{first, again} {
		if result := a.result(); result.Status != contracts.Succeeded || result.Engine != "local" || triedOf(result) != "docker:engine_unavailable" {
			t.Errorf("%+v %v", result, result.Error)
		}
	}
	for _, a := range busy {
		a.result()
	}
	fleet[0].expectStatus("twice", "fallback started finished")
	fleet[0].queueEmpty()
}

// An engine that nobody else serves is not used while it is ill, however its requests are taken.
func TestIllEngineRunsNothing(t *testing.T) {
	healthFirst, healthEvery = 20*time.Millisecond, 50*time.Millisecond
	t.Cleanup(func() { healthFirst, healthEvery = 500*time.Millisecond, 5*time.Second })
	fleet := fleetOf(t, []string{"docker", "local"})
	fleet[0].fakes["docker"].SetReady(errors.New("no daemon"))
	fleet[0].await("it is noticed", func() bool { return fleet[0].core.Healthy("docker") != nil })
	result := fleet[0].askOn("tools.exec.docker", `{"tool":"moves"}`).result()
	if result.Status != contracts.Succeeded || result.Engine != "local" {
		t.Errorf("%+v %v", result, result.Error)
	}
	if n := len(fleet[0].fakes["docker"].Starts()); n != 0 {
		t.Errorf("%d starts on an ill engine", n)
	}
}
