package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// deadShown is what dead show --json prints: the letter, and the request as it came.
type deadShown struct {
	client.DeadLetter
	Headers map[string][]string `json:"headers,omitempty"`
	// One of them: the request as JSON, as text that is not JSON, as bytes that are no text. None of an empty one.
	Request json.RawMessage `json:"request,omitempty"`
	Text    string          `json:"request_text,omitempty"`
	Bytes   []byte          `json:"request_base64,omitempty"`
}

func (p *program) deadShowCommand() *cobra.Command {
	var flags serverFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "show LETTER|ID", Short: "Show a dead letter: the request, why it was given up on, and what led to it", Args: one("the dead letter, by its number or the id of the request"),
		Long: `show shows a dead letter, by its number or by the id of the request: why the request was given up on, what had happened to it
before, its headers, and the request as it came. What would move the cursor of a terminal is shown as an escape; --json has the
bytes.`,
		Example: "  executor dead show 17\n  executor dead show --json 17 | jq .request",
	}
	flags.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the letter and the request as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkLetters(args); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		found, err := letters(c.Context(), executors, args)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(showDead(found[0]))
		}
		return p.printDead(found[0])
	}
	return c
}

func showDead(l *client.DeadLetter) deadShown {
	shown := deadShown{DeadLetter: *l, Headers: l.Header}
	switch {
	case !utf8.Valid(l.Data):
		shown.Bytes = l.Data
	case json.Valid(l.Data):
		shown.Request = l.Data
	default:
		shown.Text = string(l.Data)
	}
	return shown
}

func (p *program) printDead(l *client.DeadLetter) error {
	rows := [][]string{{"letter", number(l.Letter)}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, printable(text)})
		}
	}
	add("id", l.ID)
	add("tool", l.Tool)
	rows = append(rows, []string{"error", paint(p.stdout, red, printable(string(l.Error.Code))) + ": " + printable(l.Error.Message)})
	add("queue", fmt.Sprintf("%s, priority %s, place %d, since %s", l.Engine, cmp.Or(l.Priority, contracts.PriorityNormal), l.Seq, when(l.Stored)))
	add("given up", fmt.Sprintf("%s by %s; %s", when(l.Time), cmp.Or(l.Executor, "-"), attempts(l.Attempts, l.Delivered)))
	for _, name := range slices.Sorted(maps.Keys(l.Header)) {
		for _, value := range l.Header[name] {
			add("header", name+": "+value)
		}
	}
	if err := p.table(rows); err != nil {
		return err
	}
	if err := p.printHistory(l); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, paint(p.stdout, faint, fmt.Sprintf("--- request, %d bytes", len(l.Data))))
	text := l.Data
	var pretty bytes.Buffer
	if json.Indent(&pretty, l.Data, "", "  ") == nil {
		text = pretty.Bytes()
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Fprintln(p.stdout, printable(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

// attempts says how often a request was tried.
func attempts(started int, taken uint64) string {
	text := fmt.Sprintf("the tool was started %d times", started)
	switch started {
	case 0:
		text = "the tool was not started"
	case 1:
		text = "the tool was started once"
	}
	if taken > 1 {
		text += fmt.Sprintf(", the request taken at least %d times", taken)
	}
	return text
}

func when(t time.Time) string { return t.Local().Format(time.DateTime) + " (" + age(t) + " ago)" }

// printHistory prints what led to the end, a line for each event.
func (p *program) printHistory(l *client.DeadLetter) error {
	if len(l.History) > 0 {
		fmt.Fprintln(p.stdout, paint(p.stdout, faint, "--- history"))
	}
	if l.HistoryOmitted > 0 {
		fmt.Fprintf(p.stdout, "(%d earlier events were left out)\n", l.HistoryOmitted)
	}
	var rows [][]string
	for _, e := range l.History {
		rows = append(rows, []string{e.Time.Local().Format("2006-01-02 15:04:05.000"), printable(e.Type), printable(pastText(e))})
	}
	if err := p.table(rows); err != nil {
		return err
	}
	if l.HistoryError != "" {
		fmt.Fprintf(p.stdout, "(the history is not whole: %s)\n", printable(l.HistoryError))
	}
	return nil
}

// pastText says in words what an event of the history tells.
func pastText(e client.PastEvent) string {
	text := e.Executor
	if e.Attempt > 0 {
		text = fmt.Sprintf("attempt %d, %s", e.Attempt, e.Executor)
	}
	switch e.Type {
	case client.TypeStarted:
		text = fmt.Sprintf("attempt %d on %s, by %s", e.Attempt, cmp.Or(e.Engine, "?"), e.Executor)
	case client.TypeFallback:
		text = fmt.Sprintf("from %s to %s, by %s", e.From, e.To, e.Executor)
	}
	if e.Code != "" {
		text += ": " + string(e.Code)
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}
