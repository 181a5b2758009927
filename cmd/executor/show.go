package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// printJSON prints one document in one line.
func (p *program) printJSON(v any) error {
	encoder := json.NewEncoder(p.stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// table prints rows in columns. Empty cells count, so that what is below each other stays so.
func (p *program) table(rows [][]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(p.stdout, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// Colours of a terminal (ECMA-48).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

// paint colours a text for w, if that is a terminal and nobody said NO_COLOR (no-color.org).
func paint(w io.Writer, colour, text string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// show shows a run as it goes: the tool's output as it is, notices on stderr, and, on a terminal until the tool starts, a
// line about what is being waited for.
type show struct {
	p        *program
	terminal bool
	since    time.Time
	attempt  int
	line     bool // there is a line to be wiped away
}

func (p *program) newShow() *show {
	return &show{p: p, terminal: isTerminal(p.stderr) && os.Getenv("TERM") != "dumb", since: time.Now(), attempt: 1}
}

// event shows an event that is not the result. An error means that the output cannot be written.
func (s *show) event(event client.Event) error {
	switch event.Type {
	case client.TypeAccepted:
		s.wait("waiting for an executor")
	case client.TypeRunning:
		if event.Attempt == 0 {
			s.wait(fmt.Sprintf("waiting in the queue for %s", time.Since(s.since).Round(time.Second)))
		}
	case client.TypeProgress:
		text := event.Stage
		if event.Message != "" {
			text += ": " + event.Message
		}
		if event.Percent != nil {
			text += fmt.Sprintf(" %.0f %%", *event.Percent)
		}
		s.wait(text)
	case client.TypeStarted:
		s.close()
		if event.Attempt > s.attempt {
			s.attempt = event.Attempt
			s.notice("attempt %d begins on %s; what was printed so far is void", event.Attempt, event.Executor)
		}
	case client.TypeRetry:
		s.notice("%s; it will be tried again in %s", event.Reason, time.Duration(event.DelayMS*float64(time.Millisecond)).Round(time.Millisecond))
	case client.TypeFallback:
		s.notice("%s cannot take it (%s); trying %s", event.From, event.Reason, event.To)
	case client.TypeOutput:
		s.close()
		w := s.p.stdout
		if event.Stream == contracts.Stderr {
			w = s.p.stderr
		}
		_, err := w.Write(event.Data)
		return err
	}
	return nil
}

func (s *show) notice(format string, a ...any) {
	s.close()
	fmt.Fprintln(s.p.stderr, "executor:", fmt.Sprintf(format, a...))
}

// wait replaces the line about what is being waited for.
func (s *show) wait(text string) {
	if s.terminal {
		s.line = true
		fmt.Fprintf(s.p.stderr, "\r\x1b[K%s", paint(s.p.stderr, faint, text))
	}
}

// close wipes that line away.
func (s *show) close() {
	if s.line {
		s.line = false
		fmt.Fprint(s.p.stderr, "\r\x1b[K")
	}
}

// printable is a text with escapes in place of what would move the cursor of a terminal, hide something, or is no text: for
// what strangers sent.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && size == 1 || !strconv.IsPrint(r) {
			b.WriteString(strings.Trim(strconv.Quote(s[:size]), `"`))
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}
