package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

type runFlags struct {
	serverFlags
	requestFlags
	json bool
}

func (p *program) runCommand() *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use: "run TOOL|FILE", Short: "Run a tool and follow it to its end", Args: one("the tool, or the contract file, to run"),
		Long: `run hands in a request, shows the tool's stdout and stderr as they come, and exits with the tool's exit code. TOOL is a
name that the executors know; FILE is a contract of your own, where they allow that (executor dev does).
Ctrl-C stops the tool; a second one leaves it alone and ends this command.

Exit codes: the tool's own; 128+n where signal n ended it; 124 after a timeout; 130 after a cancel; 125 where it was not run
to an end (rejected, unavailable, expired, lost, unknown); 2 for mistakes on the command line; 1 where the executors cannot be reached.`,
		Example: `  executor run system_info
  executor run python_data_processor --arg operation=numbers --arg data=1,2,3,4,5
  executor run ./my-tool.yaml --arg count=3 --timeout 10s
  echo hello | executor run word_count --stdin -`,
		ValidArgsFunction: p.completeTools(&flags.serverFlags),
	}
	flags.serverFlags.register(c)
	flags.requestFlags.register(c)
	c.Flags().BoolVar(&flags.json, "json", false, "print the result as JSON instead of the tool's output")
	c.RunE = func(c *cobra.Command, args []string) error { return p.run(c, args[0], &flags) }
	return c
}

// handIn makes a request from the command line, connects, and hands both to do.
func (p *program) handIn(c *cobra.Command, what string, server *serverFlags, flags *requestFlags, do func(*client.Client, client.Request) error) error {
	if err := flags.check(c); err != nil {
		return err
	}
	var nc *nats.Conn
	var executors *client.Client
	defer func() {
		if nc != nil {
			nc.Close()
		}
	}()
	request, err := p.request(c.Context(), what, flags, func() (_ *client.Client, err error) {
		executors, nc, err = server.connect(c.Context())
		return executors, err
	})
	if err != nil {
		return err
	}
	return do(executors, request)
}

func (p *program) run(c *cobra.Command, what string, flags *runFlags) error {
	return p.handIn(c, what, &flags.serverFlags, &flags.requestFlags, func(executors *client.Client, request client.Request) error {
		return p.follow(c.Context(), executors, request, flags.json)
	})
}

// follow hands the request in and shows the run.
func (p *program) follow(ctx context.Context, executors *client.Client, request client.Request, asJSON bool) error {
	run, err := executors.Start(ctx, request)
	if err != nil {
		return explain(err)
	}
	defer run.Close()
	// Ctrl-C stops the tool, and we still want to hear how it ended.
	stop := context.AfterFunc(ctx, func() {
		if err := executors.Cancel(context.WithoutCancel(ctx), run.ID); err != nil {
			fmt.Fprintln(p.stderr, "executor:", err)
			os.Exit(exitInterrupted)
		}
	})
	defer stop()
	shown := p.newShow()
	defer shown.close()
	for event, err := range run.Events(context.WithoutCancel(ctx)) {
		if err != nil {
			return explain(err)
		}
		if event.Type == client.TypeResult {
			shown.close()
			return p.ended(event, asJSON)
		}
		if asJSON {
			continue
		}
		if err := shown.event(event); err != nil { // nobody reads us any more, as in "| head"
			return errors.Join(fmt.Errorf("write the tool's output: %w; the tool was told to stop", err), executors.Cancel(context.WithoutCancel(ctx), run.ID))
		}
	}
	return nil
}

// ended turns a result into our exit code, and says what the tool itself could not.
func (p *program) ended(event client.Event, asJSON bool) error {
	result := event.Result
	if asJSON {
		if err := p.printJSON(result); err != nil {
			return err
		}
	}
	code := exitCode{code: codeOf(result)}
	switch {
	case asJSON || result.Status == contracts.Failed && result.Signal == "" && result.ExitCode != nil && *result.ExitCode != 0:
		// The tool's own words are enough.
	case result.Status == contracts.Succeeded:
		if event.Incomplete {
			fmt.Fprintln(p.stderr, "executor: part of the output was not kept as long as the result")
		}
		if result.DroppedBytes > 0 {
			fmt.Fprintf(p.stderr, "executor: %d bytes of output were beyond what is published of one run\n", result.DroppedBytes)
		}
	case result.Error != nil:
		code.text = endText(result)
	}
	if code.code == exitOK {
		return nil
	}
	return code
}

// endText says how a run ended that has an error.
func endText(result *client.Result) string {
	return fmt.Sprintf("%s: %s", result.Status, result.Error.Message)
}

// codeOf is the code to exit with after a run.
func codeOf(result *client.Result) int {
	switch {
	case result.Status == contracts.Succeeded:
		return exitOK
	case result.Status == contracts.TimedOut:
		return exitTimeout
	case result.Status == contracts.Cancelled:
		return exitInterrupted
	case result.Status == contracts.Failed && result.Signal != "":
		return exitSignal + signalNumber(result.Signal)
	case result.Status == contracts.Failed && result.ExitCode != nil && *result.ExitCode != 0:
		return *result.ExitCode
	case result.Status == contracts.Failed:
		return exitError
	}
	return exitNotRun
}

// refused turns an executor's refusal of a request into the exit code that run has for it.
func refused(err error) error {
	var refusal *client.Error
	if errors.As(err, &refusal) {
		return exitCode{code: exitNotRun, text: fmt.Sprintf("%s: %s", refusal.Status(), refusal.Message)}
	}
	return err
}
