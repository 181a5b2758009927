//go:build linux

package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ackWait is the lease of a request. Short, so that much can happen in a scenario.
const ackWait = 2 * time.Second

// maxAttempts bounds the starts of one request: high, because here executors die for a living.
const maxAttempts = 10

// fleet is what a scenario breaks: servers, executors with their links, and the tools' directory.
type fleet struct {
	t       *testing.T
	name    string
	logs    string
	dir     string // of the tools: what they write when they are started
	mark    string // value of a variable in the environment of all tools of this fleet
	random  *rand.Rand
	begun   time.Time
	servers []*server
	seats   []*seat
	nc      *nats.Conn // straight to the servers
	js      jetstream.JetStream
	system  *nats.Conn // of the system account

	mu     sync.Mutex
	faults map[string]int
	kinds  []string // of faults, in the order of their first time
	deaths []death
	left   int // processes that outlived their executor
}

// death is the kill of an executor.
type death struct {
	executor string
	at       time.Time
}

// seat is where an executor runs: a name, a link and a data directory, that the next one after it gets as well.
type seat struct {
	fleet  *fleet
	name   string // of the present one
	number int
	turn   int
	link   *link
	data   string
	config string
	*process
	from int64 // where the log of the present one begins
}

// options are what scenarios have different.
type options struct {
	servers   int    // 1, or 3 for a cluster with three replicas
	executors int    // 0: 3
	slots     int    // 0: 16, so that what comes back finds room
	spill     string // "": 64Mi
}

// newFleet starts servers and executors. All of it ends with the test.
func newFleet(t *testing.T, o options) *fleet {
	t.Helper()
	if o.executors == 0 {
		o.executors = 3
	}
	if o.slots == 0 {
		o.slots = 16
	}
	if o.spill == "" {
		o.spill = "64Mi"
	}
	f := &fleet{t: t, name: path.Base(t.Name()), logs: logDirectory(t), dir: t.TempDir(), begun: time.Now(),
		random: rand.New(rand.NewPCG(asked.seed, 1)), faults: map[string]int{}}
	f.mark = fmt.Sprintf("%d-%x", os.Getpid(), time.Now().UnixNano())
	f.writeTools()
	f.servers = startServers(t, f.logs, o.servers)
	f.nc = connect(t, f.servers)
	f.system = connect(t, f.servers, nats.UserInfo("system", "system"))
	var err error
	if f.js, err = jetstream.New(f.nc, jetstream.WithDefaultTimeout(3*time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range o.executors {
		s := &seat{fleet: f, number: i + 1, name: fmt.Sprintf("e%d", i+1), data: t.TempDir(), link: newLink(t, f.servers)}
		s.config = filepath.Join(f.dir, fmt.Sprintf("executor%d.yaml", s.number))
		text := fmt.Sprintf(`
nats: {urls: ["%s"], ack_wait: %s, replicas: %d, streams: {queue_bytes: 64Mi, reply_bytes: 2Gi, result_bytes: 256Mi, dead_bytes: 16Mi}}
executor: {slots: %d, max_attempts: %d, drain_timeout: 2s, data_dir: %s, spill_bytes: %s}
execution: {enable_sandboxing: false, max_output_bytes: 1Gi, local: {kill_grace: 0.5}}
tools: {directories: [%s]}
http: {listen: ""}
log: {level: debug, format: json}
`, strings.Join(s.link.urls, `", "`), ackWait, len(f.servers), o.slots, maxAttempts, s.data, o.spill, filepath.Join(f.dir, "tools"))
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f.seats = append(f.seats, s)
		s.start()
		if i == 0 {
			s.ready() // it makes the streams; the others find them
		}
	}
	for _, s := range f.seats {
		s.ready()
	}
	return f
}

func (s *seat) start() {
	if info, err := os.Stat(filepath.Join(s.fleet.logs, s.name+".log")); err == nil {
		s.from = info.Size()
	} else {
		s.from = 0
	}
	s.process = startProcess(s.fleet.t, s.fleet.logs, s.name, executorProgram, "serve", "--config", s.config, "--name", s.name)
}

func (s *seat) ready() {
	s.fleet.t.Helper()
	if !poll(60*time.Second, func() bool {
		if !s.alive() { // nobody told it to
			s.fleet.t.Errorf("%s has ended by itself: %s", s.name, tail(s.log, 5))
			s.start()
		}
		return s.said("executor is ready", s.from)
	}) {
		s.fleet.t.Errorf("%s is not ready within a minute: %s", s.name, tail(s.log, 5))
	}
}

// Faults. Each is counted for the table.

func (f *fleet) fault(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults[kind] == 0 {
		f.kinds = append(f.kinds, kind)
	}
	f.faults[kind]++
}

// crash kills an executor, and starts the next one in its seat, under the same name.
func (s *seat) crash() {
	s.fleet.fault("kill executor")
	s.kill()
	s.died()
	// What it ran is ended by its helpers, before anybody comes and cleans up.
	var found []string
	if !poll(5*time.Second, func() bool { found = s.fleet.processes(s.data); return len(found) == 0 }) {
		s.fleet.mu.Lock()
		s.fleet.left += len(found)
		s.fleet.mu.Unlock()
		s.fleet.t.Errorf("%s is dead, and %d processes of its tools live: %.5q", s.name, len(found), found)
	}
	s.start()
}

// died notes the death of the executor for the measurement of takeovers.
func (s *seat) died() {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.fleet.deaths = append(s.fleet.deaths, death{s.name, time.Now()})
}

// pause stops an executor, as a suspended machine does, for that long.
func (s *seat) pause(d time.Duration) {
	s.fleet.fault("stop executor")
	s.signal(syscall.SIGSTOP)
	time.Sleep(d) // it is away for that long
	s.signal(syscall.SIGCONT)
}

// roll replaces an executor as an upgrade does: the new one is ready before the old one is told to stop.
func (s *seat) roll() {
	s.fleet.fault("roll executor")
	old := s.process
	s.turn++
	s.name = fmt.Sprintf("e%d-%d", s.number, s.turn)
	s.start()
	s.ready()
	old.signal(syscall.SIGTERM)
	if code := old.wait(20 * time.Second); code != 0 {
		s.fleet.t.Errorf("%s ended with %d after SIGTERM: %s", old.name, code, tail(old.log, 5))
	}
}

// crashServer kills a server and starts it again after a pause.
func (f *fleet) crashServer(s *server, pause time.Duration) {
	f.fault("kill server")
	s.restart(pause)
	s.ready()
}

// any is one of the executors.
func (f *fleet) any() *seat { return f.seats[f.random.IntN(len(f.seats))] }

// between is a time between two others.
func (f *fleet) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.random.Int64N(int64(most-least)))
}

// heal makes everything whole again: what was done to processes and links ends.
func (f *fleet) heal() {
	f.t.Helper()
	for _, s := range f.servers {
		s.resume()
		if !s.alive() {
			s.start()
		}
	}
	for _, s := range f.servers {
		s.ready()
	}
	for _, s := range f.seats {
		s.link.heal()
		s.signal(syscall.SIGCONT)
		if !s.alive() {
			s.start()
		}
	}
	for _, s := range f.seats {
		s.ready()
	}
}

// stop ends all executors in order.
func (f *fleet) stop() {
	f.t.Helper()
	for _, s := range f.seats {
		s.signal(syscall.SIGTERM)
	}
	for _, s := range f.seats {
		if code := s.wait(20 * time.Second); code != 0 {
			f.t.Errorf("%s ended with %d after SIGTERM: %s", s.name, code, tail(s.log, 5))
		}
	}
}
