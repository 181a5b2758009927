package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/engines/docker"
)

// Files in the data directory of executor dev.
const (
	devToken = "token"   // what clients of its NATS server must give; stays the same
	devURL   = "dev.url" // where it runs now, for our own commands
	devLock  = "dev.lock"
)

type devFlags struct {
	port         int
	data, config string
	tools        []string
	http         string
	noAuth       bool
	level        string
	changed      func(flag string) bool
}

func (p *program) devCommand() *cobra.Command {
	var flags devFlags
	c := &cobra.Command{
		Use: "dev", Short: "Run everything on this machine: a NATS server and an executor", Args: none,
		Long: `dev starts a NATS server with JetStream inside of this program and an executor on it, for developing tools and
agents. It listens on 127.0.0.1 only and asks for a token, which the commands of this program find by themselves.
Requests may bring their own contracts. Tools run as ordinary processes with your rights.`,
		Example: "  executor dev --tools ./tools\n  executor dev --nats-port -1 --http 127.0.0.1:0 --data ./.executor",
	}
	c.Flags().IntVar(&flags.port, "nats-port", 4222, "`PORT` of the NATS server; -1 for any free one")
	c.Flags().StringVar(&flags.data, "data", "", "`DIR` for streams, caches and the token (default "+configs.DefaultDataDir(false)+")")
	c.Flags().StringArrayVar(&flags.tools, "tools", nil, "`DIR` with contracts; repeatable")
	c.Flags().StringVar(&flags.http, "http", "", "`ADDR` of /healthz and /readyz; port 0 for any free one, \"off\" for none (default 127.0.0.1:8088, or any free port)")
	c.Flags().BoolVar(&flags.noAuth, "no-auth", false, "let every process of this machine use the NATS server")
	c.Flags().StringVar(&flags.config, "config", "", "configuration `FILE`")
	c.Flags().StringVar(&flags.level, "log-level", "", "`LEVEL`: debug, info, warn (the default) or error")
	flags.changed = c.Flags().Changed
	c.RunE = func(c *cobra.Command, _ []string) error { return p.dev(c.Context(), flags) }
	return c
}

func (p *program) dev(ctx context.Context, flags devFlags) (err error) {
	config := development()
	if flags.config != "" {
		if config, err = loadConfig(flags.config, config); err != nil {
			return err
		}
	}
	if flags.changed("log-level") {
		config.Log.Level = flags.level
	}
	log := newLogger(config.Log, p.stderr)
	data := cmp.Or(flags.data, config.Executor.DataDir, configs.DefaultDataDir(false))
	if data, err = absolute(data); err != nil {
		return err
	}
	unlock, err := lockData(data)
	if err != nil {
		return err
	}
	defer unlock()
	// Where our own commands find the server, with its token. All else is in the data directory.
	config.Secrets = append(config.Secrets, filepath.Join(configs.DefaultDataDir(false), devURL))
	for _, dir := range flags.tools {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usage("--tools %s: there is no such directory", dir)
		}
		config.Tools.Directories = append(config.Tools.Directories, dir)
	}

	server, err := p.startServer(flags, data, log)
	if err != nil {
		return err
	}
	defer server.Stop()
	config.NATS.URLs = []string{server.URL()}
	config.Executor.Slots = slotsOf(config.Executor.Slots)
	if flags.changed("http") {
		config.HTTP.Listen = httpAddress(flags.http)
	} else if config.HTTP.Listen == configs.Default().HTTP.Listen {
		config.HTTP.Listen = freeIfTaken(config.HTTP.Listen)
	}
	complain := func(err error) {
		fmt.Fprintln(p.stderr, "executor: these contracts are left out:\n  "+strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	s, err := newService(ctx, config, data, complain, log)
	if err != nil {
		return err
	}
	forget := func() {}
	defer func() { forget() }()
	return s.run(ctx, func() error {
		if forget, err = announce(data, server.URL()); err != nil {
			return err
		}
		p.printReady(s, server.URL(), data, flags)
		return nil
	})
}

// development is the configuration of dev where there is no file: it serves the engines that this machine offers.
func development() configs.Config {
	config := configs.Development()
	config.Execution.Docker.Enabled = docker.Here()
	return config
}

func (p *program) printReady(s *service, url, data string, flags devFlags) {
	fmt.Fprintf(p.stdout, "NATS    export NATS_URL=%s\n", url)
	if s.http != nil {
		fmt.Fprintf(p.stdout, "HTTP    %s/readyz\n", s.http.url())
	}
	fmt.Fprintf(p.stdout, "data    %s\n", data)
	switch tools := s.registry.List(); {
	case len(tools) > 0:
		names := make([]string, 0, len(tools))
		for _, t := range tools {
			names = append(names, t.Name)
		}
		fmt.Fprintf(p.stdout, "tools   %s\n", strings.Join(names, ", "))
	case len(flags.tools) == 0:
		fmt.Fprintln(p.stdout, "tools   none; give a directory of contracts by --tools DIR, or run a contract file: executor run FILE")
	default:
		fmt.Fprintf(p.stdout, "tools   none in %s\n", strings.Join(flags.tools, ", "))
	}
	fmt.Fprintf(p.stdout, "executor %s is ready (Ctrl-C stops it)\n", s.name)
}

// startServer starts the NATS server. A port that is taken is told with who has it and what to do.
func (p *program) startServer(flags devFlags, data string, log zerolog.Logger) (*bus.Server, error) {
	token := ""
	if !flags.noAuth {
		var err error
		if token, err = readToken(filepath.Join(data, devToken)); err != nil {
			return nil, err
		}
	}
	server, err := bus.StartServer(bus.ServerConfig{Port: flags.port, Dir: filepath.Join(data, "nats"), Token: token, Log: log})
	if err == nil {
		return server, nil
	}
	if taken(err) {
		who := portOwner(flags.port)
		return nil, fmt.Errorf("port %d is taken%s; start this one on a free port (--nats-port -1); if that is a NATS server, use it: executor serve --server nats://127.0.0.1:%d", flags.port, who, flags.port)
	}
	return nil, fmt.Errorf("start the NATS server: %w", err)
}

// readToken returns the token of a data directory, and makes one the first time.
func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil && len(strings.TrimSpace(string(text))) >= 16 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	token := rand.Text()
	return token, os.WriteFile(file, []byte(token+"\n"), 0o600)
}

// announce writes where this dev runs: into its data directory, and where commands look that were told no place. The
// returned function takes it back.
func announce(data, url string) (func(), error) {
	files := []string{filepath.Join(data, devURL)}
	if known := filepath.Join(configs.DefaultDataDir(false), devURL); known != files[0] {
		// Unless that of another dev which runs is there.
		if unlock, err := lockData(filepath.Dir(known)); err == nil {
			defer unlock()
			files = append(files, known)
		}
	}
	forget := func() {
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(text)) == url {
				os.Remove(f)
			}
		}
	}
	for _, f := range files {
		// Whole at once: commands read it as soon as it is there.
		err := os.WriteFile(f+".new", []byte(url+"\n"), 0o600)
		if err == nil {
			err = os.Rename(f+".new", f)
		}
		if err != nil {
			os.Remove(f + ".new")
			return forget, err
		}
	}
	return forget, nil
}
