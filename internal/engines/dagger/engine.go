// Package dagger runs tools in containers of a Dagger engine.
//
// A run goes through the files in this order:
//
//	engine.go      New, Ready, Run, Close: the way of one run
//	examine.go     what the engine is, for who looks after it
//	spec.go        Check: what an engine of Dagger can do, and what not
//	session.go     one session with an engine, which all runs share; connected, probed and replaced in the background
//	cli.go         the dagger program that holds the session
//	container.go   what the container of a run is made of, asked for in as few queries as possible
//	secrets.go     what is the executor's own
//	mounts.go      files of the host, copied in, and their changes, brought back
//	exec.go        the tool is run; its end
//	logs.go        the log stream of the session: output while the tool runs
//	output.go      output to the writers, once and whole, whichever way it comes
//	files.go       where files pass through that are too large for memory, and what dead executors left there
//	errors.go      what the engine's errors mean
//	inside/        the program that stands beside a tool in its container
//	daggertest/    a session that runs commands without an engine, for tests
package dagger

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

var _ engines.Engine = (*Engine)(nil)

// Engine is the Dagger engine. Close ends its session and the program that holds it.
type Engine struct {
	config   Config
	log      zerolog.Logger
	secrets  []string // of which no mount shows anything
	sessions *sessions
	files    *files // config.DataDir, where there is one
	closing  sync.Once
}

// New makes the engine, which begins to connect in the background. It waits for nothing and fails only where an operator has to
// mend something; the error is a *contracts.Error.
func New(config Config, log zerolog.Logger) (*Engine, error) {
	if config.DockerSocket != "" && !config.AllowDockerSocket {
		log.Warn().Msg("execution.dagger.mount_docker_socket does nothing without policy.docker_socket: who has that socket is root on its host")
		config.DockerSocket = ""
	}
	if config.DockerSocket != "" && !socketThere(config.DockerSocket) {
		return nil, unavailable("execution.dagger.mount_docker_socket: there is no socket %s; start the Docker daemon, or set it to false", config.DockerSocket)
	}
	var own *files
	if config.DataDir != "" {
		var err error
		if own, err = claim(config.DataDir); err != nil {
			return nil, unavailable("the directory for files of runs: %s; set executor.data_dir to one that this user may write", err)
		}
		config.DataDir = own.dir
	}
	if !slices.Contains(config.Networks, "bridge") {
		log.Warn().Msg("the Dagger engine takes no contract without bridge in policy.network: all of its containers have that network")
	}
	if len(config.Limits) > 0 {
		log.Warn().Strs("limits", config.Limits).Msg("the Dagger engine cannot enforce execution.dagger.resource_limits; its tools run without")
	}
	return &Engine{config: config, log: log, secrets: slices.Concat(config.Secrets, CredentialFiles()), files: own, sessions: newSessions(config, log)}, nil
}

// Tier is how far tools are kept apart from the host.
func (e *Engine) Tier() string { return tier }

const tier = "container"

var isolation = contracts.Isolation{Tier: tier, Network: "bridge", Limits: "none"}

// Close ends the session. Runs that are still there are lost.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		e.sessions.close()
		if e.files != nil {
			e.files.close()
		}
	})
	return nil
}

// Ready is nil while there is a session whose engine answers. It waits a little for one that is being made.
func (e *Engine) Ready(ctx context.Context) error {
	s, err := e.sessions.get(ctx, readyWait)
	if err != nil {
		return err
	}
	defer s.release()
	if err := s.ask(ctx); err != nil {
		return unavailable("the Dagger engine does not answer: %s", short(err))
	}
	return nil
}

// Run implements engines.Engine.
func (e *Engine) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	exit := engines.Exit{Isolation: isolation}
	spec, ok := job.Spec.(*contracts.DaggerSpec)
	if !ok {
		return exit, contracts.Errorf(contracts.Unsupported, "the dagger engine cannot run a spec for %s", job.Spec.Engine())
	}
	if ctx.Err() != nil {
		return exit, context.Cause(ctx)
	}
	image := spec.Image
	if image == "" {
		image = e.config.DefaultImage
	}
	return e.run(ctx, job, spec, image, exit, stdout, stderr)
}

// run is Run with a spec that is ours, in an image; "" is one that holds nothing.
func (e *Engine) run(ctx context.Context, job *engines.Job, spec *contracts.DaggerSpec, image string, exit engines.Exit, stdout, stderr io.Writer) (engines.Exit, error) {
	exit.Notes = notesOf(job.Contract, spec)
	if len(e.config.Limits) > 0 {
		exit.Notes = append(exit.Notes, "not enforced by the dagger engine (execution.dagger.resource_limits): "+strings.Join(e.config.Limits, ", "))
	}
	c, err := e.plan(job, spec, image)
	if err != nil {
		return exit, err
	}
	defer closeMounts(c.mounts)
	s, err := e.sessions.get(ctx, readyWait)
	if err != nil {
		return exit, err
	}
	defer s.release()
	ctx, stop := bound(ctx, s.ctx)
	defer stop()

	r, err := e.prepare(ctx, s, c)
	if err != nil {
		var lost *lostError
		if errors.As(err, &lost) { // nothing was started: another engine may take it
			err = unavailable("%s", lost)
		}
		return exit, err
	}
	if ctx.Err() != nil {
		return exit, context.Cause(ctx)
	}
	if err := job.Starting(); err != nil {
		return exit, err
	}
	if !spec.Captures() {
		stdout, stderr = os.Stdout, os.Stderr
	}
	return e.exec(ctx, s, c, r, newOutput(stdout, stderr), exit)
}

// prepare makes the container, and tells of it if that takes long, as it does for an image that is pulled.
func (e *Engine) prepare(ctx context.Context, s *session, c *container) (*ready, error) {
	wait := e.config.PullTimeout
	if wait <= 0 {
		wait = pullTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, contracts.Errorf(contracts.ImageUnavailable,
		"the container of %s was not made within %s (execution.dagger.pull_timeout); look at the registry of its image, and at how much its mounts hold", c.image, wait))
	defer cancel()
	type answer struct {
		ready *ready
		err   error
	}
	made := make(chan answer, 1)
	go func() {
		r, err := s.prepare(ctx, c)
		made <- answer{r, err}
	}()
	clock := time.NewTimer(pullNotice)
	defer clock.Stop()
	for {
		select {
		case a := <-made:
			return a.ready, a.err
		case <-clock.C:
			c.job.Progress("prepare", "waiting for the Dagger engine to make the container of "+c.image, -1)
		}
	}
}

// lostError is the end of a session under a run.
type lostError struct{ cause error }

func (e *lostError) Error() string {
	return "the session with the Dagger engine was lost: " + e.cause.Error()
}

func (e *lostError) Unwrap() error { return e.cause }

// bound is a context that also ends with the session; its cause is a *lostError then.
func bound(ctx, session context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(session, func() { cancel(&lostError{context.Cause(session)}) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
