package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

func (p *program) logsCommand() *cobra.Command {
	var flags serverFlags
	var follow, asJSON, exitCode bool
	c := &cobra.Command{
		Use: "logs ID", Short: "Show the output of a run", Args: one("the id of the run"),
		Long: `logs shows what the tool printed until now, its stdout on stdout and its stderr on stderr; with -f also what it prints from
now on, to the end of the run. How it ended is told on stderr where the tool did not end by itself. A restart of NATS, or of
executors, meanwhile leaves nothing out and shows nothing twice.
Ctrl-C ends this command and leaves the run alone.`,
		Example: "  executor logs -f 01JD3Z7GQ3X8W2C5T9V4B6N8M0\n  executor logs --json 01JD3Z7GQ3X8W2C5T9V4B6N8M0 | jq -r 'select(.type == \"started\").executor'",
	}
	flags.register(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on to the end of the run")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit as executor run would, once the run has ended")
	c.Flags().BoolVar(&asJSON, "json", false, "print every event as a line of JSON, the result last")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkRun(args[0]); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		var options []client.FollowOption
		if !follow {
			options = append(options, client.Snapshot())
		}
		result, err := p.logs(c.Context(), executors.Follow(args[0], options...), asJSON)
		switch {
		case errors.Is(err, context.Canceled):
			return exitCode130
		case err != nil:
			return explain(err)
		case result == nil:
			return nil
		case exitCode:
			return p.ended(*result, false)
		case asJSON:
			return nil
		}
		if result.Incomplete {
			fmt.Fprintln(p.stderr, "executor: part of the output is not kept any more")
		}
		if r := result.Result; r.Status != contracts.Succeeded && r.Status != contracts.Failed && r.Error != nil { // not the tool's own end
			fmt.Fprintln(p.stderr, "executor:", strings.ReplaceAll(strings.TrimSpace(endText(r)), "\n", "\n  "))
		}
		return nil
	}
	return c
}

// exitCode130 ends a command that Ctrl-C ended, silently.
var exitCode130 = exitCode{code: exitInterrupted}

// logs shows a run and returns its result; nil where it has not ended.
func (p *program) logs(ctx context.Context, run *client.Run, asJSON bool) (*client.Event, error) {
	shown := p.newShow()
	defer shown.close()
	seen := false
	for event, err := range run.Events(ctx) {
		if err != nil {
			return nil, err
		}
		if asJSON {
			if err := p.printJSON(eventDocument(event)); err != nil {
				return nil, err
			}
		} else if event.Type != client.TypeResult {
			if err := shown.event(event); err != nil {
				return nil, fmt.Errorf("write the tool's output: %w", err)
			}
		}
		if event.Type == client.TypeResult {
			return &event, nil
		}
		seen = seen || event.Type != client.TypeRunning
	}
	if !seen && !asJSON {
		shown.notice("%s", notBegun(run.ID))
	}
	return nil, nil
}

// notBegun explains that nothing was said about a run.
func notBegun(id string) string {
	return fmt.Sprintf("nothing is known of a run %s: it still waits in a queue, was never handed in, or is older than runs are kept", id)
}

// outputDocument is a chunk of output as logs --json prints it.
type outputDocument struct {
	Type     string `json:"type"`
	ID       string `json:"id"`
	Attempt  int    `json:"attempt"`
	Executor string `json:"executor"`
	Stream   string `json:"stream"`
	Seq      uint64 `json:"seq"`
	Data     string `json:"data,omitempty"`
	Bytes    []byte `json:"data_base64,omitempty"` // where it is not UTF-8
}

// eventDocument is an event as JSON: those of the wire as they are, output with its text.
func eventDocument(event client.Event) any {
	switch event.Type {
	case client.TypeResult:
		return event.Result
	case client.TypeOutput:
		document := outputDocument{Type: event.Type, ID: event.ID, Attempt: event.Attempt, Executor: event.Executor, Stream: event.Stream, Seq: event.Seq}
		if utf8.Valid(event.Data) {
			document.Data = string(event.Data)
		} else {
			document.Bytes = event.Data
		}
		return document
	}
	return event.Event
}
