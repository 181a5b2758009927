//go:build linux

package chaos_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// server is a NATS server as a process of its own, at a place where it can be started again.
type server struct {
	*process
	tb      testing.TB
	name    string
	logs    string
	port    int
	monitor int
	config  string
}

// startServers starts one server, or a cluster of that many.
func startServers(t *testing.T, logs string, n int) []*server {
	t.Helper()
	ports := freePorts(t, 3*n)
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[3*i+2]))
	}
	servers := make([]*server, n)
	for i := range n {
		s := &server{tb: t, logs: logs, name: fmt.Sprintf("nats%d", i+1), port: ports[3*i], monitor: ports[3*i+1]}
		// write_deadline: who does not read is cut off after a second. no_advertise: clients know the servers by their links
		// alone, and do not learn a way around them.
		text := fmt.Sprintf("server_name: %s\nlisten: 127.0.0.1:%d\nhttp: 127.0.0.1:%d\nwrite_deadline: 1s\n"+
			"jetstream { store_dir: %q, max_mem: 256M, max_file: 8G }\n"+
			"accounts { SYS { users: [{user: system, password: system}] }, APP { jetstream: enabled, users: [{user: app, password: app}] } }\n"+
			"system_account: SYS\nno_auth_user: app\n", s.name, s.port, s.monitor, t.TempDir())
		if n > 1 {
			text += fmt.Sprintf("cluster { name: chaos, listen: 127.0.0.1:%d, no_advertise: true, routes: [%s] }\n", ports[3*i+2], strings.Join(routes, ", "))
		}
		s.config = filepath.Join(t.TempDir(), "nats.conf")
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		servers[i] = s
	}
	for _, s := range servers {
		s.ready()
	}
	return servers
}

func (s *server) start() {
	s.process = startProcess(s.tb, s.logs, s.name, serverProgram, "-c", s.config)
}

// healthy reports whether it serves, with all streams and consumers that it has.
func (s *server) healthy() bool {
	reply, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", s.monitor))
	if err != nil {
		return false
	}
	reply.Body.Close()
	return reply.StatusCode == http.StatusOK
}

func (s *server) ready() {
	s.tb.Helper()
	for deadline := time.Now().Add(60 * time.Second); !s.healthy(); time.Sleep(100 * time.Millisecond) { // it logs each time that it is not
		if time.Now().After(deadline) {
			s.tb.Errorf("%s is not healthy within a minute: %s", s.name, complaints(s.log))
			return
		}
	}
}

// restart kills it as a crash does and starts it again, after a pause or at once.
func (s *server) restart(pause time.Duration) {
	s.kill()
	if pause > 0 {
		time.Sleep(pause) // it is away for that long
	}
	s.start()
}

func (s *server) resume() { s.signal(syscall.SIGCONT) }

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// connect connects to any of the servers, directly, and stays so.
func connect(tb testing.TB, servers []*server, options ...nats.Option) *nats.Conn {
	tb.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, "nats://"+s.address())
	}
	nc, err := nats.Connect(strings.Join(urls, ","), append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.RetryOnFailedConnect(true), nats.Name("chaos"),
		nats.PingInterval(2 * time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// leader is the server that leads a stream, nil where there is none now.
func (f *fleet) leader(stream string) *server {
	reply, err := f.nc.Request("$JS.API.STREAM.INFO."+stream, nil, 2*time.Second)
	if err != nil {
		return nil
	}
	var info struct{ Cluster struct{ Leader string } }
	if json.Unmarshal(reply.Data, &info) != nil {
		return nil
	}
	for _, s := range f.servers {
		if s.name == info.Cluster.Leader {
			return s
		}
	}
	return nil
}

// stepDown has the leader of a stream step down; "" is that of the cluster's own group, the meta leader.
func (f *fleet) stepDown(stream string) bool {
	nc, subject := f.nc, "$JS.API.STREAM.LEADER.STEPDOWN."+stream
	if stream == "" {
		nc, subject = f.system, "$JS.API.META.LEADER.STEPDOWN"
	}
	reply, err := nc.Request(subject, nil, 2*time.Second)
	return err == nil && strings.Contains(string(reply.Data), `"success":true`)
}

// freePorts are below those that the system gives to whoever asks for any: nobody takes them while a server is away.
func freePorts(tb testing.TB, n int) []int {
	tb.Helper()
	var ports []int
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // all of them at the end, so that no two are the same
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	tb.Fatal("no ports are free")
	return nil
}
