package docker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	cliconfig "github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/tlsconfig"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// oldestAPI is that of Engine 20.10.
const oldestAPI = "1.41"

// daemon is the Docker daemon. Every call has a time after which it fails: a daemon that hangs holds up nobody.
type daemon struct {
	*client.Client
	host    string // for people
	local   bool   // it is reached by a socket of this machine
	timeout time.Duration

	mu   sync.Mutex
	info *system.Info // nil: not asked yet
}

// connect makes the client. It does no I/O.
func connect(config Config) (*daemon, error) {
	options := []client.Opt{client.WithAPIVersionNegotiation(), client.WithUserAgent("praxis-executor")}
	host := config.Host
	files := tlsFiles(config)
	if host == "" {
		host = os.Getenv(client.EnvOverrideHost)
	}
	if host == "" {
		host = "unix://" + defaultSocket
	}
	where, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("the address of the daemon: %w", err)
	}
	d := &daemon{host: host, local: where.Scheme == "unix", timeout: config.CallTimeout}
	dial := (&net.Dialer{Timeout: config.CallTimeout, KeepAlive: 15 * time.Second}).DialContext
	var over func(context.Context, net.Conn, string) (net.Conn, error) // what is spoken over a connection; nil: that is as it is
	switch where.Scheme {
	case "ssh":
		helper, err := connhelper.GetConnectionHelper(host)
		if err != nil {
			return nil, fmt.Errorf("the address of the daemon: %w", err)
		}
		options = append(options, client.WithHost(helper.Host), client.WithHTTPClient(&http.Client{Transport: &http.Transport{}}))
		dial = helper.Dialer
	case "tcp", "unix":
		transport := &http.Transport{}
		options = append(options, client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}), client.WithHost(host))
		if where.Scheme == "tcp" && files != nil {
			secure, err := tlsconfig.Client(*files)
			if err != nil {
				return nil, fmt.Errorf("the files for TLS with the daemon: %w", err)
			}
			over = func(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
				return encrypt(ctx, conn, address, secure, config.CallTimeout)
			}
			// The client thinks that it speaks in the clear: of a transport that has TLS itself it does not use the dialer for an attach.
			options = append(options, client.WithScheme("http"), func(*client.Client) error {
				transport.Proxy = nil // which would get what is for the daemon alone
				return nil
			})
		}
		if where.Scheme == "unix" {
			dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: config.CallTimeout}).DialContext(ctx, "unix", where.Path)
			}
		}
	default:
		return nil, fmt.Errorf("the address of the daemon, %q, begins with none of unix://, tcp:// and ssh://", host)
	}
	// What is dialled for an attach is known to it, which can so end one that hangs, also in the handshake of TLS.
	options = append(options, client.WithDialContext(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if note, is := ctx.Value(dialledKey{}).(*dialled); is && err == nil {
			note.set(conn)
		}
		if err != nil || over == nil {
			return conn, err
		}
		return over(ctx, conn, address)
	}))
	if d.Client, err = client.NewClientWithOpts(options...); err != nil {
		return nil, fmt.Errorf("the client of the daemon: %w", err)
	}
	return d, nil
}

// tlsFiles are those for TLS with the daemon, from the configuration, else, where that names no daemon, from the environment; nil where
// there are none.
func tlsFiles(config Config) *tlsconfig.Options {
	if config.Cert != "" || config.CA != "" {
		return &tlsconfig.Options{CAFile: config.CA, CertFile: config.Cert, KeyFile: config.Key, ExclusiveRootPools: true}
	}
	dir, verify := os.Getenv(client.EnvOverrideCertPath), os.Getenv(client.EnvTLSVerify) != ""
	if config.Host != "" || dir == "" && !verify {
		return nil
	}
	// All as for the docker command.
	dir = cmp.Or(dir, cliconfig.Dir())
	files := &tlsconfig.Options{CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), InsecureSkipVerify: !verify}
	for _, file := range []*string{&files.CertFile, &files.KeyFile} { // some daemons ask for none
		if _, err := os.Stat(*file); os.IsNotExist(err) {
			*file = ""
		}
	}
	return files
}

// encrypt makes a connection one with TLS. A daemon that does not answer to that holds up nobody.
func encrypt(ctx context.Context, conn net.Conn, address string, config *tls.Config, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errSlow)
	defer cancel()
	config = config.Clone()
	if name, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = name
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return secure, nil
}

type dialledKey struct{}

// dialled is the connection of one attach.
type dialled struct {
	mu     sync.Mutex
	conn   net.Conn
	closed bool
}

func (n *dialled) set(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn = conn; n.closed {
		conn.Close()
	}
}

func (n *dialled) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed = true; n.conn != nil {
		n.conn.Close()
	}
}

// bounded is a context for one call.
func (d *daemon) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d.timeout, errSlow)
}

var errSlow = errors.New("the daemon does not answer")

// cleaning is a context for a call that cleans up, whatever has become of the run.
func (d *daemon) cleaning(ctx context.Context) (context.Context, context.CancelFunc) {
	return d.bounded(context.WithoutCancel(ctx))
}

// attach connects to the streams of a container. The client's own call hangs where the daemon does.
func (d *daemon) attach(ctx context.Context, id string) (types.HijackedResponse, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	note := &dialled{}
	stop := context.AfterFunc(ctx, note.close)
	defer stop()
	streams, err := d.ContainerAttach(context.WithValue(ctx, dialledKey{}, note), id, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err == nil && !stop() {
		streams.Close()
		err = context.Cause(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return streams, err
}

// look asks the daemon what it is and can. known skips the question where there is an answer.
func (d *daemon) look(ctx context.Context, known bool) (*system.Info, error) {
	d.mu.Lock()
	info := d.info
	d.mu.Unlock()
	if info != nil && known {
		return info, nil
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	answer, err := d.Info(ctx)
	if err != nil {
		return nil, d.unavailable("ask the daemon what it can", err)
	}
	if answer.OSType != "" && answer.OSType != "linux" {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "the Docker daemon at %s runs %s containers; this engine needs one for Linux", d.host, answer.OSType)
	}
	if version := d.ClientVersion(); versions.LessThan(version, oldestAPI) {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "the Docker daemon at %s speaks version %s of its API; this engine needs %s (Docker 20.10) or newer", d.host, version, oldestAPI)
	}
	d.mu.Lock()
	d.info = &answer
	d.mu.Unlock()
	return &answer, nil
}

// offered is what the daemon said, nil before it was asked.
func (d *daemon) offered() *system.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

// forget has the daemon asked again.
func (d *daemon) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.info = nil
}

// unavailable explains a call that failed.
func (d *daemon) unavailable(doing string, err error) *contracts.Error {
	switch {
	case errors.Is(err, errSlow), errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return contracts.Errorf(contracts.EngineUnavailable, "%s: the Docker daemon at %s has not answered within %s; look at its log, or restart it", doing, d.host, d.timeout)
	case errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "permission denied"):
		return contracts.Errorf(contracts.EngineUnavailable, "%s: this user may not use the Docker daemon at %s; add it to the group docker, or set execution.docker.host to a daemon that it may", doing, d.host)
	case client.IsErrConnectionFailed(err):
		return contracts.Errorf(contracts.EngineUnavailable, "%s: the Docker daemon at %s cannot be reached; start it, or set execution.docker.host to where one is (%s)", doing, d.host, tidy(err))
	}
	return contracts.Errorf(contracts.EngineUnavailable, "%s: %s", doing, tidy(err))
}

// tidy is an error of the daemon without what the client puts before it.
func tidy(err error) string {
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	text, _, _ = strings.Cut(text, " Is the docker daemon running?")
	return strings.TrimSpace(text)
}

// socketOf reports whether a resolved path is a socket of a Docker daemon.
func socketOf(path string) bool { return filepath.Base(path) == "docker.sock" }

// socketsOf are where the sockets of a daemon, and of the one of the system, are.
func socketsOf(host string) []string {
	if socket, local := strings.CutPrefix(host, "unix://"); local {
		return []string{socket, defaultSocket}
	}
	return []string{defaultSocket}
}

// Sockets are those of daemons on this machine that the engine, or the docker command, would use. Who gets at one is root.
func Sockets(config Config) []string {
	sockets := socketsOf(cmp.Or(config.Host, os.Getenv(client.EnvOverrideHost)))
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		sockets = append(sockets, filepath.Join(dir, "docker.sock")) // of a rootless one
	}
	return sockets
}

// socketIn reports whether a resolved path is the socket of this daemon, or of one by its name, or a directory that holds it.
func (d *daemon) socketIn(path string) bool {
	if socketOf(path) {
		return true
	}
	for _, socket := range socketsOf(d.host) {
		if socket, err := filepath.EvalSymlinks(socket); err == nil {
			if below, err := filepath.Rel(path, socket); err == nil && filepath.IsLocal(below) {
				return true
			}
		}
	}
	return false
}
