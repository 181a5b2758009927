package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

func (p *program) resultCommand() *cobra.Command {
	var flags serverFlags
	var wait, asJSON, exitCode bool
	c := &cobra.Command{
		Use: "result ID", Short: "Show how a run ended", Args: one("the id of the run"),
		Long: `result shows how a run ended and what it printed, as far as results hold that (executor logs has all of it). It exits with 1
while the run has no result; --wait waits for it.`,
		Example: "  executor result 01JD3Z7GQ3X8W2C5T9V4B6N8M0\n  executor result --wait --json 01JD3Z7GQ3X8W2C5T9V4B6N8M0",
	}
	flags.register(c)
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end of the run")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit as executor run would")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkRun(args[0]); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		result, err := resultOf(c.Context(), executors, args[0], wait)
		if err != nil {
			return err
		}
		if asJSON {
			err = p.printJSON(result)
		} else {
			err = p.printResult(result)
		}
		if err == nil && exitCode {
			if code := codeOf(result); code != exitOK {
				return exitCodeOf(code)
			}
		}
		return err
	}
	return c
}

// checkRun finds ids that no run can have. Those that the queue gave, q and digits, are ids of runs.
func checkRun(id string) error {
	if err := contracts.CheckID(id); err != nil && contracts.CheckID(strings.TrimPrefix(id, "q")) != nil {
		return usage("%s", err)
	}
	return nil
}

// exitCodeOf ends the program with a code; all has been said.
func exitCodeOf(code int) error { return exitCode{code: code} }

// resultOf reads the result of a run, or waits for it. A run that has not ended is an error.
func resultOf(ctx context.Context, executors *client.Client, id string, wait bool) (*client.Result, error) {
	if wait {
		result, err := executors.Follow(id, client.SkipOutput()).Wait(ctx)
		if errors.Is(err, context.Canceled) {
			return nil, exitCode130
		}
		return result, explain(err)
	}
	state, err := executors.State(ctx, id)
	switch {
	case err != nil:
		return nil, explain(err)
	case state.Result != nil:
		return state.Result, nil
	case state.Last == nil:
		return nil, errors.New(notBegun(id))
	}
	return nil, fmt.Errorf("the run %s has not ended: %s; --wait waits for its end", id, describe(state.Last))
}

// describe says what an event tells about a run that goes on.
func describe(event *client.Event) string {
	switch event.Type {
	case client.TypeStarted:
		return fmt.Sprintf("attempt %d runs on %s for %s", event.Attempt, event.Executor, age(event.Time))
	case client.TypeRetry:
		if event.Attempt == 0 {
			return fmt.Sprintf("not started (%s); it will be tried again", event.Reason)
		}
		return fmt.Sprintf("attempt %d failed (%s) and will be followed by another", event.Attempt, event.Reason)
	case client.TypeFallback:
		return fmt.Sprintf("it was handed on from %s to %s (%s)", event.From, event.To, event.Reason)
	}
	return "its last event is " + event.Type
}

// age is how long ago something was, in two units at most.
func age(t time.Time) string {
	d := max(0, time.Since(t))
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// printResult shows a result to people: how it went, then what was printed.
func (p *program) printResult(r *client.Result) error {
	status := string(r.Status)
	switch {
	case r.ExitCode != nil && *r.ExitCode != 0:
		status += fmt.Sprintf(", exit code %d", *r.ExitCode)
	case r.Signal != "":
		status += ", by " + r.Signal
	}
	colour := red
	if r.Status == contracts.Succeeded {
		colour = green
	}
	rows := [][]string{{"id", r.ID}, {"status", paint(p.stdout, colour, status)}}
	add := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	if r.Error != nil {
		add("error", fmt.Sprintf("%s: %s", r.Error.Code, strings.ReplaceAll(r.Error.Message, "\n", " ")))
	}
	add("tool", r.Tool+" "+r.Version)
	if r.Engine != "" {
		place := fmt.Sprintf("%s on %s", r.Engine, r.Executor)
		if r.Attempt > 0 {
			place += fmt.Sprintf(", attempt %d", r.Attempt)
		}
		add("engine", place)
	}
	for _, t := range r.Tried {
		add("tried", fmt.Sprintf("%s: %s (%s)", t.Engine, t.Reason, t.Code))
	}
	if t := r.Timings; t != nil && t.TotalMS > 0 {
		add("times", fmt.Sprintf("queued %s, prepared %s, ran %s", milliseconds(t.QueuedMS), milliseconds(t.PrepareMS), milliseconds(t.RunMS)))
	}
	if !r.Time.IsZero() {
		add("ended", r.Time.Local().Format(time.DateTime)+" ("+age(r.Time)+" ago)")
	}
	for _, note := range r.Notes {
		add("note", note)
	}
	if r.Isolation != nil { // not where nobody knows how the tool ended
		add("isolation", fmt.Sprintf("%s, network %s, limits %s", cmp.Or(r.Isolation.Tier, "none"), cmp.Or(r.Isolation.Network, "host"), cmp.Or(r.Isolation.Limits, "none")))
	}
	if err := p.table(rows); err != nil {
		return err
	}
	for _, s := range []struct {
		name, text string
		raw        []byte
		bytes      int64
	}{{contracts.Stdout, r.Stdout, r.StdoutBase64, r.StdoutBytes}, {contracts.Stderr, r.Stderr, r.StderrBase64, r.StderrBytes}} {
		if s.bytes == 0 {
			continue
		}
		note := ""
		if r.Truncated && int64(len(s.text)+len(s.raw)) < s.bytes {
			note = ", in part; executor logs has all of it"
		}
		fmt.Fprintf(p.stdout, "%s\n", paint(p.stdout, faint, fmt.Sprintf("--- %s, %d bytes%s", s.name, s.bytes, note)))
		text := s.text
		if len(s.raw) > 0 {
			text = string(s.raw)
		}
		if _, err := fmt.Fprintln(p.stdout, strings.TrimSuffix(text, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// milliseconds is a time for people to read.
func milliseconds(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	if d < time.Second {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
