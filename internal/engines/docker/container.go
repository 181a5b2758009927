package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/stdcopy"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// box is a container whose first process waits for a request, or runs it. It serves one run.
type box struct {
	daemon  *daemon
	graves  *graves
	held    *names
	name    string
	id      string
	streams types.HijackedResponse
	frames  chan frame
	stdout  *splitter
	stderr  *splitter
	over    chan struct{} // closed: the connection has ended
	moved   atomic.Int64  // grows while output is read
	writing atomic.Int32  // above 0 while a writer takes output
	created time.Time
	limited bool // by ulimits of the contract

	create, start time.Duration // how long that took
}

// newMark is a mark that nobody can guess.
func newMark() []byte {
	mark := make([]byte, boot.MarkSize)
	rand.Read(mark)
	mark[0] = boot.MarkFirst
	return mark
}

// open makes and starts a container. An error has left nothing.
func (e *Engine) open(ctx context.Context, p *plan, labels map[string]string) (*box, error) {
	b, retry, err := e.tryOpen(ctx, p, labels)
	if err != nil && retry && ctx.Err() == nil {
		b, _, err = e.tryOpen(ctx, p, labels)
	}
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return b, err
}

// tryOpen is open. retry says that what was missing is made anew by another try.
func (e *Engine) tryOpen(ctx context.Context, p *plan, labels map[string]string) (_ *box, retry bool, err error) {
	anchor, err := e.anchor.get(ctx)
	if err != nil {
		return nil, false, err
	}
	config, host := p.config, p.host
	config.Labels = labels
	host.VolumesFrom = []string{anchor + ":ro"}
	b := &box{daemon: e.daemon, graves: e.graves, held: e.held, name: fmt.Sprintf("%s-%d", e.name, e.number.Add(1)), frames: make(chan frame, 4), over: make(chan struct{}), created: time.Now(), limited: len(host.Ulimits) > 0}
	b.stdout, b.stderr = &splitter{box: b}, &splitter{box: b}
	e.held.hold(b.name) // before it is there: the reaper may look at any moment
	b.id, err = e.make(ctx, &config, &host, p.platform, b.name)
	if err != nil {
		e.held.release(b.name)
		if cerrdefs.IsNotFound(err) && strings.Contains(err.Error(), anchor) {
			e.anchor.lost(anchor)
			return nil, true, e.daemon.unavailable("make the container", err)
		}
		return nil, false, e.notMade(err)
	}
	b.create = time.Since(b.created)
	begun := time.Now()
	if b.streams, err = e.daemon.attach(ctx, b.id); err != nil {
		e.held.release(b.name)
		e.graves.bury(b.id, false)
		return nil, false, e.daemon.unavailable("attach to the container", err)
	}
	go b.pump()
	bounded, cancel := e.daemon.bounded(ctx)
	defer cancel()
	if err := e.daemon.ContainerStart(bounded, b.id, container.StartOptions{}); err != nil {
		b.discard()
		return nil, false, e.notStarted(p, err)
	}
	b.start = time.Since(begun)
	return b, false, nil
}

// make makes a container. The daemon makes it also where nobody waits for the answer any more: the call goes on when ctx ends, and
// what comes of it is removed.
func (e *Engine) make(ctx context.Context, config *container.Config, host *container.HostConfig, platform *ocispec.Platform, name string) (string, error) {
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, 1)
	e.graves.do(func() {
		bounded, cancel := e.graves.bounded()
		defer cancel()
		made, err := e.daemon.ContainerCreate(bounded, config, host, nil, platform, name)
		if err != nil && bounded.Err() != nil {
			err = errSlow
		}
		answers <- answer{made.ID, err}
	})
	select {
	case a := <-answers:
		if errors.Is(a.err, errSlow) {
			e.graves.bury(name, false) // it may have been made all the same
		}
		return a.id, a.err
	case <-ctx.Done():
		e.graves.do(func() {
			if a := <-answers; a.err == nil || errors.Is(a.err, errSlow) {
				e.graves.bury(name, false)
			}
		})
		return "", context.Cause(ctx)
	}
}

// notMade explains why a container could not be made.
func (e *Engine) notMade(err error) error {
	text := tidy(err)
	switch {
	case cerrdefs.IsNotFound(err) && strings.Contains(strings.ToLower(text), "no such image"):
		return contracts.Errorf(contracts.ImageUnavailable, "the image was removed from the daemon at %s meanwhile: %s", e.daemon.host, text)
	case cerrdefs.IsInvalidArgument(err), cerrdefs.IsNotFound(err), cerrdefs.IsConflict(err):
		return contracts.Errorf(contracts.Unsupported, "the Docker daemon at %s refuses the container of this contract: %s", e.daemon.host, text)
	}
	return e.daemon.unavailable("make the container", err)
}

// mountedAt is how runtimes tell which mount failed.
var mountedAt = regexp.MustCompile(`to rootfs at "([^"]*)"`)

// misplaced is the place of a mount of a plan that the image, or another mount, has no room for; "" where it is not that.
func (p *plan) misplaced(text string) string {
	m := mountedAt.FindStringSubmatch(text)
	if m == nil || !slices.ContainsFunc([]string{"not a directory", "is a directory", "file exists", "read-only file system", "too many levels of symbolic links", "invalid argument"}, func(s string) bool { return strings.Contains(text, s) }) {
		return "" // as for lack of memory
	}
	_, memory := p.host.Tmpfs[m[1]]
	if !memory && !slices.ContainsFunc(p.host.Mounts, func(one mount.Mount) bool { return one.Target == m[1] }) {
		return ""
	}
	return m[1]
}

// notStarted explains why a container of a plan could not be started.
func (e *Engine) notStarted(p *plan, err error) error {
	text := tidy(err)
	place := p.misplaced(text)
	switch {
	case place != "":
		return contracts.Errorf(contracts.SpawnFailed, "mounts: the container has no place for what is to be at %s: a file has to lie over a file and a directory over a directory, and what is read-only gets no new ones (%s)", place, text)
	case len(p.host.Ulimits) > 0 && (strings.Contains(text, "rlimit") || strings.Contains(text, "too many open files") || strings.Contains(text, "cannot allocate memory")):
		return contracts.Errorf(contracts.Unsupported, "ulimits: with these the Docker daemon at %s cannot start a container: %s", e.daemon.host, text)
	case strings.Contains(text, "cpu.") && strings.Contains(text, "invalid argument"):
		return contracts.Errorf(contracts.Unsupported, "cpu_limit: the Docker daemon at %s cannot enforce that little; give it 10m or more (%s)", e.daemon.host, text)
	case strings.Contains(text, "uids and gids must be in range"):
		return contracts.Errorf(contracts.SpawnFailed, "user: %s", text)
	case strings.Contains(text, "unable to find user"), strings.Contains(text, "unable to find group"), strings.Contains(text, "no matching entries in passwd file"):
		return contracts.Errorf(contracts.SpawnFailed, "user: the image has no such user: %s; write numbers, as 1000:1000", text)
	case strings.Contains(text, "network") && (strings.Contains(text, "not found") || cerrdefs.IsNotFound(err)):
		return contracts.Errorf(contracts.Unsupported, "network: %s; make it on the daemon at %s (docker network create), or name one that is there", text, e.daemon.host)
	case strings.Contains(text, "exec format error"):
		return contracts.Errorf(contracts.EngineUnavailable, "this program, which containers start with, is not for the processor of the daemon at %s; set execution.docker.program to one that is", e.daemon.host)
	case strings.Contains(text, "could not select device driver"):
		return contracts.Errorf(contracts.Unsupported, "gpus: the Docker daemon at %s has none to offer (%s)", e.daemon.host, text)
	}
	return e.daemon.unavailable("start the container", err)
}

// pump reads what the container prints until the connection ends.
func (b *box) pump() {
	_, _ = stdcopy.StdCopy(b.stdout, b.stderr, b.streams.Reader) // that it ended is all there is to know
	b.stdout.close()
	b.stderr.close()
	close(b.over)
}

// dead reports whether the connection has ended.
func (b *box) dead() bool {
	select {
	case <-b.over:
		return true
	default:
		return false
	}
}

// command tells the first process what to do. That it cannot be told shows in the end of the connection.
func (b *box) command(one byte) {
	_ = b.write(context.Background(), []byte{one})
}

// write writes to the first process. Where that takes too long, or ctx is done before, the connection is closed: not all of them know
// deadlines (ssh), and what was written in part is of no use.
func (b *box) write(ctx context.Context, p []byte) error {
	ctx, cancel := b.daemon.bounded(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, b.streams.Close)
	_, err := b.streams.Conn.Write(p)
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

// discard ends a container that is of no use any more.
func (b *box) discard() {
	b.streams.Close() // the first process ends all of it
	b.held.release(b.name)
	b.graves.bury(b.id, false)
}

// errBroken is the end of the connection to a container before the container's.
var errBroken = errors.New("the connection to the container has ended")

// prepare gives the container its request and returns when its tool can be started.
func (b *box) prepare(ctx context.Context, q *boot.Request) error {
	b.stdout.expect(q.Mark)
	b.stderr.expect(q.Mark)
	switch err := b.write(ctx, q.Encode()); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errSlow):
		return b.daemon.unavailable("send the request to the container", err)
	case err != nil:
		return b.broken(ctx, err)
	}
	timer := time.NewTimer(b.daemon.timeout)
	defer timer.Stop()
	select {
	case f := <-b.frames:
		if f.kind == boot.Ready {
			return nil
		}
		return refusal(f)
	case <-b.over:
		select {
		case f := <-b.frames:
			if f.kind == boot.Cannot {
				return refusal(f)
			}
		default:
		}
		return b.broken(ctx, errBroken)
	case <-timer.C:
		return b.daemon.unavailable("prepare the tool in its container", errSlow)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func refusal(f frame) error {
	r, err := boot.DecodeRefusal(f.payload)
	switch {
	case err != nil || f.kind != boot.Cannot:
		return contracts.Errorf(contracts.EngineUnavailable, "the first process of the container speaks another language; is execution.docker.program of this version?")
	case r.Denied:
		return contracts.Errorf(contracts.PolicyDenied, "%s", r.Message)
	}
	return contracts.Errorf(contracts.SpawnFailed, "%s", r.Message)
}

// broken explains a container that ended before its tool was started.
func (b *box) broken(ctx context.Context, err error) error {
	said := b.stderr.text()
	state := ""
	ctx, cancel := b.daemon.cleaning(ctx)
	defer cancel()
	if found, err := b.daemon.ContainerInspect(ctx, b.id); err == nil && found.State != nil {
		if found.State.OOMKilled {
			return contracts.Errorf(contracts.Unsupported, "memory_limit: it is too small to start anything in the container; give it 16Mi or more")
		}
		state = "; " + stateOf(found.State)
	}
	if b.limited && (strings.HasSuffix(said, "resource temporarily unavailable") || strings.Contains(said, "increase max user processes")) { // what execve and our runtime say
		return contracts.Errorf(contracts.Unsupported, "ulimits: the user of the tool has more processes on the daemon's machine than nproc lets it have; make it larger, or use pids_limit")
	}
	if said != "" {
		said = ": " + said
	}
	return contracts.Errorf(contracts.EngineUnavailable, "the container ended before its tool was started (%s)%s%s", err, said, state)
}

// slack is how much longer than its grace a container may take to end before the daemon is asked to end it.
const slack = 5 * time.Second

// run starts the tool, hands its output to the writers, and returns when it has ended, with all that it started. When ctx is done it
// is asked to end, and after the grace it is ended.
func (b *box) run(ctx context.Context, grace time.Duration, stdout, stderr io.Writer) (boot.End, error) {
	b.stdout.to(stdout)
	b.stderr.to(stderr)
	b.command(boot.Go)
	var end boot.End
	stopping := ctx.Done()
	late := time.NewTimer(time.Hour)
	late.Stop()
	defer late.Stop()
	forced, moved := 0, int64(0)
	taken := 0
	take := func(f frame) (last bool) {
		if len(f.payload) > 0 {
			var err error
			if end, err = boot.DecodeEnd(f.payload); err != nil {
				end = boot.End{Error: err.Error()}
			}
		}
		taken++
		return taken == 2 // one on each stream
	}
	for {
		select {
		case f := <-b.frames:
			if take(f) {
				return end, nil
			}
		case <-b.over:
			for len(b.frames) > 0 {
				if take(<-b.frames) {
					return end, nil
				}
			}
			return end, errBroken
		case <-stopping:
			stopping = nil
			b.command(boot.Term)
			late.Reset(grace + slack)
		case <-late.C:
			late.Reset(slack)
			if now := b.moved.Load(); b.writing.Load() > 0 || now != moved {
				moved = now // output is still taken: what waits is not the container
				continue
			}
			switch forced++; forced {
			case 1:
				b.graves.kill(b.id)
			default:
				b.streams.Close() // the daemon does not answer
			}
		}
	}
}

// outOfMemory is what the daemon knows about a container whose first process could not tell. Of one that it has removed already only what
// happened to it is known. died: it is the first process that has ended. That is for lack of memory where it was killed; others of the container may have been before.
// state is what there is to say about the container where it is not that.
func (b *box) outOfMemory(ctx context.Context, died bool) (lacked bool, state string) {
	ctx, cancel := b.daemon.cleaning(ctx)
	defer cancel()
	found, err := b.daemon.ContainerInspect(ctx, b.id)
	if err == nil && found.State != nil {
		state = stateOf(found.State)
	}
	switch {
	case err != nil && !cerrdefs.IsNotFound(err):
		return false, ""
	case err == nil && found.State != nil && died && !found.State.Running && found.State.ExitCode != killed:
		return false, state
	case err == nil && found.State != nil && found.State.OOMKilled && (!died || !found.State.Running):
		return true, state
	}
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	most := mostTelling
	if died { // of which the daemon will tell, be it late; of others only where they lacked memory
		most = mostDying
	}
	timer := time.AfterFunc(most, cancel)
	defer timer.Stop()
	happened, failed := b.daemon.Events(ctx, events.ListOptions{
		Since: "1", Filters: filters.NewArgs(filters.Arg("container", b.id), filters.Arg("event", string(events.ActionOOM)), filters.Arg("event", string(events.ActionDie))),
	})
	for dead := false; ; {
		select {
		case one := <-happened: // the two come by different ways: lack of memory before the death that it is the cause of, or after
			if one.Action != events.ActionDie {
				lacked = true
			} else {
				dead = true
				timer.Reset(mostTelling)
				code := one.Actor.Attributes["exitCode"]
				if state = "it ended with exit code " + code; code != strconv.Itoa(killed) {
					return false, state
				}
			}
			if lacked && (dead || !died) {
				return true, state
			}
		case <-failed: //nolint:errcheck // that nothing is told is all there is to know
			return false, state
		}
	}
}

// stateOf is the state of a container in words.
func stateOf(s *container.State) string {
	return strings.TrimSpace(fmt.Sprintf("it is %s, with exit code %d %s", s.Status, s.ExitCode, s.Error))
}

// killed is the exit code of a process that SIGKILL has ended.
const killed = 137

// How long the daemon may take to tell how a container ended whose end its connection told.
const (
	mostDying   = 5 * time.Second // that its first process has ended: a busy one tells much later than the connection
	mostTelling = time.Second     // all else, which comes at about the time of the end, or never
)

// Labels of what the engine makes.
const (
	labelManaged  = "executor.managed"
	labelOwner    = "executor.owner"
	labelRun      = "executor.run"
	labelTool     = "executor.tool"
	labelDeadline = "executor.deadline" // seconds since 1970
	labelRole     = "executor.role"
)

// Values of labelRole.
const (
	roleAnchor = "anchor"
	roleRun    = "run"
	roleWarm   = "warm"
	roleCache  = "cache"
)

func (e *Engine) labels(role string, deadline time.Time) map[string]string {
	l := map[string]string{labelManaged: "true", labelOwner: e.name, labelRole: role}
	if !deadline.IsZero() {
		l[labelDeadline] = strconv.FormatInt(deadline.Unix(), 10)
	}
	return l
}

// leave has a container removed that ends by itself.
func (b *box) leave() {
	b.command(boot.Bye)
	b.streams.Close()
	b.held.release(b.name)
	b.graves.bury(b.id, true)
}
