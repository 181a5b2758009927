package bus

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// startLimited starts a server with an operator, "admin", who may do all, and users that may not do some things.
func startLimited(t *testing.T, users ...*server.User) string {
	t.Helper()
	users = append(users, &server.User{Username: "admin", Password: "p"})
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("not ready")
	}
	return "nats://" + s.Addr().String()
}

func user(name string, publish, subscribe []string) *server.User {
	return &server.User{Username: name, Password: "p", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Deny: publish}, Subscribe: &server.SubjectPermission{Deny: subscribe}}}
}

func connectAs(t *testing.T, url, name string) *Bus {
	t.Helper()
	c := testConfig(url)
	c.User, c.Password = name, "p"
	b, err := Connect(t.Context(), c, "as-"+name, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// lastSequences are those of all streams: how many messages each has ever taken.
func lastSequences(t *testing.T, nc *nats.Conn) string {
	t.Helper()
	reply, err := nc.Request("$JS.API.STREAM.LIST", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Streams []struct {
			Config struct{ Name string }
			State  struct {
				Last      uint64 `json:"last_seq"`
				Consumers int    `json:"consumer_count"`
			}
		}
	}
	if err := json.Unmarshal(reply.Data, &list); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range list.Streams {
		lines = append(lines, fmt.Sprintf("%s %d %d", s.Config.Name, s.State.Last, s.State.Consumers))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Rights names exactly what the user may not do, and stores, makes and takes nothing.
func TestRights(t *testing.T) {
	engines := []string{contracts.EngineLocal}
	tests := map[string]struct {
		publish, subscribe []string
		want               []string
	}{
		"everything": {nil, nil, nil},
		"nocancel":   {nil, []string{"tools.cancel.*"}, []string{"subscribe tools.cancel.*"}},
		"noanswers": {[]string{"tools.reply.*.result", "tools.reply.*.output"}, nil,
			[]string{"publish tools.reply.*.output", "publish tools.reply.*.result"}},
		"nodoor": {nil, []string{"tools.run", "tools.stream", "$SRV.>"},
			[]string{"subscribe $SRV.>", "subscribe tools.run", "subscribe tools.stream"}},
		"nobell":   {nil, []string{"tools.bell.>"}, []string{"subscribe tools.bell.local", "subscribe tools.bell.local.*"}},
		"noanswer": {[]string{"_INBOX.>", "tools.bell.local.low"}, nil, []string{"publish _INBOX.>", "publish tools.bell.>"}},
		"notake": {[]string{"$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>"}, nil,
			[]string{"publish $JS.ACK.TOOLS_EXEC.>", "publish $JS.API.CONSUMER.MSG.NEXT.TOOLS_EXEC.*"}},
		"noread": {[]string{"$JS.API.DIRECT.GET.>"}, nil, []string{"publish $JS.API.DIRECT.GET.TOOLS_CANCEL.tools.cancel.*",
			"publish $JS.API.DIRECT.GET.TOOLS_EXEC", "publish $JS.API.DIRECT.GET.TOOLS_LIMITS.tools.limit.*.*", "publish $JS.API.DIRECT.GET.TOOLS_REPLY", "publish $JS.API.DIRECT.GET.TOOLS_REPLY.tools.reply.>",
			"publish $JS.API.DIRECT.GET.TOOLS_RESULT.tools.reply.>"}},
		"noinfo": {[]string{"$JS.API.INFO", "$JS.API.STREAM.INFO.KV_TOOLS_EXECUTORS", "$JS.API.CONSUMER.INFO.>"}, nil,
			[]string{"publish $JS.API.CONSUMER.INFO.TOOLS_EXEC.*", "publish $JS.API.INFO", "publish $JS.API.STREAM.INFO.KV_TOOLS_EXECUTORS"}},
		"nopresence": {[]string{"$JS.API.CONSUMER.*.KV_TOOLS_EXECUTORS.>", "$JS.API.STREAM.CREATE.>", "$JS.FC.>"}, nil,
			[]string{"publish $JS.API.CONSUMER.CREATE.KV_TOOLS_EXECUTORS.>", "publish $JS.API.CONSUMER.DELETE.KV_TOOLS_EXECUTORS.*",
				"publish $JS.API.STREAM.CREATE.KV_TOOLS_EXECUTORS", "publish $JS.FC.KV_TOOLS_CONTRACTS.>", "publish $JS.FC.KV_TOOLS_EXECUTORS.>"}},
		"noqueue": {[]string{"tools.exec.>", "tools.dead.*", "$KV.TOOLS_EXECUTORS.>"}, nil,
			[]string{"publish $KV.TOOLS_EXECUTORS.*", "publish tools.dead.local", "publish tools.exec.local", "publish tools.exec.local.high", "publish tools.exec.local.low"}},
	}
	var users []*server.User
	for name, test := range tests {
		users = append(users, user(name, test.publish, test.subscribe))
	}
	url := startLimited(t, users...)
	// An executor is there, and must not notice.
	admin := connectAs(t, url, "admin")
	if err := admin.Declare(t.Context(), engines); err != nil {
		t.Fatal(err)
	}
	noticed := make(chan string, 100)
	for _, subject := range []string{"tools.>", "$KV.>"} {
		sub, err := admin.nc.Subscribe(subject, func(m *nats.Msg) { noticed <- m.Subject })
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
	}
	if err := admin.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, admin.nc, "tools.exec.local", `{"tool": "waits"}`) // and nobody takes it
	before := lastSequences(t, admin.nc)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := connectAs(t, url, name)
			denied, err := b.Rights(t.Context(), engines, "")
			if err != nil || !slices.Equal(denied, test.want) {
				t.Errorf("%q, %v\nwant %q", denied, err, test.want)
			}
			if n := b.nc.NumSubscriptions(); n > 1 { // the one for replies is the library's
				t.Errorf("%d subscriptions are left", n)
			}
		})
	}
	if after := lastSequences(t, admin.nc); after != before {
		t.Errorf("the streams were\n%s\nand are\n%s", before, after)
	}
	for _, engine := range engines {
		consumer, err := admin.ensureConsumer(t.Context(), engine, contracts.PriorityNormal, look, &Declared{})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := consumer.Info(t.Context()); err != nil || info.NumPending != 1 || info.NumAckPending != 0 || info.Delivered.Consumer != 0 {
			t.Errorf("the queue: %+v, %v", info, err)
		}
	}
	// What is published on its way to be refused passes those who listen to everything; nothing else may.
	for {
		select {
		case subject := <-noticed:
			if !strings.Contains(subject, "doctor") && !strings.HasPrefix(subject, "tools.exec.local") && !strings.HasPrefix(subject, "tools.bell.local") && subject != "tools.dead.local" {
				t.Errorf("somebody heard %s", subject)
			}
			continue
		default:
		}
		break
	}
}

// Where there are no streams yet, nothing is denied because of that.
func TestRightsBeforeThereIsAnything(t *testing.T) {
	url := startLimited(t)
	b := connectAs(t, url, "admin")
	before := lastSequences(t, b.nc)
	denied, err := b.Rights(t.Context(), []string{contracts.EngineLocal}, "")
	if err != nil || len(denied) > 0 {
		t.Errorf("%q, %v", denied, err)
	}
	if after := lastSequences(t, b.nc); after != before || after != "" {
		t.Errorf("made %q", after)
	}
}
