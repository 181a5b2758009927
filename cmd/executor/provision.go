package main

import (
	"context"
	"errors"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// fleetFlags say which fleet an operator's command is for: as a configuration of its executors says, or as the flags of
// the other commands do.
type fleetFlags struct {
	serverFlags
	config string
}

func (f *fleetFlags) registerAll(c *cobra.Command) {
	f.register(c)
	c.Flags().StringVar(&f.config, "config", "", "configuration `FILE` of the executors")
}

// configuration is that of the file, with the place that flags and environment name, if they do.
func (f *fleetFlags) configuration() (configs.Config, error) {
	config := configs.Default()
	config.NATS.ConnectWait = contracts.Seconds(2) // somebody waits for the answer
	if f.config != "" {
		var err error
		config.NATS.ConnectWait = configs.Default().NATS.ConnectWait
		if config, err = loadConfig(f.config, config); err != nil {
			return config, err
		}
		if f.server == "" && f.context == "" && f.data == "" {
			return config, f.setInbox(&config.NATS)
		}
	}
	prefix := config.NATS.SubjectPrefix
	_, err := f.place(&config.NATS)
	if f.config != "" {
		config.NATS.SubjectPrefix = prefix
	}
	return config, err
}

// dial connects for an operator's command. Where nobody named a configuration and the server is an executor dev's, what is
// configured there is what dev configures.
func (f *fleetFlags) dial(ctx context.Context, config *configs.Config, name string, log zerolog.Logger) (*bus.Bus, error) {
	b, err := bus.Connect(ctx, config.NATS, name, log)
	if err != nil || f.config != "" || !b.OnDevServer() || config.NATS.Streams == configs.Development().NATS.Streams {
		return b, err
	}
	b.Close()
	config.NATS.Streams = configs.Development().NATS.Streams
	return bus.Connect(ctx, config.NATS, name, log)
}

// provisioned is what provision --json prints.
type provisioned struct {
	Changes []bus.Declared `json:"changes"`
}

func (p *program) provisionCommand() *cobra.Command {
	var flags fleetFlags
	var asJSON, dry bool
	c := &cobra.Command{
		Use: "provision", Short: "Make and update streams, buckets and consumers", Args: none,
		Long: `provision makes the streams, buckets and consumers of a fleet and brings those that exist to what the configuration says.
Executors make what is missing by themselves and never change what exists, so that two versions do not fight; run this after
a change of nats.streams, nats.replicas or nats.ack_wait, or where executors may not make streams.`,
		Example: "  executor provision --config /etc/executor/executor.yaml --dry-run",
	}
	flags.registerAll(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := flags.configuration()
		if err != nil {
			return err
		}
		config.Log.Level = "warn"
		b, err := flags.dial(c.Context(), &config, "provision-"+instanceName(), newLogger(config.Log, p.stderr))
		if err != nil {
			return err
		}
		defer b.Close()
		do := b.Provision
		if dry {
			do = b.Inspect
		}
		list, err := do(c.Context(), enabledEngines(config))
		if asJSON {
			return errors.Join(err, p.printJSON(provisioned{list}))
		}
		rows := make([][]string, 0, len(list))
		for _, d := range list {
			rows = append(rows, []string{d.Did, d.Kind, d.Name, d.What})
		}
		return errors.Join(err, p.table(rows))
	}
	return c
}
