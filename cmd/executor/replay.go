package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

type replayFlags struct {
	serverFlags
	engine                                 string
	edit, noDeadline, remove, follow, json bool
}

// replayed is a line of what dead replay --json prints.
type replayed struct {
	Letter   uint64         `json:"letter"`
	ReplayOf string         `json:"replay_of"`
	ID       string         `json:"id,omitempty"` // of the new request; the rest as submit --json has it
	Stream   string         `json:"stream,omitempty"`
	Seq      uint64         `json:"seq,omitempty"`
	Reply    string         `json:"reply,omitempty"`
	Removed  bool           `json:"removed,omitempty"` // with --rm
	Error    *client.Error  `json:"error,omitempty"`   // of one that was refused
	Result   *client.Result `json:"result,omitempty"`  // with --follow
}

// labelReplayOf is the label of a replay that names the run it is a replay of.
const labelReplayOf = "replay_of"

func (p *program) deadReplayCommand() *cobra.Command {
	var flags replayFlags
	c := &cobra.Command{
		Use: "replay LETTER|ID...", Short: "Hand requests in again that were given up on", Args: some("the dead letters, by their numbers or the ids of the requests"),
		Long: `replay hands the requests of dead letters in again, by number or by the id of the request, and prints the id of each new
request. It is a new request: with a new id, because the result of the old one stays as it is, and with the label replay_of, which
names the old one and comes back in the result. It goes to the queue that the old one was in, engine and priority, unless --engine
says another. The old reply_to is left out, and the old headers: whoever waited there has gone long ago.

All letters are looked at before anything is handed in. A request that cannot be read, or whose deadline has passed, needs --edit, or
--no-deadline. What the executors refuse at once exits with 125, and becomes no second letter. The letters stay, and are marked
nowhere; --rm removes each when its replay is stored.`,
		Example: "  executor dead replay 17\n  executor dead replay 17 --edit --follow\n  executor dead ls --json --code unknown_tool | jq '.letters[].letter' | xargs executor dead replay --rm",
	}
	flags.register(c)
	c.Flags().BoolVar(&flags.edit, "edit", false, "change the request before, in the editor of $VISUAL or $EDITOR")
	c.Flags().StringVar(&flags.engine, "engine", "", "put it into the queue of another `ENGINE`")
	c.Flags().BoolVar(&flags.noDeadline, "no-deadline", false, "leave its deadline out")
	c.Flags().BoolVar(&flags.remove, "rm", false, "remove the letter when its replay is stored")
	c.Flags().BoolVarP(&flags.follow, "follow", "f", false, "show the output of the one replay to its end, and exit as executor run would")
	c.Flags().BoolVar(&flags.json, "json", false, "print a line of JSON for each")
	c.RunE = func(c *cobra.Command, args []string) error {
		if flags.follow && len(args) > 1 {
			return usage("--follow is for one letter; name only one, or follow each by executor logs -f")
		}
		if err := cmp.Or(oneOf("engine", flags.engine, contracts.Engines), checkLetters(args)); err != nil {
			return err
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		return p.replay(c.Context(), executors, args, &flags)
	}
	return c
}

func (p *program) replay(ctx context.Context, executors *client.Client, args []string, flags *replayFlags) error {
	found, err := letters(ctx, executors, args)
	if err != nil {
		return err
	}
	requests := make([]client.Request, len(found))
	for i, letter := range found {
		if requests[i], err = p.replayOf(ctx, letter, flags); err != nil {
			return err
		}
	}
	var refusals error
	for i, letter := range found {
		err := p.handInAgain(ctx, executors, letter, requests[i], flags)
		if code := (exitCode{}); errors.As(err, &code) && code.code == exitNotRun && len(found) > 1 { // others may do better
			fmt.Fprintln(p.stderr, "executor:", code.text)
			refusals = exitCodeOf(exitNotRun)
		} else if err != nil {
			return err
		}
	}
	return refusals
}

// replayOf makes the request that is a letter's replay.
func (p *program) replayOf(ctx context.Context, letter *client.DeadLetter, flags *replayFlags) (request client.Request, err error) {
	leave := []string{"id", "reply_to"}
	if flags.noDeadline {
		leave = append(leave, "deadline")
	}
	text := without(letter.Data, leave...)
	if !flags.edit {
		request, err = again(letter, text)
		if err != nil {
			return request, fmt.Errorf("letter %d: %w; --edit opens the request in an editor", letter.Letter, err)
		}
		return request, nil
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, text, "", "  ") != nil {
		pretty.Write(text) // it is what has to be mended
	}
	if !bytes.HasSuffix(pretty.Bytes(), []byte("\n")) {
		pretty.WriteByte('\n') // as editors leave it
	}
	err = p.edit(ctx, fmt.Sprintf("letter-%d.json", letter.Letter), pretty.Bytes(), func(text []byte) error {
		if flags.noDeadline {
			text = without(text, "deadline")
		}
		if json.Valid(letter.Data) { // else it is still in there
			if request, _ := contracts.DecodeRequest(text); request.ID != "" || request.ReplyTo != "" {
				return errors.New("a replay gets an id of its own and has no reply_to; leave them out")
			}
		}
		var err error
		request, err = again(letter, without(text, leave...))
		return err
	})
	if err != nil {
		return request, fmt.Errorf("letter %d: %w", letter.Letter, err)
	}
	return request, nil
}

// again checks a request and makes it a replay.
func again(letter *client.DeadLetter, text []byte) (client.Request, error) {
	request, err := contracts.DecodeRequest(text)
	if err != nil {
		return *request, errors.New(contracts.AsError(err).Message)
	}
	if !request.Deadline.IsZero() && request.Deadline.Before(time.Now()) {
		return *request, fmt.Errorf("deadline: it passed %s ago; --no-deadline leaves it out", age(request.Deadline))
	}
	if old, _ := contracts.DecodeRequest(letter.Data); request.Priority == old.Priority {
		request.Priority = letter.Priority // the queue said it, unless somebody has just changed it
	}
	request.ID = client.NewID()
	if request.Labels == nil {
		request.Labels = map[string]string{}
	}
	request.Labels[labelReplayOf] = replaced(letter)
	if len(request.Labels) > contracts.MaxLabels {
		return *request, fmt.Errorf("labels: there are as many as there may be, %d, and a replay needs one more, %s; take one out", contracts.MaxLabels, labelReplayOf)
	}
	return *request, nil
}

// replaced names what a replay is a replay of: the old request, or where its id could not be read the letter, in a way in
// which no id can be written.
func replaced(letter *client.DeadLetter) string {
	return cmp.Or(letter.ID, "letter:"+number(letter.Letter))
}

// without leaves keys out of a JSON object, and all else as it is, also what is wrong with it. What is no JSON object stays.
func without(text []byte, keys ...string) []byte {
	if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return text
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	_, _ = decoder.Token() // the brace
	var b bytes.Buffer
	b.WriteByte('{')
	for decoder.More() {
		token, _ := decoder.Token()
		key, _ := token.(string)
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return text // it is valid
		}
		if slices.Contains(keys, key) {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(key) // a text
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// handInAgain hands a replay in and says so. A refusal has the exit code of one.
func (p *program) handInAgain(ctx context.Context, executors *client.Client, letter *client.DeadLetter, request client.Request, flags *replayFlags) error {
	line := replayed{Letter: letter.Letter, ReplayOf: request.Labels[labelReplayOf]}
	accepted, err := executors.Submit(ctx, request, client.OnEngine(cmp.Or(flags.engine, letter.Engine)))
	if err != nil {
		hint := ""
		if refusal := (*client.Error)(nil); flags.engine == "" && !slices.Contains(contracts.Engines, letter.Engine) && !errors.Is(err, client.ErrNoExecutor) &&
			(!errors.As(err, &refusal) || refusal.Code == contracts.EngineUnavailable) {
			hint = "; --engine says another queue"
		}
		if flags.json && errors.As(err, &line.Error) {
			err = errors.Join(p.printJSON(line), refused(err))
		} else {
			err = refused(explain(err))
		}
		if code := (exitCode{}); errors.As(err, &code) {
			code.text = fmt.Sprintf("letter %d: %s%s", letter.Letter, code.text, hint)
			return code
		}
		return fmt.Errorf("letter %d: %w%s", letter.Letter, err, hint)
	}
	line.ID, line.Stream, line.Seq, line.Reply = accepted.ID, accepted.Stream, accepted.Seq, accepted.Reply
	if !flags.json {
		out := p.stdout
		if flags.follow { // which is the tool's
			out = p.stderr
		}
		if _, err := fmt.Fprintln(out, accepted.ID); err != nil {
			return err
		}
	}
	if flags.remove {
		if err := executors.RemoveDeadLetter(ctx, letter.Letter); err != nil && !errors.Is(err, client.ErrNoDeadLetter) {
			return fmt.Errorf("letter %d was handed in again as %s, and is still there: %w", letter.Letter, accepted.ID, err)
		}
		line.Removed = true
	}
	if flags.follow {
		return p.followReplay(ctx, executors, line, flags.json)
	}
	if flags.json {
		return p.printJSON(line)
	}
	return nil
}

// followReplay follows a replay to its end. Ctrl-C leaves it alone, as in logs.
func (p *program) followReplay(ctx context.Context, executors *client.Client, line replayed, asJSON bool) error {
	if asJSON {
		result, err := resultOf(ctx, executors, line.ID, true)
		if err != nil {
			return err
		}
		line.Result = result
		if err := p.printJSON(line); err != nil {
			return err
		}
		if code := codeOf(result); code != exitOK {
			return exitCodeOf(code)
		}
		return nil
	}
	event, err := p.logs(ctx, executors.Follow(line.ID), false)
	switch {
	case errors.Is(err, context.Canceled):
		return exitCode130
	case err != nil:
		return explain(err)
	}
	return p.ended(*event, false)
}
