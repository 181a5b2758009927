package bus

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// devServerName tells clients what kind of server they are connected to.
const devServerName = "executor-dev"

// Server is a NATS server with JetStream inside of this process, for executor dev and for tests.
type Server struct {
	server *server.Server
	token  string
}

// ServerConfig says how to start one.
type ServerConfig struct {
	Host  string // "": 127.0.0.1
	Port  int    // -1: any free one
	Dir   string // where JetStream keeps its files; made if missing
	Token string // what clients must give; "": nothing
	Log   zerolog.Logger
	// AlwaysSync makes every write durable against a power loss, at a price.
	AlwaysSync bool
}

// StartServer starts a server and returns when it takes connections. A *net.OpError that is EADDRINUSE means that the
// port is taken.
func StartServer(c ServerConfig) (*Server, error) {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if c.Port > 0 { // the server itself ends the process when it cannot listen
		l, err := net.Listen("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
		if err != nil {
			return nil, err
		}
		l.Close()
	}
	options := &server.Options{
		ServerName: devServerName, Host: c.Host, Port: c.Port, Authorization: c.Token,
		JetStream: true, StoreDir: filepath.Clean(c.Dir), SyncAlways: c.AlwaysSync,
		NoSigs: true, DisableJetStreamBanner: true, MaxPayload: 1 << 20, NoSystemAccount: false,
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, err
	}
	logger := &serverLog{log: c.Log}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		if text := logger.fatal; text != "" {
			return nil, errors.New(text)
		}
		return nil, fmt.Errorf("the NATS server did not start in time; its files are in %s", c.Dir)
	}
	return &Server{server: s, token: c.Token}, nil
}

// Port is where it listens.
func (s *Server) Port() int { return s.server.Addr().(*net.TCPAddr).Port }

// URL is what clients connect to, the token in it.
func (s *Server) URL() string {
	addr := s.server.Addr().String()
	if s.token != "" {
		return "nats://" + s.token + "@" + addr
	}
	return "nats://" + addr
}

// Stop ends the server and returns when its files are closed.
func (s *Server) Stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// serverLog passes on what the server has to say that concerns an operator.
type serverLog struct {
	log   zerolog.Logger
	fatal string
}

func (l *serverLog) Noticef(format string, v ...any) { l.say(zerolog.DebugLevel, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.say(zerolog.DebugLevel, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.say(zerolog.WarnLevel, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  {}
func (l *serverLog) Tracef(format string, v ...any)  {}
func (l *serverLog) Fatalf(format string, v ...any) {
	l.fatal = fmt.Sprintf(format, v...)
	l.say(zerolog.ErrorLevel, format, v)
}

func (l *serverLog) say(level zerolog.Level, format string, v []any) {
	l.log.WithLevel(level).Str("said", fmt.Sprintf(format, v...)).Msg("NATS server")
}
