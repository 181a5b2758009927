package dagger

import (
	"context"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	sdk "dagger.io/dagger"
	"github.com/dagger/querybuilder"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// session is a connection to an engine that many runs share.
type session struct {
	conn     *connection
	client   *sdk.Client
	log      zerolog.Logger
	begun    time.Time
	version  string
	platform string
	logs     *logs
	program  string // id of the program that stands beside tools; "": there is none, and why says why
	why      string
	key      []byte // of the names of secrets

	ctx  context.Context // ends with the session; its cause says why
	stop context.CancelCauseFunc
	work sync.WaitGroup // the goroutines of the session

	failed int // probes in a row

	mu     sync.Mutex
	runs   int
	left   bool // no new runs
	idle   chan struct{}
	images map[string]knownImage
	paths  map[imagePath]seen
	rooms  map[string]string // ids of directories for places in memory
}

// errEnded is why a session ended that nobody missed.
var errEnded = errors.New("the session is not needed any more")

// open connects. ctx bounds the attempt.
func open(ctx context.Context, config Config, key []byte, log zerolog.Logger) (*session, error) {
	conn, err := dial(ctx, config)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, log: log, begun: time.Now(), logs: &logs{followers: map[trace]*follower{}}, key: key, idle: make(chan struct{})}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	if s.client, err = sdk.Connect(ctx, sdk.WithConn(conn)); err == nil {
		err = s.begin(ctx, config)
	}
	if err != nil {
		s.end(err)
		if ctx.Err() != nil {
			return nil, unavailable("the Dagger engine did not answer in time (execution.dagger.connect_timeout)")
		}
		return nil, unavailable("the Dagger engine does not answer as it should: %s", short(err))
	}
	return s, nil
}

// begin asks who is there, opens the log stream and hands over the program that stands beside tools.
func (s *session) begin(ctx context.Context, config Config) error {
	var who struct{ Version, DefaultPlatform string }
	if err := s.root().SelectFields("version", "defaultPlatform").Bind(&who).Execute(ctx); err != nil {
		return err
	}
	s.version, s.platform = who.Version, who.DefaultPlatform
	stream, err := s.logs.subscribe(s.ctx, ctx, s.conn)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errNoStream):
		s.log.Warn().Err(err).Str("version", who.Version).Msg("the Dagger engine has no log stream; output of its runs comes at their end")
	case err != nil:
		s.log.Warn().Err(err).Msg("the log stream of the Dagger engine cannot be opened; output of its runs comes at their end until it can")
	}
	if s.logs.is(err); !errors.Is(err, errNoStream) {
		s.work.Go(func() { s.readLogs(stream) })
	}
	s.work.Go(s.watch)
	program, err := besideTools(config, who.DefaultPlatform)
	if err != nil {
		s.why = err.Error()
		s.log.Warn().Str("reason", s.why).Msg("no program of ours can run in containers of Dagger; their output is text and comes at the end of a run")
		return nil //nolint:nilerr // runs can do without it
	}
	return s.root().Select("host").Select("file").Arg("path", program).Select("id").Bind(&s.program).Execute(ctx)
}

// besideTools returns the program that can run in any container of an engine with that platform.
func besideTools(config Config, platform string) (string, error) {
	if platform != "linux/"+runtime.GOARCH {
		return "", fmt.Errorf("the engine runs %s, this program is for %s/%s", platform, runtime.GOOS, runtime.GOARCH)
	}
	program, err := config.Program, error(nil)
	if program == "" {
		if program, err = os.Executable(); err == nil {
			program, err = asStarted(program, "/proc/self/exe", config.DataDir)
		}
	}
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return "", err
	}
	file, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("%s is not a program for Linux: %w", program, err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s needs libraries that images may not have; build it with CGO_ENABLED=0", program)
		}
	}
	return program, nil
}

// asStarted is where a program is that runs: at its path, or, where that has another one since an upgrade, in a copy in dir of what runs.
func asStarted(path, running, dir string) (string, error) {
	own, err := os.Stat(running)
	if err != nil || dir == "" {
		return path, nil
	}
	if there, err := os.Stat(path); err == nil && os.SameFile(own, there) {
		return path, nil
	}
	in, err := os.Open(running)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(dir, "program-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		_ = os.Remove(out.Name())
		return "", fmt.Errorf("copy this program, which is not at its path any more: %w", err)
	}
	copied := filepath.Join(filepath.Dir(out.Name()), "program")
	return copied, os.Rename(out.Name(), copied)
}

func (s *session) root() *querybuilder.Selection { return s.client.QueryBuilder() }

// readLogs reads the stream, and opens it again where it ends before the session; nil is one that could not be opened yet.
func (s *session) readLogs(stream io.ReadCloser) {
	for wait := retryFirst / 10; ; wait = min(2*wait, retryFirst) {
		if stream != nil {
			begun := time.Now()
			err := s.logs.read(stream)
			_ = stream.Close()
			if s.ctx.Err() != nil {
				return
			}
			if time.Since(begun) > time.Second {
				wait = retryFirst / 10
			}
			s.log.Debug().Err(err).Msg("the log stream of the Dagger engine ended; opening it again")
		}
		for ; ; wait = min(2*wait, retryMost) {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-s.ctx.Done():
				timer.Stop()
				return
			}
			var err error
			attempt, cancel := context.WithTimeout(s.ctx, probeTimeout)
			stream, err = s.logs.subscribe(s.ctx, attempt, s.conn)
			cancel()
			if err == nil {
				s.logs.is(nil)
				break
			}
			_ = s.ask(s.ctx) // ends the session where nobody is there
		}
	}
}

// watch ends the session when its program does.
func (s *session) watch() {
	select {
	case <-s.conn.gone():
		s.stop(fmt.Errorf("the Dagger CLI ended: %s", s.conn.child.said.orElse("it said nothing")))
	case <-s.ctx.Done():
	}
}

// ask asks the engine for a sign of life. An error that leaves no doubt ends the session.
func (s *session) ask(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var version string
	err := s.root().Select("version").Bind(&version).Execute(ctx)
	if err != nil && nobodyThere(err) {
		s.gone(err)
	}
	return err
}

func (s *session) gone(err error) {
	s.stop(fmt.Errorf("the Dagger engine is gone: %s", short(err)))
}

// probe asks now and then, from one goroutine. Several failures in a row end the session; others who ask do not count, as they may ask
// at the same time, or not wait for the answer.
func (s *session) probe() {
	err := s.ask(s.ctx)
	if err == nil {
		s.failed = 0
		return
	}
	if s.failed++; s.failed >= probesFailed {
		s.gone(err)
	}
}

// use counts a run in; ok is false where the session takes none any more.
func (s *session) use() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || s.ctx.Err() != nil {
		return false
	}
	s.runs++
	return true
}

func (s *session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs--; s.runs == 0 && s.left {
		close(s.idle)
	}
}

// leave lets no new run in; idle is closed after the last.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return
	}
	if s.left = true; s.runs == 0 {
		close(s.idle)
	}
}

// end ends the session now, and returns when nothing is left of it.
func (s *session) end(why error) {
	s.stop(why)
	if s.client != nil {
		_ = s.client.Close() // which returns none
	} else {
		_ = s.conn.Close()
	}
	s.work.Wait()
	s.conn.transport.CloseIdleConnections()
}

// sessions keeps one session open.
type sessions struct {
	config Config
	log    zerolog.Logger
	key    []byte // of the names of secrets; one for all sessions, so that results in the cache outlive a session
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	current *session
	why     *contracts.Error // there is none
	changed chan struct{}    // closed and made anew when one of the two changes
	asked   chan struct{}    // somebody needs one: do not wait any longer
}

func newSessions(config Config, log zerolog.Logger) *sessions {
	s := &sessions{config: config, log: log, key: make([]byte, 32), changed: make(chan struct{}), asked: make(chan struct{}, 1)}
	_, _ = rand.Read(s.key) // which never fails
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.work.Go(s.keep)
	return s
}

// close ends all sessions; runs that are still there are lost.
func (s *sessions) close() {
	s.stop()
	s.work.Wait()
}

func (s *sessions) set(current *session, why *contracts.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.why = current, why
	close(s.changed)
	s.changed = make(chan struct{})
}

// keep connects, probes, and connects again, until close.
func (s *sessions) keep() {
	wait := retryFirst
	for s.ctx.Err() == nil {
		current, err := s.open()
		if err != nil {
			why := contracts.AsError(err)
			s.log.Debug().Str("reason", why.Message).Msg("no connection to a Dagger engine; trying again")
			s.set(nil, why)
			s.pause(wait)
			wait = min(2*wait, retryMost)
			continue
		}
		wait = retryFirst
		for current != nil {
			s.set(current, nil)
			current = s.hold(current)
		}
	}
	s.set(nil, unavailable("this executor is stopping"))
}

// open makes one attempt to connect.
func (s *sessions) open() (*session, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.connectTimeout())
	defer cancel()
	current, err := open(ctx, s.config, s.key, s.log)
	if err == nil {
		s.log.Info().Str("version", current.version).Bool("live_output", current.logs.missing() == nil && current.program != "").Msg("connected to a Dagger engine")
	}
	return current, err
}

func (s *sessions) connectTimeout() time.Duration {
	if s.config.ConnectTimeout > 0 {
		return s.config.ConnectTimeout
	}
	return connectTimeout
}

// pause waits; somebody who asks for a session shortens it to retryFirst.
func (s *sessions) pause(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	soon := time.NewTimer(min(wait, retryFirst))
	defer soon.Stop()
	select {
	case <-s.asked:
	default:
	}
	select {
	case <-timer.C:
		return
	case <-s.ctx.Done():
		return
	case <-s.asked:
	}
	select {
	case <-soon.C:
	case <-s.ctx.Done():
	}
}

// hold returns when the session is over. Or it is too old: then it serves until there is another, which is returned, and is ended as
// soon as its last run is.
func (s *sessions) hold(current *session) (next *session) {
	type opened struct {
		session *session
		err     error
	}
	var opening chan opened // not nil: another is being made
	var old <-chan time.Time
	if s.config.SessionTimeout > 0 {
		timer := time.NewTimer(s.config.SessionTimeout)
		defer timer.Stop()
		old = timer.C
	}
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			current.probe()
		case <-old:
			s.log.Debug().Msg("a session of the Dagger engine has come to its age (execution.dagger.session_timeout)")
			old, opening = nil, make(chan opened, 1)
			s.work.Go(func() {
				another, err := s.open()
				opening <- opened{another, err}
			})
		case another := <-opening:
			if opening = nil; another.err != nil {
				s.log.Debug().Str("reason", contracts.AsError(another.err).Message).Msg("no new session with the Dagger engine; the old one goes on")
				old = time.After(retryMost)
				continue
			}
			s.set(another.session, nil) // before the other is left: at no time is there none
			current.leave()
			s.work.Go(func() { s.finish(current) })
			return another.session
		case <-current.ctx.Done():
			why := unavailable("%s; connecting again", context.Cause(current.ctx))
			s.log.Warn().Str("reason", why.Message).Msg("lost the connection to the Dagger engine")
			s.set(nil, why)
			current.end(context.Cause(current.ctx))
			if opening != nil {
				return (<-opening).session
			}
			return nil
		case <-s.ctx.Done():
			current.end(errEnded)
			if opening == nil {
				return nil
			}
			return (<-opening).session // which the next call ends
		}
	}
}

// finish ends a session that was left when its last run has ended. It is probed until then: a run would wait for ever for an engine
// that hangs.
func (s *sessions) finish(left *session) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			left.probe()
			continue
		case <-left.idle:
		case <-left.ctx.Done():
		case <-s.ctx.Done():
		}
		left.end(errEnded)
		return
	}
}

// get returns the session, with a run counted in. Where one is being made, it waits for it, as long as wait.
func (s *sessions) get(ctx context.Context, wait time.Duration) (*session, error) {
	clock := time.NewTimer(wait)
	defer clock.Stop()
	for {
		s.mu.Lock()
		current, why, changed := s.current, s.why, s.changed
		s.mu.Unlock()
		if current != nil && current.use() {
			return current, nil
		}
		if why != nil {
			select {
			case s.asked <- struct{}{}:
			default:
			}
			return nil, why
		}
		select {
		case <-changed:
		case <-clock.C:
			return nil, unavailable("still connecting to the Dagger engine")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
