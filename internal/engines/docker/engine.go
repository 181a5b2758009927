// Package docker runs tools in containers of a Docker daemon.
//
// A run goes through the files in this order:
//
//	engine.go       Check, Ready, Run: the way of one run
//	daemon.go       the connection to the daemon; what it offers
//	image.go        the image is there, pulled if need be; credentials.go
//	plan.go         the container that a contract asks for, hardened; what cannot be enforced
//	caches.go       named caches, which are volumes
//	warm.go         a container made ahead, if there is one
//	anchor.go       brings this program to the daemon: it is the first process of every container
//	container.go    else a new one: create, attach, start
//	boot/           the first process: finds the tool, starts it, ends all with it, says how it ended
//	stream.go       tells the tool's output and the words of the first process apart
//	graves.go       removes the container
//	reap.go         removes what dead executors left
//
// Why a first process of our own: a daemon cannot say whether a command is there before it starts it, tells 137 from SIGKILL
// as little as a tool's usage, gives every process of a container but the first no chance to end in order, and forgets output that
// is not read within two seconds after the end. And a container that waits in its first process can be made ahead, and
// gets environment, arguments and stdin exactly as one that is made for its run.
package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

var _ engines.Engine = (*Engine)(nil)

// Tier is what results say about the isolation of containers.
const Tier = "container"

// Engine is the Docker engine. Close ends what waits for runs and removes what it made on the daemon.
type Engine struct {
	config Config
	log    zerolog.Logger
	name   string // of this engine: the beginning of the names of its containers
	daemon *daemon
	images *images
	graves *graves
	anchor *anchor
	warm   *warm
	number atomic.Int64 // of containers
	held   *names

	secrets []string // of which no mount shows anything

	caching sync.Map // by the name of a cache: a place (chan struct{}) for the one run that makes it ready
	cached  names    // the caches that were made ready

	background context.Context
	stop       context.CancelFunc
	work       sync.WaitGroup
	closing    sync.Once
}

// New makes the engine. It does not ask the daemon anything, which may be down and come back: Ready does. A *contracts.Error says what
// the operator has to mend.
func New(config Config, log zerolog.Logger) (*Engine, error) {
	d, err := connect(config)
	if err != nil {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "%s; set execution.docker.host", err)
	}
	random := make([]byte, 6)
	rand.Read(random)
	e := &Engine{config: config, log: log, name: "executor-" + hex.EncodeToString(random), daemon: d, held: &names{}, secrets: slices.Concat(config.Secrets, CredentialFiles(config))}
	e.images = newImages(d, config)
	e.graves = newGraves(d, log)
	e.background, e.stop = context.WithCancel(context.Background())
	e.anchor = newAnchor(e.background, d, config, e.name, e.labels(roleAnchor, time.Time{}), e.graves, e.held)
	e.warm = newWarm(e, config.Warm)
	e.work.Go(func() { e.warm.keep(e.background) })
	e.work.Go(func() { e.keepOrder(e.background) })
	if len(config.PrePull) > 0 {
		e.work.Go(func() { e.prePull(e.background) })
	}
	return e, nil
}

// mostClosing is how long Close waits for the daemon. What is there still has lost its connection, and so ends by itself. A variable for tests.
var mostClosing = 10 * time.Second

// Close removes what the engine made on the daemon, as far as that answers in time. No run may be under way.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		timer := time.AfterFunc(mostClosing, e.graves.end)
		defer e.graves.end()
		defer timer.Stop()
		e.stop()
		e.work.Wait()
		e.warm.close()
		e.anchor.close()
		e.graves.wait()
		_ = e.daemon.Close() // which closes idle connections and never fails
	})
	return nil
}

func (e *Engine) now() time.Time { return time.Now() }

// Tier is how far tools are kept apart from the host.
func (e *Engine) Tier() string { return Tier }

// Check refuses what this daemon cannot enforce, as far as it has said what it can.
func (e *Engine) Check(c *contracts.Contract) error {
	spec, ok := c.SpecFor(contracts.EngineDocker).(*contracts.DockerSpec)
	if !ok {
		return contracts.Errorf(contracts.Unsupported, "the contract of %s has no engine_spec for the docker engine", c.Name)
	}
	if _, err := engines.ImageName(spec.Image); err != nil {
		return err
	}
	return e.refuse(spec, e.daemon.offered())
}

// Ready is nil while the daemon answers and this program is on it.
func (e *Engine) Ready(ctx context.Context) error {
	bounded, cancel := e.daemon.bounded(ctx)
	defer cancel()
	if _, err := e.daemon.Ping(bounded); err != nil {
		e.daemon.forget()
		return e.daemon.unavailable("ask for the Docker daemon", err)
	}
	info, err := e.daemon.look(ctx, true)
	if err != nil {
		return err
	}
	if _, known := info.Runtimes[e.config.Runtime]; e.config.Runtime != "" && !known {
		e.daemon.forget()
		return contracts.Errorf(contracts.EngineUnavailable, "the Docker daemon at %s has no runtime %q; install it there, or change execution.docker.runtime", e.daemon.host, e.config.Runtime)
	}
	if _, err = e.anchor.get(ctx); err != nil && ctx.Err() != nil {
		return contracts.Errorf(contracts.EngineUnavailable, "this program, which containers start with, is still on its way to the Docker daemon at %s; that goes on, so wait, and look at the connection if it takes longer than execution.docker.pull_timeout", e.daemon.host)
	}
	return err
}

// Run implements engines.Engine.
func (e *Engine) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	return e.run(ctx, job, e.images, stdout, stderr)
}

func (e *Engine) run(ctx context.Context, job *engines.Job, images *images, stdout, stderr io.Writer) (engines.Exit, error) {
	exit := engines.Exit{Isolation: contracts.Isolation{Tier: Tier, Network: "none", Limits: "none"}}
	spec, ok := job.Spec.(*contracts.DockerSpec)
	if !ok {
		return exit, contracts.Errorf(contracts.Unsupported, "the docker engine cannot run a spec for %s", job.Spec.Engine())
	}
	if !spec.Captures() {
		stdout, stderr = os.Stdout, os.Stderr
	}
	if ctx.Err() != nil {
		return exit, context.Cause(ctx)
	}
	info, err := e.daemon.look(ctx, true)
	if err != nil {
		return exit, err
	}
	if err := e.refuse(spec, info); err != nil {
		return exit, err
	}
	img, pulled, err := images.get(ctx, spec.Image, spec.Platform, job.Progress)
	exit.Stages.Pull = pulled
	if err != nil {
		return exit, err
	}
	p, err := e.plan(job, spec, img, info)
	if err != nil {
		return exit, err
	}
	exit.Isolation.Network, exit.Isolation.Limits = p.network, limitsOf(p, info)
	exit.Notes = e.notes(job.Contract, spec, p, info)
	request, err := e.request(job, spec, p)
	if err != nil {
		return exit, err
	}
	for _, name := range p.caches {
		if err := e.readyCache(ctx, name); err != nil {
			return exit, err
		}
	}
	b, used, err := e.obtain(ctx, job, p, request)
	defer used()
	if err != nil {
		return exit, err
	}
	exit.Stages.Create, exit.Stages.Start = b.create, b.start
	if ctx.Err() != nil {
		b.discard()
		return exit, context.Cause(ctx)
	}
	if err := job.Starting(); err != nil {
		b.discard()
		return exit, err
	}
	end, err := b.run(ctx, e.config.KillGrace, stdout, stderr)
	return e.ended(ctx, b, request, exit, end, err)
}

// ended says how a run ended.
func (e *Engine) ended(ctx context.Context, b *box, q *boot.Request, exit engines.Exit, end boot.End, err error) (engines.Exit, error) {
	if err != nil {
		memory, state := false, ""
		if ctx.Err() == nil { // where nobody waits for the answer the daemon is not asked
			memory, state = b.outOfMemory(ctx, true)
		}
		b.discard()
		switch {
		case ctx.Err() != nil:
			return exit, context.Cause(ctx)
		case memory: // with its first process
			exit.Signal, exit.OOMKilled = "SIGKILL", true
			return exit, nil
		}
		if state != "" {
			state = " (" + state + ")"
		}
		return exit, fmt.Errorf("the docker engine lost the tool: %w%s; was the daemon at %s restarted?", err, state, e.daemon.host)
	}
	exit.Code, exit.Signal = end.Code, end.Signal
	exit.Usage = contracts.Usage{CPUMS: float64(end.CPU) / float64(time.Millisecond), MaxRSSBytes: end.MaxRSS}
	exit.OOMKilled = end.OOM > 0 && (end.Signal != "" || end.Code != 0)
	if end.OOM < 0 && end.Signal == "SIGKILL" && !end.Stopped { // its runtime does not show the counters inside
		exit.OOMKilled, _ = b.outOfMemory(ctx, false)
	}
	b.leave()
	switch {
	case end.Error != "":
		return exit, contracts.Errorf(contracts.SpawnFailed, "%s cannot be started: %s", q.Argv[0], spawnProblem(end))
	case end.Stopped && ctx.Err() != nil:
		return exit, context.Cause(ctx)
	}
	return exit, nil
}

// spawnProblem explains an execve that failed although the command was found.
func spawnProblem(end boot.End) string {
	switch end.Errno {
	case 8: // ENOEXEC
		return "it is not a program that this system can run; a script needs a first line as #!/bin/sh, and a program has to be for the daemon's processor"
	case 2: // ENOENT
		return "the interpreter in its first line, or a library loader, is not in the image"
	}
	return end.Error
}

// limitsOf says what enforces the limits of a container.
func limitsOf(p *plan, info *system.Info) string {
	if p.host.PidsLimit == nil && p.host.Memory == 0 && p.host.NanoCPUs == 0 || !info.MemoryLimit && !info.PidsLimit {
		return "none"
	}
	return "cgroup"
}

// obtain returns a container whose tool can be started: one that waits for a run, or a new one. used ends the run's use of it.
func (e *Engine) obtain(ctx context.Context, job *engines.Job, p *plan, q *boot.Request) (_ *box, used func(), err error) {
	b, used := e.warm.take(p)
	if b != nil {
		b.create, b.start = 0, 0 // nobody waited for it
		err := b.prepare(ctx, q)
		if err == nil {
			return b, used, nil
		}
		b.discard()
		if ctx.Err() != nil {
			return nil, used, context.Cause(ctx)
		}
		if code := contracts.AsError(err).Code; code != contracts.EngineUnavailable {
			return nil, used, err // as any other would
		}
	}
	labels := e.labels(roleRun, e.deadline(p))
	labels[labelRun], labels[labelTool] = job.ID, job.Contract.Name
	if b, err = e.open(ctx, p, labels); err != nil {
		return nil, used, err
	}
	if err = b.prepare(ctx, q); err == nil && p.apart {
		err = p.unchanged()
	}
	if err != nil {
		b.discard()
		if ctx.Err() != nil {
			return nil, used, context.Cause(ctx)
		}
		return nil, used, err
	}
	return b, used, nil
}
