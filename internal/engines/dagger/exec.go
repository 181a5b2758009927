package dagger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	sdk "dagger.io/dagger"
	"github.com/dagger/querybuilder"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

// exec runs the tool. An error after this point means that it did not run to its end.
func (e *Engine) exec(ctx context.Context, s *session, c *container, r *ready, out *output, exit engines.Exit) (engines.Exit, error) {
	if c.bare != "" {
		return e.execBare(ctx, s, c, r, out, exit)
	}
	t := newTrace()
	f := s.logs.follow(t)
	defer s.logs.forget(f)
	live := out.follow(f)
	defer live.finish()

	asked := time.Now()
	after, first, err := s.start(withTrace(ctx, t), c, r)
	if err != nil {
		if s.ctx.Err() == nil && s.logs.missing() == nil {
			f.drain()
		}
		live.finish()
		// What was printed can be read at the end of a tool only, and this one has none.
		switch {
		case s.logs.missing() != nil:
			exit.Notes = append(exit.Notes, "what the tool printed before it was stopped is lost: the Dagger engine has no log stream")
		case live.gap || s.ctx.Err() != nil:
			exit.Notes = append(exit.Notes, "some of what the tool printed before it was stopped is lost: the log stream of the Dagger engine left it out, or ended")
		}
		return e.broken(ctx, c, f, exit, err)
	}
	end, err := e.complete(ctx, s, live, after, first, out)
	if err != nil {
		if ctx.Err() == nil && !away(err) {
			return e.unread(ctx, s, c, r, after, end, exit, err)
		}
		if ctx.Err() != nil {
			return exit, context.Cause(ctx)
		}
		return exit, fmt.Errorf("read the output of the tool from the Dagger engine: %w", err)
	}
	if end == nil {
		return exit, contracts.Errorf(contracts.SpawnFailed, "the program that starts tools in containers did not run in %s: %s", c.image, f.errors.orElse("it said nothing"))
	}
	if missing := s.logs.missing(); missing != nil {
		exit.Notes = append(exit.Notes, "output came at the end of the run: the Dagger engine has no log stream")
	}
	if end.Root {
		return exit, deniedRoot(c.user)
	}
	if end.Unstarted != "" {
		return exit, contracts.Errorf(contracts.SpawnFailed, "%s", end.Unstarted)
	}
	came(&exit, end)
	if end.Dropped > 0 {
		exit.Notes = append(exit.Notes, fmt.Sprintf("the last %d bytes of the output were dropped: there was more than is taken (1 GiB, or execution.max_output_bytes where that is more)", end.Dropped))
	}
	// The log stream says nothing of a tool that did not run, and little of one that was quick: it comes late. So the time counts as
	// well, by two clocks that may differ.
	if received, _, _ := f.state(); c.spec.Cache && received == 0 && end.Began < asked.UnixMilli() && s.logs.missing() == nil {
		exit.Usage = contracts.Usage{} // that of the run before
		exit.Notes = append(exit.Notes, "the result comes from Dagger's cache; the tool did not run again (cache: true)")
	}
	err = s.bringBack(ctx, c, r, after, e.config.DataDir, &exit)
	return exit, err
}

// came says in an exit how the tool ended.
func came(exit *engines.Exit, end *inside.End) {
	exit.Code, exit.Signal = end.Code, end.Signal
	exit.Usage = contracts.Usage{CPUMS: end.CPUMS, MaxRSSBytes: end.MaxRSS}
}

// unread is the end of a tool whose output cannot be had for reasons that are on this side, as a full disk. It has run: it must not run
// again for that.
func (e *Engine) unread(ctx context.Context, s *session, c *container, r *ready, after string, end *inside.End, exit engines.Exit, err error) (engines.Exit, error) {
	how := "how is not known"
	if end != nil {
		came(&exit, end)
		how = cmp.Or(end.Signal, fmt.Sprintf("exit code %d", end.Code))
	}
	if back := s.bringBack(ctx, c, r, after, e.config.DataDir, &exit); ctx.Err() != nil {
		return exit, context.Cause(ctx)
	} else if back != nil {
		exit.Notes = append(exit.Notes, contracts.AsError(back).Message)
	}
	return exit, contracts.Errorf(contracts.Internal, "the tool ran to its end (%s), but not all of its output can be read: %s; see that there is room in executor.data_dir", how, short(err))
}

// await waits for a value; with no time it only looks.
func await[T any](c <-chan T, wait time.Duration) (value T, ok bool) {
	if wait <= 0 {
		select {
		case value = <-c:
			return value, true
		default:
			return value, false
		}
	}
	clock := time.NewTimer(wait)
	defer clock.Stop()
	select {
	case value = <-c:
		return value, true
	case <-clock.C:
		return value, false
	}
}

// start runs the tool to its end. It returns the id of the container as it then is, and the first part of what the program beside
// the tool printed.
func (s *session) start(ctx context.Context, c *container, r *ready) (after, first string, err error) {
	stdin, err := json.Marshal(inside.Plan{Argv: c.argv, Dir: r.workdir, Args: c.args, Stdin: c.job.Stdin, NoRoot: c.noRoot, Most: c.most, Secrets: slices.Sorted(maps.Keys(c.secrets))})
	if err != nil {
		return "", "", err
	}
	q := s.withExec(c, r, []string{inside.Program}, string(stdin)).Arg("redirectStderr", inside.Output)
	var answer struct{ ID, Stdout string }
	err = q.SelectFields("id", "stdout").Bind(&answer).Execute(ctx)
	return answer.ID, answer.Stdout, err
}

func (s *session) withExec(c *container, r *ready, argv []string, stdin string) *querybuilder.Selection {
	q := r.box.Select("withExec").Arg("args", argv).Arg("expect", sdk.ReturnTypeAny)
	if stdin != "" {
		q = q.Arg("stdin", stdin)
	}
	if c.spec.Privileged {
		q = q.Arg("insecureRootCapabilities", true)
	}
	return q
}

// complete sees to it that all output is written after the tool has ended: it comes by the stream, is in first, or is asked for. It
// returns how the tool ended, nil where nothing says so; with an error as well.
func (e *Engine) complete(ctx context.Context, s *session, live *live, after, first string, out *output) (*inside.End, error) {
	// What is little has come at once; for more it is worth to wait for the stream as long as that goes on.
	more := len(first) >= inside.FirstBytes/2
	for begun := time.Now(); more && ctx.Err() == nil; {
		if _, over := await(live.over, stalled/20); over {
			break
		}
		if _, last, lost := live.from.state(); lost || time.Since(begun) > stalled && time.Since(last) > stalled {
			break
		}
	}
	if end := live.finish(); end != nil {
		return end, nil
	}
	var d inside.Decoder
	if err := out.whole(&d, strings.NewReader(first)); err != nil || !d.More {
		return d.End, err
	}
	stage, err := os.MkdirTemp(e.config.DataDir, "dagger-output-")
	if err != nil {
		return d.Last, err
	}
	defer os.RemoveAll(stage)
	file := filepath.Join(stage, "output")
	if err := s.inContainer(after).Select("file").Arg("path", inside.Output).Select("export").Arg("path", file).Bind(new(string)).Execute(ctx); err != nil {
		return d.Last, err
	}
	text, err := os.Open(file)
	if err != nil {
		return d.Last, err
	}
	defer text.Close()
	if err = out.whole(&d, text); err == nil && d.End == nil {
		err = fmt.Errorf("%w: the last", inside.ErrGap)
	}
	return cmp.Or(d.End, d.Last), err
}

// broken says what an error of the query that runs the tool means.
func (e *Engine) broken(ctx context.Context, c *container, f *follower, exit engines.Exit, err error) (engines.Exit, error) {
	var failed *sdk.ExecError
	switch {
	case ctx.Err() != nil:
		return exit, context.Cause(ctx)
	case errors.As(err, &failed):
		// The program beside the tool always exits with 0, so something has ended it: the tool, or the host's want of memory.
		exit.Code, exit.Signal = 0, "SIGKILL"
		if n := failed.ExitCode - 128; n != 9 {
			exit.Code, exit.Signal = failed.ExitCode, ""
		}
		exit.Notes = append(exit.Notes, "the tool was ended together with the program that started it; its last output may be missing")
		if hasWritable(c.mounts) {
			exit.Notes = append(exit.Notes, "mounts: what the tool changed was not brought back: the Dagger engine keeps nothing of a tool that was ended so")
		}
		return exit, nil
	case away(err):
		return exit, fmt.Errorf("the Dagger engine was lost while the tool ran: %w", err)
	case holds(err, forbiddenWords):
		return exit, contracts.Errorf(contracts.Unsupported, "this Dagger engine forbids privileged: %s", short(err))
	}
	return exit, contracts.Errorf(contracts.SpawnFailed, "the Dagger engine cannot run the tool: %s; %s", short(err), f.errors.orElse("it printed nothing"))
}

// execBare runs the tool without a program of ours beside it, and so without what that is there for.
func (e *Engine) execBare(ctx context.Context, s *session, c *container, r *ready, out *output, exit engines.Exit) (engines.Exit, error) {
	exit.Notes = append(exit.Notes, "output came at the end of the run, as text in which bytes that are not UTF-8 are replaced, and a signal that ended the tool is an exit code: "+c.bare)
	if len(c.secrets) > 0 {
		exit.Notes = append(exit.Notes, "where a value of env_passthrough appears in the output, the Dagger engine writes *** in its place")
	}
	if !utf8.Valid(c.job.Stdin) {
		return exit, contracts.Errorf(contracts.SpawnFailed, "stdin is not UTF-8, and here the dagger engine takes nothing else: %s", c.bare)
	}
	var answer struct {
		ID             string
		ExitCode       int
		Stdout, Stderr string
	}
	q := s.withExec(c, r, c.argv, string(c.job.Stdin))
	err := q.SelectFields("id", "exitCode", "stdout", "stderr").Bind(&answer).Execute(withTrace(ctx, newTrace()))
	var failed *sdk.ExecError
	switch {
	case ctx.Err() != nil && err != nil:
		exit.Notes = append(exit.Notes, "what the tool printed before it was stopped is lost")
		return exit, context.Cause(ctx)
	case errors.As(err, &failed) && failed.ExitCode > 0:
		// 128 to 191: nothing of the container can be read afterwards.
		answer.ExitCode, answer.Stdout, answer.Stderr = failed.ExitCode, failed.Stdout, failed.Stderr
		if len(failed.Stdout) >= 100<<10 || len(failed.Stderr) >= 100<<10 {
			exit.Notes = append(exit.Notes, "of the output of a tool that exits with 128 to 191 the Dagger engine keeps 100 KiB")
		}
	case errors.Is(err, errTooLarge):
		if hasWritable(c.mounts) {
			exit.Notes = append(exit.Notes, "mounts: what the tool changed was not brought back")
		}
		return exit, contracts.Errorf(contracts.OutputLimit, "the tool ran to its end, but printed more than the %d MiB that the dagger engine takes where no program of ours stands beside it (%s); have it print less, or write to a mount", mostAnswer>>20, c.bare)
	case err != nil:
		return e.broken(ctx, c, &follower{}, exit, err)
	}
	out.emit(0, 0, []byte(answer.Stdout))
	out.emit(1, 0, []byte(answer.Stderr))
	exit.Code = answer.ExitCode
	if failed == nil {
		err = s.bringBack(ctx, c, r, answer.ID, e.config.DataDir, &exit)
		return exit, err
	}
	if hasWritable(c.mounts) {
		exit.Notes = append(exit.Notes, "mounts: what the tool changed was not brought back: the Dagger engine keeps nothing of a tool that exits with 128 to 191")
	}
	return exit, nil
}

func hasWritable(list []mount) bool {
	for _, m := range list {
		if m.writable {
			return true
		}
	}
	return false
}
