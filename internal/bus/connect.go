package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Bus is one instance's connection to NATS and all that it does there. It may be used by many goroutines.
type Bus struct {
	config   Config
	name     string // of the instance
	log      zerolog.Logger
	subjects contracts.Subjects
	nc       *nats.Conn
	js       jetstream.JetStream
	streams  streams
	leases   *leases
	limits   *limits
	denied   denials
	spill    *spill        // nil: nothing is kept on disk
	patience time.Duration // patience, but for tests

	mu          sync.Mutex
	reconnected []func()
}

// Connect connects to NATS, waiting up to config.ConnectWait for a server, and from then on stays connected: it tries
// again for ever, with jitter. Close it at the end. Nothing is declared yet.
func Connect(ctx context.Context, config Config, name string, log zerolog.Logger) (*Bus, error) {
	subjects, err := contracts.NewSubjects(config.SubjectPrefix)
	if err != nil {
		return nil, fmt.Errorf("nats.subject_prefix: %w", err)
	}
	b := &Bus{config: config, name: name, log: log, subjects: subjects, patience: patience}
	options, err := config.options()
	if err != nil {
		return nil, err
	}
	options = append(options,
		nats.Name("executor "+name),
		config.inbox("."+name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(500*time.Millisecond, time.Second),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(20*time.Second),
		// A server that takes nothing for that long, as behind a cable that was pulled, is away. Until then every
		// publish waits.
		nats.FlusherTimeout(2*patience),
		// Nothing is buffered for a server that is away: what must not be lost is kept by the journal, which knows
		// what was stored and in which order.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(b.asyncError),
		nats.PermissionErrOnSubscribe(true),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn().Err(err).Msg("connection to NATS lost; trying again until it is back")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			log.Info().Str("server", b.URL()).Msg("connected to NATS again")
			b.mu.Lock()
			calls := b.reconnected
			b.mu.Unlock()
			for _, call := range calls {
				call()
			}
		}),
	)
	if b.nc, err = dial(ctx, config, options, log); err != nil {
		return nil, err
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(requestTimeout),
		jetstream.WithPublishAsyncTimeout(requestTimeout), jetstream.WithPublishAsyncMaxPending(64<<10)); err != nil {
		b.nc.Close()
		return nil, err
	}
	b.leases = newLeases(b)
	b.limits = newLimits(b)
	return b, nil
}

// dial tries until there is a connection, the wait is over, or the answer is a refusal that waiting does not mend.
func dial(ctx context.Context, config Config, options []nats.Option, log zerolog.Logger) (*nats.Conn, error) {
	where := redact(config.URLs)
	connect := func() (*nats.Conn, error) { return nats.Connect(strings.Join(config.URLs, ","), options...) }
	if config.Context != "" {
		where = "the context " + strconv.Quote(config.Context)
		connect = func() (*nats.Conn, error) {
			nc, _, err := natscontext.Connect(config.Context, options...)
			return nc, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(config.ConnectWait))
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		nc, err := connect()
		if err == nil {
			return nc, nil
		}
		if fatal := explainConnect(err); fatal != nil {
			return nil, fmt.Errorf("connect to NATS at %s: %w", where, fatal)
		}
		log.Debug().Err(err).Msg("NATS cannot be reached yet")
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) { // somebody does not want to wait
				return nil, context.Canceled
			}
			return nil, fmt.Errorf("connect to NATS at %s: %w; is a server running there? (nats.urls, or --server)", where, err)
		}
	}
}

// explainConnect returns the error with advice where trying again cannot help, else nil.
func explainConnect(err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) || strings.Contains(strings.ToLower(text), "authorization"):
		return fmt.Errorf("%w: the server does not accept these credentials (nats.creds, nkey, user, token, or a token in the URL)", err)
	case errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted) || strings.Contains(text, "x509:") || strings.Contains(text, "tls:"):
		return fmt.Errorf("%w: look at nats.tls and the scheme of the URL (tls:// or nats://)", err)
	case strings.HasPrefix(text, "unknown context") || strings.HasPrefix(text, "invalid context"):
		return fmt.Errorf("%w; `nats context ls` lists those there are", err)
	case strings.Contains(text, "parse ") || errors.Is(err, nats.ErrInvalidArg):
		return fmt.Errorf("%w: a URL is nats://host:4222", err)
	}
	return nil
}

// redact hides credentials in URLs.
func redact(urls []string) string {
	shown := make([]string, len(urls))
	for i, u := range urls {
		shown[i] = u
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			scheme := ""
			if s := strings.Index(u, "://"); s >= 0 && s < at {
				scheme = u[:s+3]
			}
			shown[i] = scheme + "***" + u[at:]
		}
	}
	return strings.Join(shown, ",")
}

// options turns the configuration into those of nats.go.
func (c Config) options() ([]nats.Option, error) {
	var options []nats.Option
	ways := 0
	if c.Creds != "" {
		ways++
		if _, err := os.Stat(c.Creds); err != nil {
			return nil, fmt.Errorf("nats.creds: %w", err)
		}
		options = append(options, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		ways++
		o, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("nats.nkey: %s: %w", c.NKey, err)
		}
		options = append(options, o)
	}
	if c.User != "" {
		ways++
		options = append(options, nats.UserInfo(c.User, c.Password))
	}
	if c.Token != "" {
		ways++
		options = append(options, nats.Token(c.Token))
	}
	if ways > 1 {
		return nil, errors.New("nats: give one of creds, nkey, user or token, not several")
	}
	if c.TLS.CA != "" {
		options = append(options, nats.RootCAs(c.TLS.CA))
	}
	if c.TLS.Cert != "" || c.TLS.Key != "" {
		if c.TLS.Cert == "" || c.TLS.Key == "" {
			return nil, errors.New("nats.tls: cert and key belong together")
		}
		options = append(options, nats.ClientCert(c.TLS.Cert, c.TLS.Key))
	}
	return options, nil
}

// inbox has answers sent where this user may read them: below the prefix of the command, that of the context (its options
// are applied before), or that of executors.
func (c Config) inbox(own string) nats.Option {
	return func(o *nats.Options) error {
		return nats.CustomInboxPrefix(cmp.Or(c.Inbox, o.InboxPrefix, c.InboxPrefix) + own)(o)
	}
}

// Close ends the connection at once. What must be finished before has been waited for by its owner.
func (b *Bus) Close() {
	b.limits.close()
	b.leases.close()
	b.nc.Close()
}

// Conn is the connection, for parts of the program that speak the public protocol.
func (b *Bus) Conn() *nats.Conn { return b.nc }

// Subjects are the names of the fleet.
func (b *Bus) Subjects() contracts.Subjects { return b.subjects }

// AuthRequired reports whether the server asks its clients who they are.
func (b *Bus) AuthRequired() bool { return b.nc.AuthRequired() }

// Connected reports whether there is a connection now.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// Server is the version of the server and how long it takes to answer.
func (b *Bus) Server() (version string, away time.Duration, err error) {
	away, err = b.nc.RTT()
	return b.nc.ConnectedServerVersion(), away, err
}

// URL is the server that this instance is connected to, without credentials: a token too, which nats.go leaves in.
func (b *Bus) URL() string { return redact([]string{b.nc.ConnectedUrl()}) }

// OnDevServer reports whether the server is that of an executor dev.
func (b *Bus) OnDevServer() bool { return b.nc.ConnectedServerName() == devServerName }

// epoch is another number after every reconnect, from the moment on in which the new connection can be used.
func (b *Bus) epoch() uint64 { return b.nc.Stats().Reconnects }

// MaxPayload is the largest message that the server takes, in bytes with headers.
func (b *Bus) MaxPayload() int64 { return b.nc.MaxPayload() }

// OnReconnect has call called after every reconnect. It must not block.
func (b *Bus) OnReconnect(call func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reconnected = append(b.reconnected, call)
}

// denials remembers what the server forbade: a denied request looks like one that nobody answered.
type denials struct {
	mu      sync.Mutex
	last    string
	at      time.Time
	watched map[string]chan struct{} // by subject, for those who try what is allowed
}

// watch returns a channel that is closed when a publish to the subject is denied. Until forget, that is not logged.
func (d *denials) watch(subject string) (told <-chan struct{}, forget func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watched == nil {
		d.watched = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	d.watched[subject] = c
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watched, subject)
	}
}

// expected tells whoever tried just what was denied, if somebody did.
func (d *denials) expected(err error) bool {
	_, subject, _ := strings.Cut(err.Error(), `Publish to "`)
	subject, _, _ = strings.Cut(subject, `"`)
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.watched[subject]
	if ok {
		delete(d.watched, subject)
		close(c)
	}
	return ok
}

// asyncError logs what the server says out of turn. Permission errors name the subject.
func (b *Bus) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		if b.denied.expected(err) {
			return
		}
		b.denied.mu.Lock()
		fresh := b.denied.last != err.Error() || time.Since(b.denied.at) > time.Minute
		b.denied.last, b.denied.at = err.Error(), time.Now()
		b.denied.mu.Unlock()
		if fresh {
			b.log.Error().Err(err).Msg("NATS denied this; the executor's user needs the permission")
		}
		return
	}
	event := b.log.Warn().Err(err)
	if sub != nil {
		event = event.Str("subject", sub.Subject)
	}
	event.Msg("NATS reported an error")
}

// explain adds a recent denial to an error that may be its consequence.
func (b *Bus) explain(err error) error {
	if err == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, nats.ErrNoResponders) &&
		!errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		return err
	}
	if denied := b.denied.recent(); denied != "" {
		advice := ""
		if strings.Contains(denied, "$JS.API.STREAM.CREATE.") || strings.Contains(denied, "$JS.API.CONSUMER.CREATE.") {
			advice = "; it is missing, and an operator makes it: executor provision"
		}
		return fmt.Errorf("%w (%s%s)", err, denied, advice)
	}
	return err
}

// recent is what the server forbade a moment ago, "" if nothing.
func (d *denials) recent() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) < 2*requestTimeout {
		return d.last
	}
	return ""
}

// await returns when there is a connection, or with the cause of ctx's end.
func (b *Bus) await(ctx context.Context) error {
	for !b.nc.IsConnected() {
		if b.nc.IsClosed() {
			return nats.ErrConnectionClosed
		}
		changed := b.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
		if b.nc.IsConnected() {
			b.nc.RemoveStatusListener(changed)
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			b.nc.RemoveStatusListener(changed)
			return context.Cause(ctx)
		}
		b.nc.RemoveStatusListener(changed)
	}
	return nil
}

// DialClient connects as the configuration says, for programs that ask executors: with an ordinary inbox, or the one that
// its user has, and the library's buffer for what is published while the server is away for a moment.
func DialClient(ctx context.Context, config Config, name string) (*nats.Conn, error) {
	options, err := config.options()
	if err != nil {
		return nil, err
	}
	options = append(options, nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // what was missed is asked for again
	if config.Inbox != "" {
		options = append(options, nats.CustomInboxPrefix(config.Inbox))
	}
	return dial(ctx, config, options, zerolog.Nop())
}
