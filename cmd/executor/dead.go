package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

func (p *program) deadCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "dead", Short: "Look at requests that were given up on, and hand them in again", Args: unknownCommand,
		Long: `dead is about dead letters: requests that were rejected in a queue, or whose run is lost, unknown or unavailable, kept as they
came, with the reason and what led to it.
It reads and changes their stream, for which the user needs the rights of an operator.`,
		Example: "  executor dead ls --since 1h\n  executor dead show 17\n  executor dead replay 17 --edit",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.deadListCommand(), p.deadShowCommand(), p.deadReplayCommand(), p.deadRemoveCommand())
	return c
}

// span is a time that has passed, as a flag: also in days, which Go's durations do not have.
type span time.Duration

// String is the text of the default: none.
func (s *span) String() string { return "" }

// Type is what the help calls the value.
func (s *span) Type() string { return "duration" }

// Set reads a span.
func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		if n, err = strconv.ParseFloat(days, 64); n < 100*365 { // more would be too large for a Duration
			d = time.Duration(n * 24 * float64(time.Hour))
		}
	}
	if err != nil || d <= 0 {
		return errors.New("write a time above 0, as 30m, 12h or 7d")
	}
	*s = span(d)
	return nil
}

// ago is the time that was so long before now; none for 0.
func (s span) ago() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(s))
}

// oneOf finds a word that is none of those there are.
func oneOf[T ~string](flag, word string, known []T) error {
	var all []string
	for _, one := range known {
		all = append(all, string(one))
	}
	if word == "" || slices.Contains(all, word) {
		return nil
	}
	if near := contracts.Closest(word, all); near != "" {
		return usage("--%s %s: did you mean %q?", flag, word, near)
	}
	return usage("--%s %s: there are %s", flag, word, strings.Join(all, ", "))
}

// checkQueue finds what cannot be the engine of a letter: it may be any token of a subject, as of requests to a queue that no
// engine has.
func checkQueue(engine string) error {
	if engine == "" || oneToken.MatchString(engine) {
		return nil
	}
	return usage("--engine %q: a letter's engine is one token of a subject, without white space, dots and wildcards", engine)
}

var oneToken = regexp.MustCompile(`^[^.*>\s[:cntrl:]]+$`)

// deadList is what dead ls --json prints.
type deadList struct {
	Letters []client.DeadLetter `json:"letters"`
	More    bool                `json:"more,omitempty"` // there are older ones
}

func (p *program) deadListCommand() *cobra.Command {
	var flags serverFlags
	var engine, code string
	var since span
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List dead letters, the newest last", Args: none,
		Long:    `ls lists dead letters, the newest last: the number of each, since when it is there, which request it was, and why it was given up on.`,
		Example: "  executor dead ls --since 1h --code unknown_tool\n  executor dead ls --json | jq -r '.letters[] | select(.tool == \"text_analyzer\").letter'",
	}
	flags.register(c)
	c.Flags().StringVar(&engine, "engine", "", "only those of an `ENGINE`")
	c.Flags().StringVar(&code, "code", "", "only those with an error `CODE`, as unknown_tool")
	c.Flags().Var(&since, "since", "only those of the last `DURATION`, as 1h or 7d")
	c.Flags().IntVar(&limit, "limit", 50, "list the newest `N` at most")
	c.Flags().BoolVar(&asJSON, "json", false, "print the letters as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if limit <= 0 {
			return usage("--limit must be above 0")
		}
		if err := cmp.Or(checkQueue(engine), oneOf("code", code, contracts.Codes)); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		list := deadList{}
		// One more than is shown tells whether there are more.
		list.Letters, err = executors.DeadLetters(c.Context(), client.DeadFilter{Engine: engine, Code: client.Code(code), Since: since.ago(), Newest: limit + 1})
		if err != nil {
			return err
		}
		if n := len(list.Letters) - limit; n > 0 {
			list.Letters, list.More = list.Letters[n:], true
		}
		if asJSON {
			return p.printJSON(list)
		}
		if len(list.Letters) == 0 && engine != "" && !slices.Contains(contracts.Engines, engine) {
			if near := contracts.Closest(engine, contracts.Engines); near != "" {
				_, err := fmt.Fprintf(p.stdout, "there are no such dead letters; did you mean --engine %s?\n", near)
				return err
			}
		}
		return p.printDeadList(list, engine != "" || code != "" || since != 0)
	}
	return c
}

func (p *program) printDeadList(list deadList, chosen bool) error {
	if len(list.Letters) == 0 {
		text := "there are no dead letters"
		if chosen {
			text = "there are no such dead letters"
		}
		_, err := fmt.Fprintln(p.stdout, text)
		return err
	}
	rows := [][]string{{"LETTER", "AGE", "ENGINE", "TOOL", "ID", "CODE", "ATTEMPTS"}}
	for _, l := range list.Letters {
		rows = append(rows, []string{number(l.Letter), age(l.Kept), printable(l.Engine), cmp.Or(printable(l.Tool), "-"), cmp.Or(printable(l.ID), "-"),
			printable(string(l.Error.Code)), strconv.Itoa(l.Attempts)})
	}
	if err := p.table(rows); err != nil {
		return err
	}
	if list.More {
		fmt.Fprintf(p.stdout, "these are the newest %d; --limit shows more\n", len(list.Letters))
	}
	return nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// checkLetters finds what can be neither the number of a letter nor the id of a run.
func checkLetters(args []string) error {
	for _, arg := range args {
		if strings.Trim(arg, "0123456789") == "" {
			if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
				return usage("%q is not the number of a dead letter", arg)
			}
		} else if err := checkRun(arg); err != nil {
			return err
		}
	}
	return nil
}

// letters reads the dead letters that are named by number or id, each once. What is all digits is a number.
func letters(ctx context.Context, executors *client.Client, args []string) ([]*client.DeadLetter, error) {
	var all []client.DeadLetter
	var found []*client.DeadLetter
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			if all == nil {
				if all, err = executors.DeadLetters(ctx, client.DeadFilter{}); err != nil {
					return nil, err
				}
			}
			if n, err = letterOf(all, arg); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(found, func(l *client.DeadLetter) bool { return l.Letter == n }) {
			continue
		}
		letter, err := executors.DeadLetter(ctx, n)
		if errors.Is(err, client.ErrNoDeadLetter) {
			return nil, fmt.Errorf("there is no dead letter %s; executor dead ls lists those there are", arg)
		}
		if err != nil {
			return nil, err
		}
		found = append(found, letter)
	}
	return found, nil
}

// letterOf finds the letter of a run. There can be several: a request may come again, or another one with its id.
func letterOf(all []client.DeadLetter, id string) (uint64, error) {
	var numbers, ids []string
	var last uint64
	for _, l := range all {
		if l.ID == id {
			numbers, last = append(numbers, number(l.Letter)), l.Letter
		}
		ids = append(ids, l.ID)
	}
	switch len(numbers) {
	case 0:
		if near := contracts.Closest(id, ids); near != "" {
			return 0, fmt.Errorf("there is no dead letter of %s; did you mean %q?", id, near)
		}
		return 0, fmt.Errorf("there is no dead letter of %s; executor dead ls lists those there are", id)
	case 1:
		return last, nil
	}
	return 0, fmt.Errorf("there are several dead letters of %s; name one by its number: %s", id, strings.Join(numbers, ", "))
}

// deadRemoved is what dead rm --json prints.
type deadRemoved struct {
	Removed int `json:"removed"`
}

func (p *program) deadRemoveCommand() *cobra.Command {
	var flags serverFlags
	var engine string
	var before span
	var all, yes, asJSON bool
	c := &cobra.Command{
		Use: "rm [LETTER|ID...]", Aliases: []string{"remove"}, Short: "Remove dead letters for good",
		Long: `rm removes dead letters for good, by number or by the id of the request, or all of them. On a terminal it asks before. With
--all it removes those that were there when it asked, not what has come since.`,
		Example: "  executor dead rm 17 18\n  executor dead rm --all --engine local --before 7d --yes",
	}
	flags.register(c)
	c.Flags().BoolVar(&all, "all", false, "remove all letters")
	c.Flags().StringVar(&engine, "engine", "", "with --all: only those of an `ENGINE`")
	c.Flags().Var(&before, "before", "with --all: only those older than a `DURATION`, as 12h or 7d")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&asJSON, "json", false, "print how many were removed, as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case all && len(args) > 0:
			return usage("--all is all letters; %q is too much", args[0])
		case !all && len(args) == 0:
			return usage("name the letters, by number or id, or --all")
		case !all && (engine != "" || before != 0):
			return usage("--engine and --before choose among --all")
		case all && !yes && !p.interactive():
			return usage("--all removes for good, and there is no terminal to ask; add --yes if it is meant")
		}
		if err := cmp.Or(checkQueue(engine), checkLetters(args)); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		remove := p.removeNamed
		if all {
			remove = func(ctx context.Context, executors *client.Client, _ []string, yes bool) (int, error) {
				return p.removeAll(ctx, executors, client.DeadFilter{Engine: engine, Before: before.ago()}, yes)
			}
		}
		n, err := remove(c.Context(), executors, args, yes)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(deadRemoved{n})
		}
		_, err = fmt.Fprintf(p.stdout, "removed %s\n", lettersText(n))
		return err
	}
	return c
}

func lettersText(n int) string {
	if n == 1 {
		return "1 dead letter"
	}
	return fmt.Sprintf("%d dead letters", n)
}

// errNotMeant ends a command whose question was answered by no.
var errNotMeant = errors.New("nothing was removed")

func (p *program) removeNamed(ctx context.Context, executors *client.Client, args []string, yes bool) (int, error) {
	list, err := letters(ctx, executors, args)
	if err != nil {
		return 0, err
	}
	if !yes && p.interactive() {
		if ok, err := p.ask(ctx, fmt.Sprintf("Remove %s for good?", lettersText(len(list))), false); err != nil || !ok {
			return 0, cmp.Or(err, errNotMeant)
		}
	}
	for i, l := range list {
		// Somebody may have been faster: it is gone, as is wanted.
		if err := executors.RemoveDeadLetter(ctx, l.Letter); err != nil && !errors.Is(err, client.ErrNoDeadLetter) {
			return i, fmt.Errorf("%w (%s removed before)", err, lettersText(i))
		}
	}
	return len(list), nil
}

func (p *program) removeAll(ctx context.Context, executors *client.Client, filter client.DeadFilter, yes bool) (int, error) {
	list, err := executors.DeadLetters(ctx, filter)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	if !yes {
		if ok, err := p.ask(ctx, fmt.Sprintf("Remove %s for good?", lettersText(len(list))), false); err != nil || !ok {
			return 0, cmp.Or(err, errNotMeant)
		}
	}
	return len(list), executors.RemoveDeadLetters(ctx, filter.Engine, list[len(list)-1].Letter)
}
