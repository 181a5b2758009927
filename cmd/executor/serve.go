package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/configs"
)

func (p *program) serveCommand() *cobra.Command {
	var flags struct {
		config, creds, data, http, name, level string
		servers, tools                         []string
		slots                                  int
	}
	c := &cobra.Command{
		Use: "serve", Short: "Take requests from a NATS server or cluster", Args: none,
		Long: `serve connects to NATS, takes tool requests and runs them, until it gets SIGTERM or Ctrl-C. It then finishes what
runs (executor.drain_timeout) and leaves the rest to other instances. What it allows is said by the configuration;
without one it runs only tools from --tools, and nothing that needs permission.`,
		Example: "  executor serve --config /etc/executor/executor.yaml\n  executor serve --server nats://nats:4222 --tools ./tools",
	}
	c.Flags().StringVar(&flags.config, "config", "", "configuration `FILE` (configs/executor.yaml shows every key)")
	c.Flags().StringSliceVar(&flags.servers, "server", nil, "`URL` of a NATS server; repeatable")
	c.Flags().StringVar(&flags.creds, "creds", "", "`FILE` with NATS user credentials")
	c.Flags().StringArrayVar(&flags.tools, "tools", nil, "`DIR` with contracts; repeatable")
	c.Flags().StringVar(&flags.data, "data", "", "`DIR` for the files of runs and caches")
	c.Flags().StringVar(&flags.http, "http", "", "`ADDR` of /healthz and /readyz, as 127.0.0.1:8088 (\"off\" for none)")
	c.Flags().StringVar(&flags.name, "name", "", "`NAME` of this instance")
	c.Flags().IntVar(&flags.slots, "slots", 0, "`N` runs at a time (default four for each processor)")
	c.Flags().StringVar(&flags.level, "log-level", "", "`LEVEL`: debug, info, warn or error")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config := configs.Default()
		if flags.config != "" {
			var err error
			if config, err = loadConfig(flags.config, config); err != nil {
				return err
			}
		}
		set := func(name string, apply func()) {
			if c.Flags().Changed(name) {
				apply()
			}
		}
		set("server", func() { config.NATS.URLs = flags.servers })
		set("creds", func() { config.NATS.Creds = flags.creds })
		set("tools", func() { config.Tools.Directories = append(config.Tools.Directories, flags.tools...) })
		set("data", func() { config.Executor.DataDir = flags.data })
		set("http", func() { config.HTTP.Listen = httpAddress(flags.http) })
		set("name", func() { config.Executor.Name = flags.name })
		set("slots", func() { config.Executor.Slots = flags.slots })
		set("log-level", func() { config.Log.Level = flags.level })
		config.Executor.Slots = slotsOf(config.Executor.Slots)
		log := newLogger(config.Log, p.stderr)
		dataDir := config.Executor.DataDir
		if dataDir == "" {
			dataDir = configs.DefaultDataDir(true)
		}
		s, err := newService(c.Context(), config, dataDir, nil, log)
		if err != nil {
			return err
		}
		return s.run(c.Context(), nil)
	}
	return c
}

// loadConfig reads a configuration; what is wrong in it is a mistake of the user's.
func loadConfig(file string, base configs.Config) (configs.Config, error) {
	config, err := configs.Load(file, base)
	if err != nil {
		return config, wrongFile(err)
	}
	whole, err := absolute(file)
	if err != nil {
		return config, err
	}
	config.Secrets = append(config.Secrets, whole) // passwords stand in it
	return config, nil
}

func httpAddress(flag string) string {
	if flag == "off" {
		return ""
	}
	return flag
}

// absolute makes a directory given on the command line absolute.
func absolute(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	return abs, nil
}
