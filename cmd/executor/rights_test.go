package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// fleetServer is a NATS server with a configuration of configs/nats, as operators start it, but for where it listens and
// keeps its files.
type fleetServer struct {
	tb      testing.TB
	file    string
	dir     string
	port    int
	change  func(*server.Options) // may be nil
	running *server.Server
}

// passwordOf is that of a user of the configurations in configs/nats: the variable of that name, in the environment.
const passwordOf = "secret-of-"

// passwords are the variables that a configuration wants, and the users they belong to.
var passwords = map[string]string{
	"AGENT_PLANNER_PASSWORD": "planner", "AGENT_REVIEWER_PASSWORD": "reviewer", "EXECUTOR_PASSWORD": "executor", "OPERATOR_PASSWORD": "operator",
}

func startFleetServer(t *testing.T, file string) *fleetServer {
	t.Helper()
	for variable, user := range passwords {
		t.Setenv(variable, passwordOf+user)
	}
	s := &fleetServer{tb: t, file: file, dir: t.TempDir(), port: freePort(t)}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *fleetServer) start() {
	s.tb.Helper()
	options, err := server.ProcessConfigFile(filepath.Join("../../configs/nats", s.file))
	if err != nil {
		s.tb.Fatal(err)
	}
	if options.Host != "127.0.0.1" || options.HTTPHost != "127.0.0.1" {
		s.tb.Errorf("it listens on %s, its monitoring on %s: not this machine only", options.Host, options.HTTPHost)
	}
	options.Port, options.HTTPPort, options.StoreDir, options.NoSigs = s.port, 0, s.dir, true
	if s.change != nil {
		s.change(options)
	}
	if s.running, err = server.NewServer(options); err != nil {
		s.tb.Fatal(err)
	}
	s.running.Start()
	if !s.running.ReadyForConnections(10 * time.Second) {
		s.tb.Fatal("the server did not start")
	}
}

func (s *fleetServer) stop() {
	s.running.Shutdown()
	s.running.WaitForShutdown()
}

func (s *fleetServer) url(user string) string {
	return fmt.Sprintf("nats://%s:%s%s@127.0.0.1:%d", user, passwordOf, user, s.port)
}

// intruder is a connection of a user, and what the server forbade it.
type intruder struct {
	tb   testing.TB
	nc   *nats.Conn
	user string

	mu      sync.Mutex
	denials []string
	heard   chan struct{} // something was denied
	settled chan struct{} // what nobody may do was denied
}

// nobodyMay is a subject that no user may publish to.
const nobodyMay = "nobody.may"

// as connects as a user, with the inbox that it has.
func (s *fleetServer) as(tb testing.TB, user string) *intruder {
	tb.Helper()
	i := &intruder{tb: tb, user: user, heard: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
	inbox := "_INBOX." + user
	if user == "executor" {
		inbox = "_EXECUTOR.test"
	}
	var err error
	i.nc, err = nats.Connect(s.url(user), nats.CustomInboxPrefix(inbox), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				if strings.Contains(err.Error(), strconv.Quote(nobodyMay)) {
					i.settled <- struct{}{}
					return
				}
				i.mu.Lock()
				i.denials = append(i.denials, err.Error())
				i.mu.Unlock()
				select {
				case i.heard <- struct{}{}:
				default:
				}
			}
		}))
	if err != nil {
		tb.Fatalf("%s: %v", user, err)
	}
	tb.Cleanup(i.nc.Close)
	return i
}

// settle returns when all is heard that the server forbade until now. The library tells of it in a goroutine of its own, later
// perhaps than of the answer to a ping, but in order: after what was tried comes that which is always forbidden.
func (i *intruder) settle() {
	i.tb.Helper()
	if err := i.nc.Publish(nobodyMay, nil); err != nil {
		i.tb.Fatal(err)
	}
	select {
	case <-i.settled:
	case <-time.After(10 * time.Second):
		i.tb.Fatalf("%s may publish to %s, or hears nothing", i.user, nobodyMay)
	}
}

// forget forgets what was denied.
func (i *intruder) forget() {
	i.tb.Helper()
	i.settle()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.denials = nil
	select {
	case <-i.heard:
	default:
	}
}

// denied is what the server forbade since the last forget, in the words of the rights: "publish tools.run".
func (i *intruder) denied() string {
	i.tb.Helper()
	i.settle()
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []string
	for _, text := range i.denials {
		_, text, _ = strings.Cut(text, "Violation for ")
		verb, subject, _ := strings.Cut(text, ` to "`)
		subject, _, _ = strings.Cut(subject, `"`)
		list = append(list, strings.ToLower(strings.TrimSuffix(verb, "ion"))+" "+subject)
	}
	return strings.ReplaceAll(strings.Join(list, ", "), "subscript ", "subscribe ")
}

// attempt is one thing that a user may or may not do.
type attempt struct {
	name    string
	verb    string // publish, subscribe, queue
	subject string
	data    string
}

// settled is how long an answer is waited for where there may be none.
const settled = 50 * time.Millisecond

// try does it, and returns what was denied and what was answered.
func (i *intruder) try(a attempt) (denied, answer string) {
	i.tb.Helper()
	i.forget()
	answers := make(chan *nats.Msg, 1)
	switch a.verb {
	case "publish":
		inbox, err := i.nc.Subscribe(i.nc.NewInbox(), func(m *nats.Msg) {
			select {
			case answers <- m:
			default:
			}
		})
		if err != nil {
			i.tb.Fatal(err)
		}
		defer inbox.Unsubscribe()
		if err := i.nc.PublishRequest(a.subject, inbox.Subject, []byte(a.data)); err != nil {
			i.tb.Fatal(err)
		}
	default:
		queue := ""
		if a.verb == "queue" {
			queue = a.data
		}
		sub, err := i.nc.QueueSubscribe(a.subject, queue, func(*nats.Msg) {})
		if err != nil {
			i.tb.Fatal(err)
		}
		defer sub.Unsubscribe()
	}
	if denied = i.denied(); denied != "" {
		return denied, ""
	}
	select {
	case m := <-answers:
		return "", m.Header.Get("Status") + string(m.Data)
	case <-time.After(settled):
		return "", ""
	}
}

// pub, sub and queue name attempts shortly.
func pub(name, subject, data string) attempt { return attempt{name, "publish", subject, data} }
func sub(name, subject string) attempt       { return attempt{name, "subscribe", subject, ""} }
func queue(name, subject, group string) attempt {
	return attempt{name, "queue", subject, group}
}

// victim is a run whose id the intruder has got to know, so that only rights keep him from it.
const victim = "victim-0123456789abcdef"

// What agents may not do. Names say what it would be good for.
var agentMayNot = []attempt{
	sub("hear everything", ">"),
	sub("hear every one-word subject", "*"),
	sub("hear the fleet", "tools.>"),
	sub("hear the fleet, level by level", "tools.*.*"),
	sub("read all inboxes", "_INBOX.>"),
	sub("read all inboxes, level by level", "_INBOX.*.*"),
	sub("read another's inbox", "_INBOX.reviewer.>"),
	sub("read one inbox of another", "_INBOX.reviewer.abc"),
	sub("read inboxes whose name begins alike", "_INBOX.plannerx.>"),
	sub("read the operator's inbox", "_INBOX.operator.>"),
	sub("read the executors' inboxes", "_EXECUTOR.>"),
	sub("read one executor's inbox", "_EXECUTOR.test.*"),
	queue("share the executors' inboxes", "_EXECUTOR.>", "x"),
	sub("hear all runs", "tools.reply.>"),
	sub("hear all results", "tools.reply.*.result"),
	sub("hear the output of all runs", "tools.reply.*.output"),
	sub("hear one run past the front door", "tools.reply."+victim+".>"),
	sub("hear the bell", "tools.bell.>"),
	sub("hear requests", "tools.exec.>"),
	queue("take requests as they are published", "tools.exec.local", "local"),
	sub("hear cancels, and so ids", "tools.cancel.*"),
	sub("hear dead letters", "tools.dead.>"),
	sub("hear who is there", "$KV.TOOLS_EXECUTORS.>"),
	sub("hear new contracts", "$KV.TOOLS_CONTRACTS.>"),
	queue("play the front door, run", "tools.run", "tools"),
	queue("play the front door, run on an engine", "tools.run.*", "tools"),
	queue("play the front door, stream", "tools.stream", "tools"),
	queue("play the front door, follow", "tools.follow", "tools"),
	queue("play the front door, discover", "tools.discover", "tools"),
	sub("listen at the front door", "tools.run"),
	sub("listen at the front door for ids to follow", "tools.follow"),
	sub("register a service", "$SRV.PING"),
	sub("register a service of the executor's name", "$SRV.INFO.executor"),
	pub("ask services, which answer with their own rights", "$SRV.INFO.executor", ""),
	pub("ping services", "$SRV.PING", ""),
	sub("hear what is acknowledged", "$JS.ACK.>"),
	sub("hear JetStream's advisories", "$JS.EVENT.>"),
	sub("hear the API", "$JS.API.>"),
	sub("hear service replies", "_R_.>"),
	sub("hear the system account", "$SYS.>"),
	pub("ask the system account", "$SYS.REQ.SERVER.PING", ""),
	pub("ask the system account about itself", "$SYS.REQ.USER.INFO", ""),
	pub("forge a result", "tools.reply."+victim+".result", `{"type":"result","status":"succeeded"}`),
	pub("forge a claim", "tools.reply."+victim+".status", `{"type":"started","attempt":99}`),
	pub("forge output", "tools.reply."+victim+".output", "what the tool did not say"),
	pub("forge a dead letter", "tools.dead.local", "{}"),
	pub("ring the bell", "tools.bell.local", ""),
	pub("ring the bell of high priority", "tools.bell.local.high", ""),
	pub("queue with a priority that there is not", "tools.exec.local.urgent", "{}"),
	pub("take a place of a limit", "tools.limit.x", "{}"),
	pub("write into another's inbox", "_INBOX.reviewer.abc", "{}"),
	pub("write into its own inbox, as if an executor did", "_INBOX.planner.abc", "{}"),
	pub("write into an executor's inbox", "_EXECUTOR.test.abc", `{"stream":"TOOLS_EXEC","seq":1}`),
	pub("register a contract", "$KV.TOOLS_CONTRACTS.evil/1_0", `{"name":"evil"}`),
	pub("pretend to be an executor", "$KV.TOOLS_EXECUTORS.evil", `{"name":"evil","slots":1000}`),
	pub("take an executor away", "$KV.TOOLS_EXECUTORS.test", ""),
	pub("pull a request", "$JS.API.CONSUMER.MSG.NEXT.TOOLS_EXEC.local", `{"batch":1,"no_wait":true}`),
	pub("acknowledge a request of another", "$JS.ACK.TOOLS_EXEC.local.1.1.1.1700000000000000000.0", "+ACK"),
	pub("terminate a request of another", "$JS.ACK.TOOLS_EXEC.local.1.1.1.1700000000000000000.0", "+TERM"),
	pub("acknowledge in the form of later servers", "$JS.ACK._.HASH.TOOLS_EXEC.local.1.1.1.1700000000000000000.0", "+ACK"),
	pub("answer flow control", "$JS.FC.KV_TOOLS_EXECUTORS.x.y", ""),
	pub("ask about the account", "$JS.API.INFO", ""),
	pub("list streams", "$JS.API.STREAM.LIST", ""),
	pub("list the names of streams", "$JS.API.STREAM.NAMES", ""),
	pub("list the ids of results", "$JS.API.STREAM.INFO.TOOLS_RESULT", `{"subjects_filter":">"}`),
	pub("list the ids of runs", "$JS.API.STREAM.INFO.TOOLS_REPLY", `{"subjects_filter":">"}`),
	pub("list the queue", "$JS.API.STREAM.INFO.TOOLS_EXEC", `{"subjects_filter":">"}`),
	pub("list cancels", "$JS.API.STREAM.INFO.TOOLS_CANCEL", `{"subjects_filter":">"}`),
	pub("list consumers", "$JS.API.CONSUMER.LIST.TOOLS_EXEC", ""),
	pub("list the names of consumers", "$JS.API.CONSUMER.NAMES.TOOLS_EXEC", ""),
	pub("look at a consumer", "$JS.API.CONSUMER.INFO.TOOLS_EXEC.local", ""),
	pub("read a result by direct get", "$JS.API.DIRECT.GET.TOOLS_RESULT.tools.reply."+victim+".result", ""),
	pub("read any result by direct get", "$JS.API.DIRECT.GET.TOOLS_RESULT", `{"seq":1}`),
	pub("read all output in batches", "$JS.API.DIRECT.GET.TOOLS_REPLY", `{"seq":1,"batch":100,"next_by_subj":">"}`),
	pub("read the last of many runs", "$JS.API.DIRECT.GET.TOOLS_REPLY", `{"multi_last":["tools.reply.*.status"]}`),
	pub("read the queue by direct get", "$JS.API.DIRECT.GET.TOOLS_EXEC", `{"seq":1}`),
	pub("read cancels by direct get", "$JS.API.DIRECT.GET.TOOLS_CANCEL", `{"seq":1}`),
	pub("read contracts by direct get", "$JS.API.DIRECT.GET.KV_TOOLS_CONTRACTS", `{"seq":1}`),
	pub("read a result by the older API", "$JS.API.STREAM.MSG.GET.TOOLS_RESULT", `{"seq":1}`),
	pub("read the queue by the older API", "$JS.API.STREAM.MSG.GET.TOOLS_EXEC", `{"seq":1}`),
	pub("read dead letters", "$JS.API.STREAM.MSG.GET.TOOLS_DEAD", `{"seq":1}`),
	pub("have results delivered by a consumer", "$JS.API.CONSUMER.CREATE.TOOLS_RESULT.x.>", `{"stream_name":"TOOLS_RESULT","config":{"name":"x","filter_subject":">","ack_policy":"none","deliver_subject":"_INBOX.planner.x"}}`),
	pub("have results delivered by an unnamed consumer", "$JS.API.CONSUMER.CREATE.TOOLS_RESULT", `{"stream_name":"TOOLS_RESULT","config":{"ack_policy":"none","deliver_subject":"_INBOX.planner.x"}}`),
	pub("have output delivered by a durable consumer", "$JS.API.CONSUMER.DURABLE.CREATE.TOOLS_REPLY.x", `{"stream_name":"TOOLS_REPLY","config":{"durable_name":"x","ack_policy":"none","deliver_subject":"_INBOX.planner.x"}}`),
	pub("have contracts delivered by a consumer", "$JS.API.CONSUMER.CREATE.KV_TOOLS_CONTRACTS.x", `{"stream_name":"KV_TOOLS_CONTRACTS","config":{"name":"x","ack_policy":"none","deliver_subject":"_INBOX.planner.x"}}`),
	pub("serve a queue of its own", "$JS.API.CONSUMER.CREATE.TOOLS_EXEC.x.tools.exec.x", `{"stream_name":"TOOLS_EXEC","config":{"name":"x","durable_name":"x","filter_subject":"tools.exec.x","ack_policy":"explicit"}}`),
	pub("delete the queue's consumer", "$JS.API.CONSUMER.DELETE.TOOLS_EXEC.local", ""),
	pub("pause the queue", "$JS.API.CONSUMER.PAUSE.TOOLS_EXEC.local", `{"pause_until":"2100-01-01T00:00:00Z"}`),
	pub("purge results", "$JS.API.STREAM.PURGE.TOOLS_RESULT", ""),
	pub("purge the queue", "$JS.API.STREAM.PURGE.TOOLS_EXEC", ""),
	pub("purge one run", "$JS.API.STREAM.PURGE.TOOLS_REPLY", `{"filter":"tools.reply.`+victim+`.*"}`),
	pub("delete one message", "$JS.API.STREAM.MSG.DELETE.TOOLS_RESULT", `{"seq":1}`),
	pub("delete a stream", "$JS.API.STREAM.DELETE.TOOLS_RESULT", ""),
	pub("delete the contracts", "$JS.API.STREAM.DELETE.KV_TOOLS_CONTRACTS", ""),
	pub("change a stream", "$JS.API.STREAM.UPDATE.TOOLS_RESULT", `{"name":"TOOLS_RESULT","subjects":["tools.reply.*.result"],"max_age":1000000000}`),
	pub("make a stream that copies results", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","sources":[{"name":"TOOLS_RESULT"}]}`),
	pub("make a stream that mirrors output", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","mirror":{"name":"TOOLS_REPLY"}}`),
	pub("make a stream that republishes into its inbox", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","sources":[{"name":"TOOLS_EXEC"}],"republish":{"src":">","dest":"_INBOX.planner.>"}}`),
	pub("make a stream of inboxes", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","subjects":["_INBOX.>"]}`),
	pub("make a stream of the front door", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","subjects":["tools.run"]}`),
	pub("take a snapshot of results", "$JS.API.STREAM.SNAPSHOT.TOOLS_RESULT", `{"deliver_subject":"_INBOX.planner.x"}`),
	pub("restore a stream of its own", "$JS.API.STREAM.RESTORE.TOOLS_RESULT", `{"config":{"name":"TOOLS_RESULT"}}`),
	pub("move a stream's leader", "$JS.API.STREAM.LEADER.STEPDOWN.TOOLS_EXEC", ""),
	pub("run a tool of a fleet with another prefix", "other.run", "{}"),
}

var agentMay = []attempt{
	pub("run a tool", "tools.run", `{"tool":"system_info"}`),
	pub("run a tool on an engine", "tools.run.local", `{"tool":"system_info"}`),
	pub("stream a tool", "tools.stream", `{"tool":"system_info"}`),
	pub("stream a tool on an engine", "tools.stream.local", `{"tool":"system_info"}`),
	pub("follow a run whose id it has", "tools.follow", `{"id":"`+victim+`","snapshot":true}`),
	pub("discover", "tools.discover", ""),
	pub("queue a request", "tools.exec.local", `{"tool":"system_info"}`),
	pub("queue a request, high", "tools.exec.local.high", `{"tool":"system_info"}`),
	pub("queue a request, low", "tools.exec.local.low", `{"tool":"system_info"}`),
	pub("cancel a run whose id it has", "tools.cancel.nothing-of-this-name", ""),
	sub("read its inbox", "_INBOX.planner.>"),
	sub("read one inbox of its own", "_INBOX.planner.abc"),
}

// What executors may not do.
var executorMayNot = []attempt{
	sub("hear everything", ">"),
	sub("hear the fleet", "tools.>"),
	sub("read agents' inboxes", "_INBOX.>"),
	sub("read an operator's inbox", "_INBOX.operator.>"),
	sub("hear requests beside the queue", "tools.exec.>"),
	sub("hear dead letters", "tools.dead.>"),
	sub("hear acknowledgements of others", "$JS.ACK.>"),
	sub("hear the API", "$JS.API.>"),
	sub("hear JetStream's advisories", "$JS.EVENT.>"),
	sub("hear the system account", "$SYS.>"),
	pub("register a contract", "$KV.TOOLS_CONTRACTS.evil/1_0", `{"name":"evil"}`),
	pub("take a contract away", "$KV.TOOLS_CONTRACTS.good/1_0", ""),
	pub("write into the inbox of an executor", "_EXECUTOR.other.abc", "{}"),
	pub("write an event that there is not", "tools.reply."+victim+".evil", "{}"),
	pub("ask the front door", "tools.run", "{}"),
	pub("cancel a run", "tools.cancel."+victim, ""),
	pub("read dead letters by direct get", "$JS.API.DIRECT.GET.TOOLS_DEAD", `{"seq":1}`),
	pub("read the last dead letter", "$JS.API.DIRECT.GET.TOOLS_DEAD.tools.dead.local", ""),
	pub("read dead letters by the older API", "$JS.API.STREAM.MSG.GET.TOOLS_DEAD", `{"seq":1}`),
	pub("have dead letters delivered", "$JS.API.CONSUMER.CREATE.TOOLS_DEAD.x", `{"stream_name":"TOOLS_DEAD","config":{"name":"x","ack_policy":"none","deliver_subject":"_EXECUTOR.x"}}`),
	pub("have results delivered", "$JS.API.CONSUMER.CREATE.TOOLS_RESULT.x", `{"stream_name":"TOOLS_RESULT","config":{"name":"x","ack_policy":"none","deliver_subject":"_EXECUTOR.x"}}`),
	pub("delete the queue's consumer", "$JS.API.CONSUMER.DELETE.TOOLS_EXEC.local", ""),
	pub("pause the queue", "$JS.API.CONSUMER.PAUSE.TOOLS_EXEC.local", `{"pause_until":"2100-01-01T00:00:00Z"}`),
	pub("purge the queue", "$JS.API.STREAM.PURGE.TOOLS_EXEC", ""),
	pub("purge results", "$JS.API.STREAM.PURGE.TOOLS_RESULT", ""),
	pub("purge contracts", "$JS.API.STREAM.PURGE.KV_TOOLS_CONTRACTS", ""),
	pub("delete one result", "$JS.API.STREAM.MSG.DELETE.TOOLS_RESULT", `{"seq":1}`),
	pub("delete one contract", "$JS.API.STREAM.MSG.DELETE.KV_TOOLS_CONTRACTS", `{"seq":1}`),
	pub("delete a stream", "$JS.API.STREAM.DELETE.TOOLS_EXEC", ""),
	pub("delete who is there", "$JS.API.STREAM.DELETE.KV_TOOLS_EXECUTORS", ""),
	pub("change a stream", "$JS.API.STREAM.UPDATE.TOOLS_EXEC", `{"name":"TOOLS_EXEC"}`),
	pub("make a stream of the queue", "$JS.API.STREAM.CREATE.TOOLS_EXEC", `{"name":"TOOLS_EXEC"}`),
	pub("make a stream of its own", "$JS.API.STREAM.CREATE.EVIL", `{"name":"EVIL","mirror":{"name":"TOOLS_DEAD"}}`),
	pub("take a snapshot", "$JS.API.STREAM.SNAPSHOT.TOOLS_DEAD", `{"deliver_subject":"_EXECUTOR.x"}`),
	pub("list streams", "$JS.API.STREAM.LIST", ""),
	pub("ask the system account", "$SYS.REQ.SERVER.PING", ""),
	pub("acknowledge in another stream", "$JS.ACK.TOOLS_DEAD.x.1.1.1.1700000000000000000.0", "+ACK"),
	pub("ask another service", "$SRV.INFO.other", ""),
}

// Rights of executors that serve does not use in this test; doctor tries the others.
var executorMay = []attempt{
	pub("make a consumer for an engine", "$JS.API.CONSUMER.CREATE.TOOLS_EXEC.dagger.tools.exec.dagger", `{"stream_name":"TOOLS_EXEC","action":"create","config":{"name":"dagger","durable_name":"dagger","filter_subject":"tools.exec.dagger","ack_policy":"explicit"}}`),
	pub("count what waits", "$JS.API.STREAM.INFO.TOOLS_EXEC", `{"subjects_filter":"tools.exec.>"}`),
	pub("take a place of a limit", "tools.limit.gpu.1", "{}"),
	pub("see the places of limits", "$JS.API.STREAM.INFO.TOOLS_LIMITS", `{"subjects_filter":"tools.limit.>"}`),
	pub("give a place back", "$JS.API.STREAM.MSG.DELETE.TOOLS_LIMITS", `{"seq":1}`),
	pub("read a contract", "$JS.API.DIRECT.GET.KV_TOOLS_CONTRACTS.$KV.TOOLS_CONTRACTS.good/1_0", ""),
	pub("watch contracts", "$JS.API.CONSUMER.CREATE.KV_TOOLS_CONTRACTS.w", `{"stream_name":"KV_TOOLS_CONTRACTS","config":{"name":"w","ack_policy":"none","deliver_subject":"_EXECUTOR.test.w"}}`),
	pub("count contracts", "$JS.API.STREAM.INFO.KV_TOOLS_CONTRACTS", ""),
	pub("read contracts in one go", "$JS.API.DIRECT.GET.KV_TOOLS_CONTRACTS", `{"multi_last":["$KV.TOOLS_CONTRACTS.>"]}`),
	pub("answer flow control of contracts", "$JS.FC.KV_TOOLS_CONTRACTS.x.y", ""),
	pub("acknowledge in the form of later servers", "$JS.ACK._.HASH.TOOLS_EXEC.local.1.1.1.1700000000000000000.0", "+ACK"),
	pub("stop watching contracts", "$JS.API.CONSUMER.DELETE.KV_TOOLS_CONTRACTS.w", ""),
}

var operatorMay = []attempt{
	pub("list streams", "$JS.API.STREAM.LIST", ""),
	pub("read a dead letter", "$JS.API.DIRECT.GET.TOOLS_DEAD", `{"seq":1}`),
	pub("read a result", "$JS.API.DIRECT.GET.TOOLS_RESULT.tools.reply."+victim+".result", ""),
	pub("look at a consumer", "$JS.API.CONSUMER.INFO.TOOLS_EXEC.local", ""),
	pub("register a contract", "$KV.TOOLS_CONTRACTS.good/1_0", `{"name":"good"}`),
	pub("replay a dead letter", "tools.exec.local", `{"tool":"system_info"}`),
	pub("run a tool", "tools.run", `{"tool":"system_info"}`),
	pub("ping services", "$SRV.PING.executor", ""),
	sub("hear the fleet", "tools.>"),
	sub("hear the bell", "tools.bell.>"),
	sub("hear contracts", "$KV.TOOLS_CONTRACTS.>"),
	sub("hear JetStream's advisories", "$JS.EVENT.>"),
	sub("read its inbox", "_INBOX.operator.>"),
}

var operatorMayNot = []attempt{
	sub("hear everything", ">"),
	sub("read agents' inboxes", "_INBOX.>"),
	sub("read an agent's inbox", "_INBOX.planner.>"),
	sub("read executors' inboxes", "_EXECUTOR.>"),
	sub("hear the system account", "$SYS.>"),
	sub("hear what is acknowledged", "$JS.ACK.>"),
	pub("ask the system account", "$SYS.REQ.SERVER.PING", ""),
	pub("reload the server", "$SYS.REQ.SERVER.RELOAD", ""),
	pub("write into an agent's inbox", "_INBOX.planner.abc", "{}"),
	pub("write a bucket that is not the fleet's", "$KV.OTHER.x", "{}"),
}

// TestRights starts NATS with configs/nats/executor.conf, has the operator provision, the executor serve and agents work, and
// then tries what each of them may and may not do.
func TestRights(t *testing.T) {
	s := startFleetServer(t, "executor.conf")
	configuration := writeFile(t, "executor.yaml", serveConfig)

	// Nobody has provisioned: an executor may not make streams, and says what is to be done.
	out, code := s.program(t, "executor", "serve", "--config", configuration, "--http", "off", "--data", t.TempDir())
	if code != 1 || !strings.Contains(out, "executor provision") || !strings.Contains(out, "$JS.API.STREAM.CREATE.TOOLS_EXEC") {
		t.Errorf("serve before provision: %d\n%s", code, out)
	}
	if out, code := s.program(t, "operator", "provision", "--config", configuration); code != 0 || strings.Count(out, "made") < 9 {
		t.Fatalf("provision: %d\n%s", code, out)
	}
	operator, planner, reviewer, executor := s.as(t, "operator"), s.as(t, "planner"), s.as(t, "reviewer"), s.as(t, "executor")

	if out, code := s.program(t, "executor", "doctor", "--config", configuration); code != 0 || !strings.Contains(out, "all that an executor needs") || !strings.Contains(out, "none is running") {
		t.Errorf("doctor: %d\n%s", code, out)
	}
	served := startServe(t, s.url("executor"), "--tools", "../../configs/tools/system_info", "--tools", "../../configs/tools/text_analyzer")

	t.Run("an agent works", func(t *testing.T) { agentWorks(t, planner, s) })
	t.Run("an operator works", func(t *testing.T) { operatorWorks(t, operator, s, configuration) })
	t.Run("a doctor for executors", func(t *testing.T) {
		out, code := s.program(t, "executor", "doctor", "--config", configuration)
		if code != 0 || !strings.Contains(out, "all that an executor needs") || !strings.Contains(out, "1, with 4 slots") {
			t.Errorf("%d\n%s", code, out)
		}
	})

	// A run of another agent, to be read, forged and stopped.
	request := shell("echo private")
	request.ID = victim
	if result := wait(t, begin(t, newClient(t, reviewer.nc), request)); result.Stdout != "private\n" {
		t.Fatalf("%+v", result)
	}
	eventually(t, "all is said about all runs", func() bool {
		return len(stored(t, operator.nc, "TOOLS_EXEC", "tools.exec.>")) == 0 && types(stored(t, operator.nc, "TOOLS_REPLY", "tools.reply."+victim+".status")) == "started finished"
	})
	before := streamsOf(t, operator.nc)
	tried := 0
	for _, part := range []struct {
		who  *intruder
		may  bool
		list []attempt
	}{
		{planner, false, agentMayNot}, {executor, false, executorMayNot}, {operator, false, operatorMayNot},
		{planner, true, agentMay}, {operator, true, operatorMay}, {executor, true, executorMay},
	} {
		word := map[bool]string{true: "may", false: "may not"}[part.may]
		t.Run(part.who.user+" "+word, func(t *testing.T) {
			for _, a := range part.list {
				tried++
				denied, answer := part.who.try(a)
				verb := strings.Replace(a.verb, "queue", "subscribe", 1)
				switch {
				case part.may && denied != "":
					t.Errorf("%s: may not %s", a.name, denied)
				case part.may && strings.Contains(answer, `"error"`) && !strings.Contains(answer, "policy"):
					t.Errorf("%s: %s", a.name, answer)
				case !part.may && denied != verb+" "+a.subject:
					t.Errorf("%s: %s %s is allowed; denied was %q, the answer %q", a.name, a.verb, a.subject, denied, answer)
				}
			}
			t.Logf("%d attempts", len(part.list))
		})
		if !part.may {
			if after := streamsOf(t, operator.nc); after != before {
				t.Errorf("what %s may not do changed the streams from\n%s\nto\n%s", part.who.user, before, after)
			}
		}
	}
	t.Logf("%d attempts in all", tried)

	t.Run("by the library", func(t *testing.T) { agentByLibrary(t, planner) })
	t.Run("ids", func(t *testing.T) { agentAndIDs(t, planner, reviewer) })
	t.Run("what permissions cannot do", func(t *testing.T) { beyondPermissions(t, s, planner, reviewer, executor, operator) })

	t.Run("after a restart of NATS", func(t *testing.T) {
		s.stop()
		s.start()
		eventually(t, "the executor is there again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			d, err := newClient(t, planner.nc).Discover(ctx, "")
			return err == nil && len(d.Executors) == 1
		})
		if result := wait(t, begin(t, newClient(t, planner.nc), client.Request{Tool: "system_info"})); result.Status != contracts.Succeeded {
			t.Errorf("%+v", result)
		}
	})
	served.stop()
	if log := served.log.String(); strings.Contains(log, "NATS denied") {
		t.Errorf("the executor was denied something:\n%s", log)
	}
}

// program runs the program as a user of the server and returns all that it printed, and its exit code.
func (s *fleetServer) program(t *testing.T, user string, args ...string) (string, int) {
	t.Helper()
	if args[0] == "serve" || user == "executor" {
		args = append(args, "--server", s.url(user))
	} else {
		args = append(args, "--server", s.url(user), "--inbox-prefix", "_INBOX."+user)
	}
	return runProgram(t, args...)
}

// runProgram runs the program and returns all that it printed, and its exit code.
func runProgram(t *testing.T, args ...string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "XDG_STATE_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// streamsOf are the streams of the account, with their subjects and what they hold; but not that of presence, which changes.
func streamsOf(t *testing.T, nc *nats.Conn) string {
	t.Helper()
	reply, err := nc.Request("$JS.API.STREAM.LIST", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Streams []struct {
			Config json.RawMessage
			State  struct {
				First     uint64 `json:"first_seq"`
				Last      uint64 `json:"last_seq"`
				Messages  uint64
				Consumers int `json:"consumer_count"`
			}
		}
	}
	if err := json.Unmarshal(reply.Data, &list); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range list.Streams {
		if !bytes.Contains(s.Config, []byte("KV_TOOLS_EXECUTORS")) {
			var config struct{ Name string }
			if err := json.Unmarshal(s.Config, &config); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s, configuration %x: %+v", config.Name, crc32.ChecksumIEEE(s.Config), s.State))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// agentWorks: all that an agent's client does is allowed.
func agentWorks(t *testing.T, planner *intruder, s *fleetServer) {
	planner.forget()
	c := newClient(t, planner.nc)
	d, err := c.Discover(t.Context(), "")
	if err != nil || len(d.Executors) != 1 || len(d.Tools) != 2 {
		t.Fatalf("discover: %+v, %v", d, err)
	}
	if list, err := c.Declarations(t.Context(), "", "openai"); err != nil || len(list) != 2 {
		t.Errorf("declarations: %v, %v", list, err)
	}
	accepted, err := c.Submit(t.Context(), shell("for i in 1 2 3; do echo line $i; done"))
	if err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	for event, err := range c.Follow(accepted.ID).Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		output.Write(event.Data)
	}
	if output.String() != "line 1\nline 2\nline 3\n" {
		t.Errorf("followed: %q", &output)
	}
	run := begin(t, c, shell("sleep 60"))
	if err := c.Cancel(t.Context(), run.ID); err != nil {
		t.Fatal(err)
	}
	if result := wait(t, run); result.Status != contracts.Cancelled {
		t.Errorf("cancelled: %+v", result)
	}
	if state, err := c.State(t.Context(), accepted.ID); err != nil || state.Result == nil {
		t.Errorf("state: %+v, %v", state, err)
	}
	reply, err := planner.nc.Request("tools.run", []byte(`{"tool": "system_info"}`), 10*time.Second)
	if err != nil || !bytes.Contains(reply.Data, []byte(`"succeeded"`)) {
		t.Errorf("a bare request: %v, %v", reply, err)
	}
	// The queue, with answers to an inbox of its own.
	inbox, err := planner.nc.SubscribeSync(planner.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := planner.nc.Request("tools.exec.local", []byte(`{"tool": "system_info", "reply_to": "`+inbox.Subject+`"}`), 5*time.Second); err != nil || !bytes.Contains(reply.Data, []byte("TOOLS_EXEC")) {
		t.Errorf("queue: %v, %v", reply, err)
	}
	if m, err := inbox.NextMsg(10 * time.Second); err != nil || m.Header.Get(contracts.HeaderType) != contracts.TypeStarted {
		t.Errorf("copies: %v, %v", m, err)
	}
	if denied := planner.denied(); denied != "" {
		t.Errorf("the agent was denied %s", denied)
	}
	for _, args := range [][]string{{"run", "text_analyzer", "--arg", "text=to be or not to be"}, {"tools"}, {"result", accepted.ID}, {"logs", accepted.ID}} {
		if out, code := s.program(t, "planner", args...); code != 0 {
			t.Errorf("executor %v: %d\n%s", args, code, out)
		}
	}
}

// operatorWorks: so does an operator.
func operatorWorks(t *testing.T, operator *intruder, s *fleetServer, configuration string) {
	operator.forget()
	run := begin(t, newClient(t, operator.nc), shell("sleep 60"))
	eventually(t, "ps shows a run", func() bool {
		out, code := s.program(t, "operator", "ps", "--json")
		return code == 0 && strings.Contains(out, run.ID) && strings.Contains(out, `"running"`)
	})
	if out, code := s.program(t, "operator", "cancel", run.ID); code != 0 {
		t.Errorf("cancel: %d\n%s", code, out)
	}
	if out, code := s.program(t, "operator", "provision", "--config", configuration); code != 0 || strings.Contains(out, "made") {
		t.Errorf("provision: %d\n%s", code, out)
	}
	// A dead letter.
	if _, err := operator.nc.Request("tools.exec.local", []byte(`{"tol": "system_info"}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dead letter is there", func() bool {
		list := stored(t, operator.nc, "TOOLS_DEAD", "tools.dead.*")
		return len(list) == 1 && bytes.Contains(list[0].Data, []byte("tol"))
	})
	js, err := jetstream.New(operator.nc)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.KeyValue(t.Context(), "TOOLS_CONTRACTS")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), "good/1_0", []byte("{}")); err != nil {
		t.Error(err)
	}
	executors, err := js.KeyValue(t.Context(), "TOOLS_EXECUTORS")
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := executors.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("who is there: %v, %v", keys, err)
	}
	if denied := operator.denied(); denied != "" {
		t.Errorf("the operator was denied %s", denied)
	}
}

// agentByLibrary: the same as the library does it. What it waits for is the denial, not the timeout that it would get.
func agentByLibrary(t *testing.T, planner *intruder) {
	js, err := jetstream.New(planner.nc)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, do func(context.Context) error) {
		t.Helper()
		planner.forget()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- do(ctx) }()
		select {
		case <-planner.heard:
			cancel()
			<-done
		case err := <-done:
			t.Errorf("%s: not denied, but %v", what, err)
		}
	}
	try("open a stream", func(ctx context.Context) error { _, err := js.Stream(ctx, "TOOLS_RESULT"); return err })
	try("open a bucket", func(ctx context.Context) error { _, err := js.KeyValue(ctx, "TOOLS_EXECUTORS"); return err })
	try("open a consumer", func(ctx context.Context) error { _, err := js.Consumer(ctx, "TOOLS_EXEC", "local"); return err })
	try("make an ordered consumer", func(ctx context.Context) error {
		_, err := js.OrderedConsumer(ctx, "TOOLS_RESULT", jetstream.OrderedConsumerConfig{})
		return err
	})
	try("make a stream", func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "EVIL", Sources: []*jetstream.StreamSource{{Name: "TOOLS_RESULT"}}})
		return err
	})
	try("delete a stream", func(ctx context.Context) error { return js.DeleteStream(ctx, "TOOLS_RESULT") })
	try("list the queues", func(ctx context.Context) error { _, _, err := newClient(t, planner.nc).Queues(ctx, 10); return err })
	try("publish a result", func(ctx context.Context) error {
		_, err := js.Publish(ctx, "tools.reply."+victim+".result", []byte("{}"), jetstream.WithExpectLastSequencePerSubject(0))
		return err
	})
}

// agentAndIDs: an agent cannot find out ids; who names none has one that can be counted up to.
func agentAndIDs(t *testing.T, planner, reviewer *intruder) {
	planner.forget()
	for _, id := range []string{"*", ">", "victim*", "victim-*", "*.status", "", "../victim", victim + ".result"} {
		question, _ := json.Marshal(map[string]any{"id": id, "snapshot": true})
		reply, err := planner.nc.Request("tools.follow", question, 5*time.Second)
		if err != nil || reply.Header.Get("Nats-Service-Error-Code") != "400" {
			t.Errorf("follow %q: %+v, %v", id, reply, err)
		}
	}
	// What it is told without asking for a run by its id has no ids.
	reply, err := planner.nc.Request("tools.discover", nil, 5*time.Second)
	if err != nil || bytes.Contains(reply.Data, []byte(victim)) {
		t.Errorf("discover: %s, %v", reply.Data, err)
	}
	// A wildcard is no id for a cancel either.
	if err := planner.nc.Publish("tools.cancel.>", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := planner.nc.Request("tools.run", []byte(`{"tool": "system_info", "reply_to": "tools.cancel.*"}`), 5*time.Second); err != nil {
		t.Error(err)
	}

	// Without an id a run is named by its place in the queue, and the places of one's own requests tell those of others.
	own := acceptedOf(t, planner, `{"tool": "system_info"}`)
	others := acceptedOf(t, reviewer, `{"tool": "system_info"}`)
	created, seq := "", uint64(0)
	if _, err := fmt.Sscanf(strings.ReplaceAll(own.ID, "-", " "), "%s %d", &created, &seq); err != nil {
		t.Fatalf("%q: %v", own.ID, err)
	}
	guess := fmt.Sprintf("%s-%d", created, seq+1)
	if guess != others.ID {
		t.Fatalf("guessed %q, it is %q; if ids without an id cannot be guessed any more, docs/security.md is to say so", guess, others.ID)
	}
	run := newClient(t, planner.nc).Follow(guess)
	defer run.Close()
	if result := wait(t, run); result.ID != others.ID {
		t.Errorf("%+v", result)
	}
}

// acceptedOf streams a tool and returns what the front door says first about it.
func acceptedOf(t *testing.T, who *intruder, request string) contracts.Event {
	t.Helper()
	inbox, err := who.nc.SubscribeSync(who.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Unsubscribe()
	if err := who.nc.PublishRequest("tools.stream", inbox.Subject, []byte(request)); err != nil {
		t.Fatal(err)
	}
	var accepted contracts.Event
	for {
		m, err := inbox.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(contracts.HeaderType) == contracts.TypeAccepted {
			if err := json.Unmarshal(m.Data, &accepted); err != nil {
				t.Fatal(err)
			}
		}
		if len(m.Data) == 0 {
			return accepted
		}
	}
}

// beyondPermissions: a user names the subject of an answer, and NATS does not ask whether it may publish there. These are the
// ways that docs/security.md warns of. Where one does not work any more, the page is to say so.
func beyondPermissions(t *testing.T, s *fleetServer, planner, reviewer, executor, operator *intruder) {
	// The acknowledgement of a request goes wherever the agent says: here it becomes a "result".
	if err := planner.nc.PublishRequest("tools.exec.local", "tools.reply.junk-0123456789.result", []byte(`{"tool": "system_info"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "junk in the stream of results", func() bool {
		list := stored(t, operator.nc, "TOOLS_RESULT", "tools.reply.junk-0123456789.result")
		return len(list) == 1 && bytes.HasPrefix(list[0].Data, []byte(`{"stream":"TOOLS_EXEC"`))
	})
	// As orders to JetStream it is refused: they have no field "stream" (jetstream.strict), or no body at all.
	consumers := func() string {
		t.Helper()
		reply, err := operator.nc.Request("$JS.API.CONSUMER.NAMES.TOOLS_EXEC", nil, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return string(reply.Data)
	}
	before := consumers()
	for _, order := range []string{"STREAM.PURGE.TOOLS_RESULT", "STREAM.DELETE.TOOLS_RESULT", "STREAM.MSG.DELETE.TOOLS_RESULT", "STREAM.UPDATE.TOOLS_RESULT",
		"STREAM.CREATE.EVIL", "CONSUMER.DELETE.TOOLS_EXEC.local", "CONSUMER.PAUSE.TOOLS_EXEC.local", "CONSUMER.RESET.TOOLS_EXEC.local", "CONSUMER.CREATE.TOOLS_EXEC.evil"} {
		for range 3 {
			if err := planner.nc.PublishRequest("tools.cancel.nothing-of-this-name", "$JS.API."+order, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := planner.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if result := wait(t, begin(t, newClient(t, reviewer.nc), client.Request{Tool: "system_info"})); result.Status != contracts.Succeeded {
		t.Errorf("afterwards: %+v", result)
	}
	if after := consumers(); after != before {
		t.Errorf("the consumers were %s and are %s", before, after)
	}
	// Nor as somebody's acknowledgement: that, as a place for answers, the server reserves.
	planner.forget()
	planner.nc.PublishRequest("tools.cancel.nothing-of-this-name", "$JS.ACK.TOOLS_EXEC.local.1.1.1.1700000000000000000.0", nil)
	select {
	case <-planner.heard:
	case <-time.After(5 * time.Second):
		t.Error("an answer may go to $JS.ACK")
	}
	// Services answer wherever they are asked to: why agents may not ask them.
	if err := operator.nc.PublishRequest("$SRV.INFO.executor", "tools.reply.srv-0123456789.result", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what a service says about itself, in the stream of results", func() bool {
		return len(stored(t, operator.nc, "TOOLS_RESULT", "tools.reply.srv-0123456789.result")) == 1
	})
	if list := stored(t, operator.nc, "TOOLS_RESULT", "tools.reply."+victim+".result"); len(list) != 1 {
		t.Errorf("%d results are left", len(list))
	}
	// The answers to a request go into the inbox of another, if it is known by name.
	inbox, err := reviewer.nc.SubscribeSync(reviewer.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Unsubscribe()
	if err := reviewer.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := planner.nc.PublishRequest("tools.run", inbox.Subject, []byte(`{"tool": "system_info"}`)); err != nil {
		t.Fatal(err)
	}
	if m, err := inbox.NextMsg(10 * time.Second); err != nil || m.Header.Get(contracts.HeaderType) != contracts.TypeResult {
		t.Errorf("%v, %v", m, err)
	}
	// An executor can write what it has stored wherever it likes: with rights on streams it is trusted with all of them.
	if _, err := executor.nc.Request("tools.reply.evil-0123456789.status", []byte(`{"name": "evil"}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := executor.nc.PublishRequest("$JS.API.DIRECT.GET.TOOLS_REPLY.tools.reply.evil-0123456789.status", "$KV.TOOLS_CONTRACTS.evil/1_0", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a contract that an executor wrote", func() bool {
		list := stored(t, operator.nc, "KV_TOOLS_CONTRACTS", "$KV.TOOLS_CONTRACTS.evil/1_0")
		return len(list) == 1 && strings.Contains(string(list[0].Data), "evil")
	})
}

// beforeTheirTime are rights of executors that doctor does not ask for: they are not used yet, or not always.
var beforeTheirTime = []string{
	"$JS.ACK.*.*.TOOLS_EXEC.>", "_R_.>", "$JS.API.DIRECT.GET.KV_TOOLS_CONTRACTS", "$JS.API.DIRECT.GET.KV_TOOLS_CONTRACTS.>",
}

// TestEveryRightIsNeeded takes the rights of the executor in configs/nats/executor.conf away, one at a time: doctor names the
// one that is missing, as it stands there.
func TestEveryRightIsNeeded(t *testing.T) {
	lacking := map[string]*server.User{} // by what it lacks: "publish tools.dead.*"
	s := &fleetServer{tb: t, file: "executor.conf", dir: t.TempDir(), port: freePort(t), change: func(options *server.Options) {
		var executor *server.User
		for _, user := range options.Users {
			if user.Username == "executor" {
				executor = user
			}
		}
		without := func(verb, subject string) {
			user := &server.User{Username: fmt.Sprintf("executor-%d", len(lacking)), Password: executor.Password, Account: executor.Account, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: slices.Clone(executor.Permissions.Publish.Allow)}, Subscribe: &server.SubjectPermission{Allow: slices.Clone(executor.Permissions.Subscribe.Allow)}}}
			from := &user.Permissions.Publish.Allow
			if verb == "subscribe" {
				from = &user.Permissions.Subscribe.Allow
			}
			*from = slices.DeleteFunc(*from, func(one string) bool { return one == subject })
			lacking[verb+" "+subject] = user
			options.Users = append(options.Users, user)
		}
		for _, subject := range executor.Permissions.Publish.Allow {
			without("publish", subject)
		}
		for _, subject := range executor.Permissions.Subscribe.Allow {
			without("subscribe", subject)
		}
	}}
	for variable, user := range passwords {
		t.Setenv(variable, passwordOf+user)
	}
	s.start()
	t.Cleanup(s.stop)
	configuration := writeFile(t, "executor.yaml", serveConfig)
	if out, code := s.program(t, "operator", "provision", "--config", configuration); code != 0 {
		t.Fatalf("provision: %d\n%s", code, out)
	}
	connect := func(t *testing.T, user string) *bus.Bus {
		config := bus.DefaultConfig()
		config.URLs, config.User, config.Password = []string{fmt.Sprintf("nats://127.0.0.1:%d", s.port)}, user, passwordOf+"executor"
		b, err := bus.Connect(t.Context(), config, user, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	t.Run("all of them", func(t *testing.T) {
		if denied, err := connect(t, "executor").Rights(t.Context(), []string{contracts.EngineLocal}, ""); err != nil || len(denied) > 0 {
			t.Errorf("%q, %v", denied, err)
		}
	})
	t.Run("without one", func(t *testing.T) {
		for what, user := range lacking {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				denied, err := connect(t, user.Username).Rights(t.Context(), []string{contracts.EngineLocal}, "")
				verb, subject, _ := strings.Cut(what, " ")
				switch {
				case slices.Contains(beforeTheirTime, subject):
					if err != nil || len(denied) > 0 {
						t.Errorf("%q, %v", denied, err)
					}
				case subject == "_EXECUTOR.>":
					if err == nil || !strings.Contains(err.Error(), `subscribe: ["_EXECUTOR.>"]`) {
						t.Errorf("%q, %v", denied, err)
					}
				case err != nil || len(denied) == 0 || slices.ContainsFunc(denied, func(one string) bool { return !below(one, verb, subject) }):
					t.Errorf("%q, %v", denied, err)
				}
			})
		}
	})
	t.Run("by the program", func(t *testing.T) {
		user := lacking["publish $JS.ACK.TOOLS_EXEC.>"].Username
		cmdURL := fmt.Sprintf("nats://%s:%sexecutor@127.0.0.1:%d", user, passwordOf, s.port)
		out, code := runProgram(t, "doctor", "--config", configuration, "--server", cmdURL)
		if code != 0 || !strings.Contains(out, "this user may not publish $JS.ACK.TOOLS_EXEC.>") || !strings.Contains(out, `add to its permissions publish: ["$JS.ACK.TOOLS_EXEC.>"]`) {
			t.Errorf("%d\n%s", code, out)
		}
	})
	t.Logf("%d rights, %d of them for later", len(lacking), len(beforeTheirTime))
}

// below reports whether a right that doctor names, as "publish tools.dead.local", is what a permission allows.
func below(right, verb, pattern string) bool {
	named, subject, _ := strings.Cut(right, " ")
	return named == verb && server.SubjectsCollide(subject, pattern)
}

// TestAccounts: with an account for each agent (configs/nats/accounts.conf) an agent cannot have answers sent anywhere but to
// itself, and all else works as ever.
func TestAccounts(t *testing.T) {
	s := startFleetServer(t, "accounts.conf")
	configuration := writeFile(t, "executor.yaml", strings.Replace(serveConfig, "shell: true}", `shell: true, reply_prefixes: ["_INBOX.", "_R_."]}`, 1))
	if out, code := s.program(t, "operator", "provision", "--config", configuration); code != 0 {
		t.Fatalf("provision: %d\n%s", code, out)
	}
	served := startServe(t, s.url("executor"), "--config", configuration, "--tools", "../../configs/tools/system_info", "--tools", "../../configs/tools/text_analyzer")
	operator, planner, reviewer := s.as(t, "operator"), s.as(t, "planner"), s.as(t, "reviewer")
	t.Run("an agent works", func(t *testing.T) {
		c := newClient(t, planner.nc)
		if d, err := c.Discover(t.Context(), ""); err != nil || len(d.Executors) != 1 || len(d.Tools) != 2 {
			t.Fatalf("discover: %+v, %v", d, err)
		}
		if reply, err := planner.nc.Request("tools.run", []byte(`{"tool": "system_info"}`), 10*time.Second); err != nil || !bytes.Contains(reply.Data, []byte(`"succeeded"`)) {
			t.Errorf("run: %v, %v", reply, err)
		}
		if reply, err := planner.nc.Request("tools.exec.local.high", []byte(`{"tool": "system_info"}`), 10*time.Second); err != nil || !bytes.Contains(reply.Data, []byte("TOOLS_EXEC")) {
			t.Errorf("queue: %v, %v", reply, err)
		}
		request := shell("seq 1 200000")
		for _, run := range []*client.Run{begin(t, c, request), c.Follow(request.ID)} {
			bytes := 0
			for event, err := range run.Events(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				bytes += len(event.Data)
			}
			if bytes != 1288895 {
				t.Errorf("%d bytes of output", bytes)
			}
		}
		run := begin(t, c, shell("sleep 60"))
		if err := c.Cancel(t.Context(), run.ID); err != nil {
			t.Fatal(err)
		}
		if result := wait(t, run); result.Status != contracts.Cancelled {
			t.Errorf("cancelled: %+v", result)
		}
		if out, code := s.program(t, "planner", "run", "text_analyzer", "--arg", "text=to be or not to be"); code != 0 {
			t.Errorf("run: %d\n%s", code, out)
		}
	})
	t.Run("an agent is alone", func(t *testing.T) {
		hears, err := planner.nc.SubscribeSync(">")
		if err != nil {
			t.Fatal(err)
		}
		defer hears.Unsubscribe()
		inbox, err := reviewer.nc.SubscribeSync("_INBOX.reviewer.known")
		if err != nil {
			t.Fatal(err)
		}
		defer inbox.Unsubscribe()
		planner.nc.Flush()
		reviewer.nc.Flush()
		// Answers into another's inbox, into the stream of results, into the contracts, to the executors.
		for _, to := range []string{"_INBOX.reviewer.known", "tools.reply.junk-0123456789.result", "$KV.TOOLS_CONTRACTS.evil/1_0", "_EXECUTOR.test.known"} {
			for _, subject := range []string{"tools.run", "tools.stream", "tools.follow", "tools.discover", "tools.exec.local", "tools.cancel.nothing-of-this-name"} {
				planner.nc.PublishRequest(subject, to, []byte(`{"tool": "system_info"}`))
			}
			planner.nc.Publish("tools.exec.local", []byte(`{"tool": "system_info", "reply_to": "`+to+`"}`))
			planner.nc.Publish(to, []byte("{}"))
		}
		// What it is told of all that are its own attempts, in its own account.
		result := wait(t, begin(t, newClient(t, reviewer.nc), client.Request{Tool: "text_analyzer", Args: map[string]any{"text": "of-the-reviewer"}}))
		if result.Status != contracts.Succeeded {
			t.Errorf("%+v", result)
		}
		eventually(t, "the queue is empty", func() bool {
			return len(stored(t, operator.nc, "TOOLS_EXEC", "tools.exec.>")) == 0
		})
		for {
			m, err := hears.NextMsg(settled)
			if err != nil {
				break
			}
			if bytes.Contains(m.Data, []byte(result.ID)) || bytes.Contains(m.Data, []byte("of-the-reviewer")) {
				t.Errorf("the planner hears of the reviewer: %s %s", m.Subject, m.Data)
			}
		}
		if m, err := inbox.NextMsg(settled); err == nil {
			t.Errorf("in the reviewer's inbox: %s", m.Data)
		}
		if list := stored(t, operator.nc, "TOOLS_RESULT", "tools.reply.junk-0123456789.result"); len(list) > 0 {
			t.Errorf("a result: %s", list[0].Data)
		}
		for _, subject := range []string{"tools.reply.junk.result", "$JS.API.STREAM.NAMES", "$JS.API.DIRECT.GET.TOOLS_RESULT", "$KV.TOOLS_CONTRACTS.x", "tools.dead.local", "$SRV.PING", "tools.bell.local"} {
			hears.Unsubscribe()
			if m, err := planner.nc.Request(subject, nil, time.Second); err == nil && !bytes.Contains(m.Data, []byte(`"err_code":10039`)) { // JetStream not enabled for account
				t.Errorf("%s is answered: %s", subject, m.Data)
			}
		}
	})
	served.stop()
	if log := served.log.String(); strings.Contains(log, "NATS denied") {
		t.Errorf("the executor was denied something:\n%s", log)
	}
}
