package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger"
	"github.com/praxis-sdk/executor/internal/engines/docker"
	"github.com/praxis-sdk/executor/internal/engines/local"
	"github.com/praxis-sdk/executor/internal/executor"
)

// engineTable is where a new engine is one line. Each is built only if the configuration enables it; an error means that
// this instance cannot serve it.
var engineTable = []engineEntry{
	{contracts.EngineLocal, func(c configs.Config) bool { return c.Execution.Local.Enabled },
		func(c configs.Config, dataDir string, log zerolog.Logger) (engines.Engine, error) {
			return local.New(c.LocalEngine(dataDir), log)
		}},
	{contracts.EngineDocker, func(c configs.Config) bool { return c.Execution.Docker.Enabled },
		func(c configs.Config, dataDir string, log zerolog.Logger) (engines.Engine, error) {
			return docker.New(c.DockerEngine(dataDir), log)
		}},
	{contracts.EngineDagger, func(c configs.Config) bool { return c.Execution.Dagger.Enabled },
		func(c configs.Config, dataDir string, log zerolog.Logger) (engines.Engine, error) {
			return dagger.New(c.DaggerEngine(dataDir), log)
		}},
}

type engineEntry struct {
	name    string
	enabled func(configs.Config) bool
	build   func(config configs.Config, dataDir string, log zerolog.Logger) (engines.Engine, error)
}

// enabledEngines are those that a configuration enables.
func enabledEngines(config configs.Config) []string {
	var names []string
	for _, e := range engineTable {
		if e.enabled(config) {
			names = append(names, e.name)
		}
	}
	return names
}

// service is one running instance.
type service struct {
	config   configs.Config
	name     string
	dataDir  string
	log      zerolog.Logger
	started  time.Time
	bus      *bus.Bus
	engines  map[string]engines.Engine
	registry *executor.Registry
	shared   *bus.Registry // the contracts that all executors have; nil: not wanted
	core     *executor.Executor
	slots    *bus.Slots
	presence *bus.Presence
	http     *httpServer
	open     atomic.Bool // requests are taken
	draining sync.Once
	drains   chan struct{} // closed when it takes no more
}

// collectAt is how much, in percent of what lives, may be allocated until garbage is collected.
const collectAt = 200

// newService joins the parts of an instance: it connects, declares and listens, but takes no requests yet. Contracts that
// are wrong are left out and told to complain; without that they keep the instance from starting.
func newService(ctx context.Context, config configs.Config, dataDir string, complain func(error), log zerolog.Logger) (*service, error) {
	s := &service{config: config, dataDir: dataDir, log: log, started: time.Now(), engines: map[string]engines.Engine{}, registry: executor.NewRegistry(), drains: make(chan struct{})}
	if s.name = config.Executor.Name; s.name == "" {
		s.name = instanceName()
	}
	// What lives is small and what passes through is much: a later collection costs a few MiB and a tenth less of the
	// processor. GOGC decides where it is set.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	ok := false
	defer func() {
		if !ok {
			s.close()
		}
	}()
	if err := s.registry.Load(config.Tools.Directories); err != nil {
		if complain == nil {
			return nil, wrongFile(fmt.Errorf("tools.directories: these contracts are wrong:\n%w", err))
		}
		complain(err)
	}
	if err := s.buildEngines(); err != nil {
		return nil, err
	}
	var err error
	if s.bus, err = bus.Connect(ctx, config.NATS, s.name, log); err != nil {
		return nil, err
	}
	if err := s.bus.SpillTo(dataDir, int64(config.Executor.SpillBytes)); err != nil {
		log.Warn().Err(err).Msg("while NATS is away, tools will wait on their write: output cannot be kept on disk (executor.data_dir)")
	}
	names := s.engineNames()
	if err := s.bus.Declare(ctx, names); err != nil {
		return nil, err
	}
	if writable := config.WritableTools(); len(writable) > 0 {
		log.Warn().Strs("policy.mounts", writable).Msg(writableTools)
	}
	if config.Tools.Registry {
		s.shared = s.bus.Registry(func(entries map[string][][]byte) { s.registry.SetRegistered(entries, log) })
		if !s.bus.AuthRequired() {
			log.Warn().Msg("NATS asks nobody who he is: whoever reaches it can register tools, which are then run here; give it users (configs/nats), or set tools.registry to false")
		}
		if err := s.shared.Read(ctx); err != nil {
			return nil, err
		}
		s.registry.OnMiss(func() { s.shared.CatchUp(context.Background()) })
	}
	core := config.Core(s.name)
	core.ResultInlineBytes = min(core.ResultInlineBytes, int(s.bus.MaxPayload()/2))
	ownInbox := config.NATS.InboxPrefix
	s.presence = s.bus.Presence(s.state)
	s.core = executor.New(core, coreBus{s.bus, s.presence}, s.engines, s.registry, ownInbox, log)
	s.slots = bus.NewSlots(config.Executor.Slots)
	if err := s.bus.OnCancel(s.core.Cancel); err != nil {
		return nil, fmt.Errorf("listen for cancels: %w", err)
	}
	if err := s.bus.OnCancelOnce(func(id string) {
		ctx, cancel := context.WithTimeout(context.Background(), cancelWait)
		defer cancel()
		s.core.EndWaiting(ctx, id)
	}); err != nil {
		return nil, fmt.Errorf("listen for cancels: %w", err)
	}
	s.bus.OnReconnect(func() { go s.core.LookForCancels(context.Background()) })
	if s.http, err = listenHTTP(config.HTTP.Listen, s.ready); err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	ok = true
	return s, nil
}

// coreBus is the bus as the core knows it.
type coreBus struct {
	*bus.Bus
	presence *bus.Presence
}

func (b coreBus) Serving(ctx context.Context) (map[string][]string, bool) {
	return b.presence.Serving(ctx)
}

func (b coreBus) Limit(tool, key string, n int) executor.Limit { return b.Bus.Limit(tool, key, n) }

func (b coreBus) Journal(ctx context.Context, id string, attempt int, copies contracts.Copies, freed func()) executor.Journal {
	return b.Bus.Journal(ctx, id, attempt, copies, freed)
}

func (s *service) buildEngines() error {
	var reasons []string
	late := map[string]*lateEngine{}
	for _, e := range engineTable {
		if !e.enabled(s.config) {
			reasons = append(reasons, fmt.Sprintf("%s: not enabled (execution.%s.enabled)", e.name, e.name))
			continue
		}
		engine, err := e.build(s.config, s.dataDir, s.log)
		if err != nil {
			s.log.Warn().Str("engine", e.name).Str("reason", contracts.AsError(err).Message).Msg("engine not served")
			reasons = append(reasons, e.name+": "+contracts.AsError(err).Message)
			late[e.name] = &lateEngine{why: err, build: func() (engines.Engine, error) { return e.build(s.config, s.dataDir, s.log) }}
			continue
		}
		s.engines[e.name] = engine
	}
	if len(s.engines) == 0 {
		return fmt.Errorf("there is no engine to serve:\n%s", strings.Join(reasons, "\n"))
	}
	for name, engine := range late {
		s.engines[name] = engine
	}
	return nil
}

func (s *service) engineNames() []string {
	var names []string
	for name := range s.engines {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// run takes requests until ctx ends, then drains: it finishes what runs, up to the drain time, and leaves the rest to
// others. It closes the service. ready is called when all can be asked of it; it may be nil.
func (s *service) run(ctx context.Context, ready func() error) error {
	defer s.close()
	work, stopWork := context.WithCancelCause(context.Background())
	defer stopWork(nil)
	background, stopBackground := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stopBackground()

	s.core.Check(ctx)
	if err := s.presence.Tell(ctx); err != nil {
		s.log.Warn().Err(err).Msg("cannot tell the fleet that this executor is there")
	}
	parts.Go(func() { s.presence.Announce(background) })
	parts.Go(func() { s.core.Keep(background) })
	if s.shared != nil {
		parts.Go(func() { s.shared.Follow(background) })
	}
	parts.Go(func() { s.registry.Watch(background, s.log) })
	parts.Go(func() { s.core.WatchHealth(background, func(string, error) { s.presence.Changed() }) })
	unserved := s.bus.Unserved(s.presence, s.core.Handle)
	care, stopCare := context.WithCancel(ctx)
	var cares sync.WaitGroup
	defer cares.Wait() // while the drain time runs
	defer stopCare()
	cares.Go(func() { unserved.Care(care, work) })
	door, err := s.bus.OpenFrontDoor(bus.Desk{
		Admit: s.core.Admit,
		Stored: func(engine string) {
			if s.core.Unserved(engine) {
				unserved.Kick(engine)
			}
		},
		ReplyTo: func(subject string) error { return s.config.Policy.CheckReplyTo(subject, s.config.NATS.InboxPrefix) },
		Discover: func(ctx context.Context) (contracts.Discovery, error) {
			if s.shared != nil {
				s.shared.CatchUp(ctx) // who has just pushed a contract wants to see it
			}
			return s.discover(ctx)
		},
	}, programVersion())
	if err != nil {
		return err
	}
	parts.Go(func() {
		select {
		case <-ctx.Done():
		case <-background.Done(): // it did not come to taking requests
		}
		s.drain()
		door.Close()
		timer := time.NewTimer(time.Duration(s.config.Executor.DrainTimeout))
		defer timer.Stop()
		select {
		case <-timer.C:
			s.log.Warn().Msg("the drain time is over; stopping what still runs and leaving it to others")
			stopWork(executor.Draining)
		case <-background.Done():
		}
	})
	s.open.Store(true)
	s.log.Info().Str("executor", s.name).Strs("engines", s.engineNames()).Int("slots", s.slots.Total()).Int("tools", s.registry.Len()).
		Str("version", programVersion()).Msg("executor is ready")
	if ready != nil {
		if err := ready(); err != nil {
			return err
		}
	}
	if err := s.bus.Consume(ctx, work, s.intake()); err != nil {
		return err
	}
	s.log.Info().Msg("executor has stopped")
	return nil
}

func (s *service) drain() {
	s.draining.Do(func() {
		close(s.drains)
		s.presence.Changed() // others answer for what only this one served
		if busy := s.slots.Busy(); busy > 0 {
			s.log.Info().Int("running", busy).Stringer("drain_timeout", s.config.Executor.DrainTimeout).Msg("stopping: waiting for what runs; a second signal ends it at once")
		}
	})
}

func (s *service) isDraining() bool {
	select {
	case <-s.drains:
		return true
	default:
		return false
	}
}

// close releases what newService made.
func (s *service) close() {
	if s.http != nil {
		s.http.close()
	}
	for _, e := range s.engines {
		if c, ok := e.(io.Closer); ok {
			c.Close()
		}
	}
	if s.bus != nil {
		s.bus.Close()
	}
}

// intake is what is taken from the queues.
func (s *service) intake() bus.Intake {
	in := bus.Intake{Slots: s.slots, Weights: s.config.Weights(), Handle: s.core.Handle}
	for _, name := range s.engineNames() {
		one := bus.EngineIntake{Engine: name, Open: func() bool { return s.core.Healthy(name) == nil }}
		if n := s.config.EngineSlots(name); n > 0 {
			one.Slots = bus.NewSlots(n)
		}
		in.Engines = append(in.Engines, one)
	}
	return in
}

// cancelWait is how long one cancel of a run that nobody has may hold up the next.
const cancelWait = 5 * time.Second

// state is what the fleet is told about this instance.
func (s *service) state() contracts.Presence {
	p := contracts.Presence{
		Name: s.name, Version: programVersion(), Started: s.started.UTC(), Slots: s.slots.Total(), Busy: s.slots.Busy(),
		Engines: map[string]contracts.EnginePresence{}, Tools: s.registry.Len(), Drains: s.isDraining(),
	}
	for name, engine := range s.engines {
		state := contracts.EnginePresence{Ready: true}
		if tiered, ok := engine.(interface{ Tier() string }); ok {
			state.Tier = tiered.Tier()
		}
		if err := s.core.Healthy(name); err != nil {
			state.Ready, state.Reason = false, contracts.AsError(err).Message
		}
		p.Engines[name] = state
	}
	return p
}

func (s *service) discover(ctx context.Context) (contracts.Discovery, error) {
	fleet, err := s.presence.Fleet(ctx)
	if err != nil {
		return contracts.Discovery{}, err
	}
	d := contracts.Discovery{Type: "discovery", Prefix: s.bus.Subjects().Prefix(), Engines: []string{}, Executors: append([]contracts.Presence{}, fleet...), Tools: s.core.Tools(),
		Sources: s.registry.Sources(), Refused: s.registry.Refused()}
	d.Engines = slices.AppendSeq(d.Engines, maps.Keys(contracts.Serving(fleet)))
	slices.Sort(d.Engines)
	return d, nil
}

// ready is nil while requests are taken, else says why not.
func (s *service) ready() error {
	switch {
	case s.isDraining():
		return errors.New("draining")
	case !s.open.Load():
		return errors.New("starting")
	case !s.bus.Connected():
		return errors.New("no connection to NATS")
	}
	var reasons []string
	for name := range s.engines {
		if err := s.core.Healthy(name); err != nil {
			reasons = append(reasons, name+": "+contracts.AsError(err).Message)
		}
	}
	if len(reasons) == len(s.engines) {
		return errors.New(strings.Join(reasons, "; "))
	}
	return nil
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// instanceName is the host's name and four digits, so that many instances share a host.
func instanceName() string {
	host, err := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	if host = strings.Trim(notInNames.ReplaceAllString(host, "-"), "-"); err != nil || host == "" {
		host = "executor"
	}
	digits := make([]byte, 2)
	rand.Read(digits)
	return host[:min(len(host), 40)] + "-" + hex.EncodeToString(digits)
}

// slotsOf is how many runs an instance has at a time.
func slotsOf(configured int) int {
	if configured > 0 {
		return configured
	}
	return 4 * runtime.GOMAXPROCS(0)
}

// newLogger logs as the configuration says: for people on a terminal, as JSON elsewhere.
func newLogger(c configs.Log, w io.Writer) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	terminal := isTerminal(w)
	if c.Format == "console" || c.Format == "auto" && terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// taken reports whether an error says that an address is in use.
func taken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && strings.Contains(err.Error(), "address already in use")
}
