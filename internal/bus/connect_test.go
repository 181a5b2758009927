package bus

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestConnectSaysWhatIsWrong(t *testing.T) {
	secured, err := StartServer(ServerConfig{Port: -1, Dir: t.TempDir(), Token: "the-right-token", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secured.Stop)
	address := strings.SplitN(secured.URL(), "@", 2)[1]
	for name, test := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"nobody listens": {func(c *Config) { c.URLs = []string{"nats://127.0.0.1:1"}; c.ConnectWait = contracts.Seconds(0.3) },
			[]string{"connect to NATS at nats://127.0.0.1:1", "is a server running there?"}},
		"no credentials": {func(c *Config) { c.URLs = []string{"nats://" + address} }, []string{"does not accept these credentials"}},
		"wrong token": {func(c *Config) { c.URLs = []string{"nats://" + address}; c.Token = "wrong" },
			[]string{"does not accept these credentials", "nats.creds"}},
		"token in the URL is not shown": {func(c *Config) { c.URLs = []string{"nats://secret-word@" + address} }, []string{"nats://***@" + address}},
		"missing creds file":            {func(c *Config) { c.Creds = "/nowhere/x.creds" }, []string{"nats.creds", "no such file"}},
		"missing nkey file":             {func(c *Config) { c.NKey = "/nowhere/x.nk" }, []string{"nats.nkey", "/nowhere/x.nk"}},
		"two ways to say who":           {func(c *Config) { c.Token = "a"; c.User = "b" }, []string{"one of creds, nkey, user or token"}},
		"half of a certificate":         {func(c *Config) { c.TLS.Cert = "x.pem" }, []string{"cert and key belong together"}},
		"bad prefix":                    {func(c *Config) { c.SubjectPrefix = "to.ols" }, []string{"nats.subject_prefix"}},
		"TLS against plain":             {func(c *Config) { c.URLs = []string{"tls://" + address}; c.Token = "the-right-token" }, []string{"nats.tls"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(secured.URL())
			test.change(&c)
			begin := time.Now()
			b, err := Connect(t.Context(), c, "x", zerolog.Nop())
			if err == nil {
				b.Close()
				t.Fatal("connected")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret-word") {
				t.Errorf("error shows a credential: %s", err)
			}
			if took := time.Since(begin); name != "nobody listens" && took > time.Duration(c.ConnectWait) {
				t.Errorf("took %s although waiting cannot mend it", took)
			}
		})
	}
}

func TestConnectWithEachKindOfCredentials(t *testing.T) {
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	seed, _ := key.Seed()
	seedFile := filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(seedFile, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options server.Options
		change  func(*Config)
	}{
		"user and password": {server.Options{Username: "u", Password: "p"}, func(c *Config) { c.User, c.Password = "u", "p" }},
		"token":             {server.Options{Authorization: "tok"}, func(c *Config) { c.Token = "tok" }},
		"nkey":              {server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}, func(c *Config) { c.NKey = seedFile }},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Port, test.options.Host, test.options.JetStream, test.options.StoreDir, test.options.NoSigs = -1, "127.0.0.1", true, t.TempDir(), true
			s, err := server.NewServer(&test.options)
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			defer func() { s.Shutdown(); s.WaitForShutdown() }()
			if !s.ReadyForConnections(5 * time.Second) {
				t.Fatal("not ready")
			}
			c := testConfig("nats://" + s.Addr().String())
			test.change(&c)
			b, err := Connect(t.Context(), c, "x", zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
		})
	}
}

// A server that starts a little later than we do is waited for.
func TestConnectWaitsForTheServer(t *testing.T) {
	port, dir := freePort(t), t.TempDir()
	c := testConfig("nats://127.0.0.1:" + itoa(port))
	connected := make(chan error, 1)
	go func() {
		b, err := Connect(context.Background(), c, "early", zerolog.Nop())
		if err == nil {
			b.Close()
		}
		connected <- err
	}()
	select {
	case err := <-connected:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s := startServerAt(t, port, dir)
	defer s.Stop()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
}

// What the server forbids is named, in the log and in the error that follows from it.
func TestDeniedSubjectsAreNamed(t *testing.T) {
	t.Parallel() // it waits for an answer that does not come
	options := &server.Options{Port: -1, Host: "127.0.0.1", JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		Users: []*server.User{{Username: "limited", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.CREATE.TOOLS_RESULT"}}}}}}
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(5 * time.Second) {
		t.Fatal("not ready")
	}
	c := testConfig("nats://" + s.Addr().String())
	c.User, c.Password = "limited", "p"
	var log logged
	b, err := Connect(t.Context(), c, "x", zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // what is asked before that is answered
	defer cancel()
	err = b.Declare(ctx, nil)
	if err == nil {
		t.Fatal("declared a stream that is forbidden")
	}
	for _, text := range []string{err.Error(), log.String()} {
		if !strings.Contains(text, "$JS.API.STREAM.CREATE.TOOLS_RESULT") {
			t.Errorf("%q does not name the denied subject", text)
		}
	}
}

func TestReconnectCallsAndSurvives(t *testing.T) {
	s := startRestartable(t)
	b := connect(t, s.URL())
	again := make(chan struct{}, 1)
	b.OnReconnect(func() { again <- struct{}{} })
	s.Stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Connected() })
	if err := b.nc.Publish("x", nil); err != nats.ErrReconnectBufExceeded {
		t.Errorf("a publish without a connection: %v, want an error at once", err)
	}
	s.start()
	select {
	case <-again:
	case <-time.After(10 * time.Second):
		t.Fatal("not connected again")
	}
}
