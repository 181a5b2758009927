// Package local runs tools as processes of this machine.
//
// A run goes through the files in this order:
//
//	engine_linux.go      Check, Ready, Run: the way of one run
//	tier_linux.go        how far tools are kept apart from the host: what works here
//	bubblewrap_linux.go  the tier in which another program makes namespaces
//	landlock_linux.go    the tier that does without
//	workspace_linux.go   its private directories, the file of its arguments, its named caches
//	untouched_linux.go   whether those can serve another run
//	view_linux.go        what a tool in a sandbox sees of the host
//	limits_linux.go      the limits of a run, and what enforces them
//	cgroup_linux.go      the cgroups for that
//	command_linux.go     what is executed, where
//	allow_linux.go       whether the operator allows that
//	ordinary_linux.go    runs whose contract wants no sandbox
//	supervisor_linux.go  hands it to a shim and hears how it ended
//	wire_linux.go        what the two say to each other
//	shim_linux.go        the small process that starts it, and sees to it that nothing of it stays
//	tree_linux.go        all descendants of a process, and their end
//	sandbox/             makes a sandbox, and starts the tool in it
//	remove_linux.go      removes directories, whatever is in them
//
// Why a shim: a process that calls setsid and forks twice leaves its process group and its parent, and nothing in
// the kernel but a parent that adopts orphans (PR_SET_CHILD_SUBREAPER), a pid namespace or a cgroup still knows whose it
// was. A shim is such a parent, has one run at a time, and sees the executor's death as the end of a socket.
package local

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

var _ engines.Engine = (*Engine)(nil)

// Engine is the local engine. Close ends its helpers and removes its directory.
type Engine struct {
	config  Config
	log     zerolog.Logger
	space   *space
	shims   *supervisor
	tier    string
	probing bool     // tiers are tried
	weaker  []string // why no stronger one is used
	detail  string   // by what the tier is enforced
	lacks   []string // what it cannot do here that it can elsewhere
	view    *view    // what all tools see; nil: everything
	cgroups *groups  // nil: there are none
	bare    bare     // for runs without a sandbox, where others have one
	closing sync.Once
}

// New makes the engine: it creates its directory below config.DataDir and removes what dead executors left there. A
// *contracts.Error says what the operator has to mend.
func New(config Config, log zerolog.Logger) (*Engine, error) {
	space, err := openSpace(config, log)
	if err != nil {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "the directory for runs: %s; set data_dir to a directory that this user may write", err)
	}
	e := &Engine{config: config, log: log, space: space, shims: newSupervisor(log)}
	if err := e.shims.warm(); err != nil {
		e.Close()
		return nil, contracts.Errorf(contracts.EngineUnavailable, "the helper that starts tools: %s", err)
	}
	if err := e.choose(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Tier is how far tools are kept apart from the host: one of Tiers.
func (e *Engine) Tier() string { return e.tier }

// TierDetail says by what the tier is enforced, what it lacks on this machine, and why no stronger one is used, each with what
// can be done about it; all are empty where there is nothing to say.
func (e *Engine) TierDetail() (by string, lacks, weaker []string) { return e.detail, e.lacks, e.weaker }

// prepareNamespaces makes the engine run tools in namespaces of their own.
func (e *Engine) prepareNamespaces() error {
	user, err := e.config.Sandbox.userOutside("/proc/self/uid_map", "/proc/self/gid_map")
	if err != nil {
		return err
	}
	if err := e.space.sandboxed(user); err != nil {
		return err
	}
	e.view = systemView(e.config.Sandbox, e.space.root, user)
	e.view.ready = true
	if e.config.KeepFiles {
		e.view.plan.WorkSize = 0
	}
	if e.cgroups == nil && !e.config.Sandbox.noGroups {
		e.cgroups = openGroups(e.log)
	}
	if e.config.Sandbox.PidsLimit > 0 && !e.limits(pidsController) {
		e.log.Warn().Int64("pids_limit", e.config.Sandbox.PidsLimit).Str("remedy", "a kernel of 5.14 or later, or "+groupsRemedy()).
			Msg("execution.local.sandbox.pids_limit cannot be enforced here; it holds for no tool")
	}
	return nil
}

// Close ends the helpers and removes the engine's directory. No run may be under way.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		e.shims.close()
		e.space.close()
		e.bare.close()
		e.cgroups.close()
	})
	return nil
}

// Check refuses what cannot be enforced for an ordinary process.
func (e *Engine) Check(c *contracts.Contract) error {
	spec, ok := c.SpecFor(contracts.EngineLocal).(*contracts.LocalSpec)
	if !ok {
		return contracts.Errorf(contracts.Unsupported, "the contract of %s has no engine_spec for the local engine", c.Name)
	}
	cannot := e.cannot(c, spec)
	if len(cannot) == 0 {
		return nil
	}
	slices.Sort(cannot)
	what, remedy := "runs ordinary processes here and", ""
	switch {
	case spec.Sandbox == contracts.SandboxNone:
		what = "runs a contract with sandbox: none as an ordinary process and"
	case e.view != nil:
		what = "in its sandbox " + e.tier
		if spec.MemoryLimit != 0 && !e.limits(memoryController) || spec.CPULimit != 0 && !e.limits(cpuController) || spec.PidsLimit != 0 && !e.limits(pidsController) {
			remedy = "; " + groupsRemedy()
		}
	}
	return contracts.Errorf(contracts.Unsupported, "the local engine %s cannot enforce %s; leave that out or use an engine that can%s", what, joinWords(cannot), remedy)
}

// cannot lists what of a spec cannot be done.
func (e *Engine) cannot(c *contracts.Contract, spec *contracts.LocalSpec) (list []string) {
	ordinary := e.ordinary(spec)
	links := ordinary || e.view.inPlace
	for what, asked := range map[string]bool{
		e.without(memoryController): spec.MemoryLimit != 0 && (ordinary || !e.limits(memoryController)),
		e.without(cpuController):    spec.CPULimit != 0 && (ordinary || !e.limits(cpuController)),
		e.without(pidsController):   spec.PidsLimit != 0 && (ordinary || !e.limits(pidsController)),
		"sandbox: " + spec.Sandbox:  e.tooWeak(spec),
		"mounts":                    ordinary && len(spec.Mounts) > 0,
		"mounts elsewhere than where they are: there is no view of files that could differ from the host's": links && !ordinary && slices.ContainsFunc(spec.Mounts, func(m contracts.Mount) bool { return sameElsewhere(c, m) }),
		"network: " + spec.Network:     spec.Network != "" && spec.Network != "host" && (ordinary || spec.Network != "none"),
		"cache_mounts outside of HOME": links && slices.ContainsFunc(spec.CacheMounts, func(c contracts.CacheMount) bool { return !strings.HasPrefix(c.Path, "~/") }),
		"cache_mounts that overlap":    overlap(spec.CacheMounts, links),
	} {
		if asked {
			list = append(list, what)
		}
	}
	return list
}

// without names a limit that a sandbox has only by cgroups.
func (e *Engine) without(controller string) string {
	if e.view == nil {
		return controller + "_limit"
	}
	return controller + "_limit, for which there are no cgroups here"
}

// overlap reports whether one cache would be where another is, or be all of HOME. Without a sandbox it may not lie in
// another either: caches are links there, and a link in a cache would stay.
func overlap(caches contracts.CacheMounts, links bool) bool {
	for i, one := range caches {
		for j, other := range caches {
			if i != j && (other.Path == one.Path || links && strings.HasPrefix(other.Path+"/", one.Path+"/")) {
				return true
			}
		}
		if one.Path == "~/." {
			return true
		}
	}
	return false
}

// Ready is nil while the engine's directory can be written.
func (e *Engine) Ready(context.Context) error {
	if err := e.space.writable(); err != nil {
		return contracts.Errorf(contracts.EngineUnavailable, "the directory for runs: %s", err)
	}
	return nil
}

// Run implements engines.Engine.
func (e *Engine) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	exit := engines.Exit{Isolation: contracts.Isolation{Tier: TierNone, Network: "host", Limits: limitsNone}}
	spec, ok := job.Spec.(*contracts.LocalSpec)
	if !ok {
		return exit, contracts.Errorf(contracts.Unsupported, "the local engine cannot run a spec for %s", job.Spec.Engine())
	}
	var start startRequest
	var see *view
	var work *workspace // nil: its directories are made with its sandbox, and end with it
	space, err := e.spaceFor(spec)
	if err != nil {
		return exit, err
	}
	if !e.inMemory(spec) {
		if work, err = space.create(job); err != nil {
			return exit, err
		}
		defer work.remove()
		start.Remove = work.removeAfterDeath()
	}
	var home, temp, argsFile string
	if !e.ordinary(spec) {
		if e.view.inPlace {
			see, err = e.view.forRunInPlace(job.Contract, spec, work, e.config.Sandbox)
		} else {
			see, err = e.view.forRun(job.Contract, spec, space, work, e.config.Sandbox)
		}
		if err != nil {
			if work != nil {
				work.spoiled = e.view.inPlace
			}
			return exit, err
		}
		exit.Isolation.Tier = e.tier
		home, temp, argsFile = see.home, see.temp, see.argsFile
		if !see.plan.HostNetwork {
			exit.Isolation.Network = "none"
		}
		text, err := job.ArgsText()
		if err != nil {
			return exit, err
		}
		start.Args = string(text)
	} else {
		if err = work.link(spec.CacheMounts); err != nil {
			work.spoiled = true
			return exit, err
		}
		home, temp, argsFile = work.dir, work.tmp, work.argsFile
	}

	variables := contracts.Environment{
		Base:     e.base(home, temp),
		Contract: spec.Env, Passthrough: job.Passthrough,
		Args: job.Args, Context: job.Context,
		ArgsEnv: job.Contract.ArgsEnv, Declared: job.Contract.Parameters.Names(),
		ArgsFile: argsFile,
	}
	env, err := variables.Variables()
	if err != nil {
		return exit, err
	}
	start.Env = env
	if start.Dir, err = workingDirectory(job.Contract, spec, see, home); err != nil {
		return exit, err
	}
	if start.Path, start.Argv, err = command(job, spec, see, start.Dir, env); err != nil {
		return exit, err
	}
	if start.Path, err = e.allow(see, start.Path, spec.Shell); err == nil {
		err = e.unswayed(job.Contract, spec)
	}
	if err != nil {
		return exit, err
	}
	if err = fits(start.Argv, start.Env); err != nil {
		return exit, err
	}

	left := e.boundsOf(spec, see)
	if see != nil {
		left = e.byProcess(left, &see.plan)
	}
	group, err := e.cgroups.create(left)
	if err != nil {
		return exit, contracts.Errorf(contracts.EngineUnavailable, "make the cgroup of the run: %s", err)
	}
	defer group.remove()
	exit.Isolation.Limits = limitsOf(group, see)
	start.Cgroups = group.dirs()
	var plan []string
	look := ""
	if see != nil {
		start.Box, start.Tier = see.plan.Encode(), e.tier
		if see.ready && work == nil {
			plan, look = start.Box, see.look()
		}
	}

	streams, err := openStreams(job.Stdin, spec.Captures())
	if err != nil {
		return exit, contracts.Errorf(contracts.EngineUnavailable, "open the streams of the tool: %s", err)
	}
	defer streams.close()
	if see != nil && see.user >= 0 {
		streams.give(see.user)
	}
	shim, err := e.shims.get(plan, look)
	if err != nil {
		return exit, contracts.Errorf(contracts.EngineUnavailable, "start the helper that runs tools: %s", err)
	}
	if err := ctx.Err(); err != nil {
		e.shims.put(shim)
		return exit, context.Cause(ctx)
	}
	if err := job.Starting(); err != nil {
		e.shims.put(shim)
		return exit, err
	}
	if start.Ahead = plan != nil && shim.fits(plan, look); start.Ahead {
		start.Box = nil
	}
	shim.plan = nil
	ended, err := shim.run(ctx, start, streams, e.config.KillGrace, func() { streams.copy(stdout, stderr) })
	if err != nil {
		e.shims.discard(shim)
		if work != nil {
			work.spoiled = true
			killThoseOf(work.root)
		}
		streams.finish()
		return exit, fmt.Errorf("the helper that runs the tool: %w", err)
	}
	if plan != nil && ended.Error == "" {
		shim.ahead(plan, look)
	}
	e.shims.put(shim)
	streams.finish()

	exit.Usage = contracts.Usage{CPUMS: float64(ended.CPU) / float64(time.Millisecond), MaxRSSBytes: ended.MaxRSS}
	if ended.Error != "" {
		return exit, &startError{ended, contracts.Errorf(contracts.SpawnFailed, "%s", spawnMessage(start, ended))}
	}
	if status := syscall.WaitStatus(ended.Status); status.Signaled() {
		exit.Signal = signalName(status.Signal())
	} else {
		exit.Code = status.ExitStatus()
	}
	exit.OOMKilled = group.outOfMemory() && (exit.Signal != "" || exit.Code != 0)
	if ended.Stopped {
		return exit, context.Cause(ctx)
	}
	return exit, nil
}

// inMemory reports whether all directories of a run are part of its sandbox.
func (e *Engine) inMemory(spec *contracts.LocalSpec) bool {
	return !e.ordinary(spec) && e.view.ready && e.view.plan.WorkSize > 0
}

// base is the environment every tool starts from. Nothing of the executor's own is in it.
func (e *Engine) base(home, temp string) map[string]string {
	base := map[string]string{"PATH": e.config.Path, "HOME": home, "TMPDIR": temp, "LANG": "C.UTF-8"}
	maps.Copy(base, e.config.Env)
	return base
}

// signalName is SIGKILL and the like; SIG40 for one that has no name.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(s))
}

func joinWords(words []string) string {
	return strings.Join(words, ", ")
}

// startError is a tool that could not be started, with what the shim said.
type startError struct {
	ended ended
	cause *contracts.Error
}

func (e *startError) Error() string { return e.cause.Error() }

func (e *startError) Unwrap() error { return e.cause }

// spawnMessage explains an execve that failed although the command was found.
func spawnMessage(start startRequest, ended ended) string {
	if ended.Step != "" {
		return fmt.Sprintf("the sandbox cannot be made: %s: %s", ended.Step, ended.Error)
	}
	switch errno := syscall.Errno(ended.Errno); errno {
	case syscall.ENOEXEC:
		return fmt.Sprintf("%s is not a program that this system can run; a script needs a first line as #!/bin/sh", start.Path)
	case syscall.ENOENT:
		return fmt.Sprintf("%s cannot be started: the interpreter in its first line, or a library loader, does not exist here", start.Path)
	case syscall.E2BIG:
		return fmt.Sprintf("%s cannot be started: %s", start.Path, tooLarge)
	}
	return fmt.Sprintf("%s cannot be started: %s", start.Path, ended.Error)
}

// streams are the three standard streams of one run.
type streams struct {
	files   [3]*os.File // for the tool
	outputs [2]*os.File // our ends of stdout and stderr; nil where nothing is captured
	copying sync.WaitGroup
}

func openStreams(stdin []byte, capture bool) (*streams, error) {
	s := &streams{}
	var err error
	if s.files[0], err = engines.StdinFile(stdin); err != nil {
		return nil, err
	}
	for i := range s.outputs {
		if !capture {
			s.files[i+1] = []*os.File{os.Stdout, os.Stderr}[i]
			continue
		}
		if s.outputs[i], s.files[i+1], err = pipe(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// give makes our pipes those of the tool's user: many a tool opens /dev/stderr, which is to open the pipe once more.
func (s *streams) give(user int) {
	for i, r := range s.outputs {
		if r != nil {
			_ = unix.Fchown(int(s.files[i+1].Fd()), user, user) // then it cannot be opened again
		}
	}
}

// pipe is os.Pipe whose write end stays in blocking mode, as a tool expects of its stdout.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output"), nil
}

// started closes our copies of the tool's ends, so that the end of the tool is the end of its output.
func (s *streams) started() {
	for i, f := range s.files {
		if f != nil && f != os.Stdout && f != os.Stderr {
			f.Close()
		}
		s.files[i] = nil
	}
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// copy begins to hand output to the writers. A writer that fails has the rest of its stream read and dropped, so that
// the tool does not hang.
func (s *streams) copy(stdout, stderr io.Writer) {
	for i, w := range []io.Writer{stdout, stderr} {
		if r := s.outputs[i]; r != nil {
			s.copying.Go(func() { copyStream(r, w) })
		}
	}
}

func copyStream(r *os.File, w io.Writer) {
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	left := -1 // bytes that still count; below 0: all
	grown := false
	for left != 0 {
		n, err := r.Read(*buffer)
		if n == len(*buffer) && !grown {
			grown = true
			growPipe(r)
		}
		if left > 0 {
			n = min(n, left)
			left -= n
		}
		if n > 0 && w != nil {
			if _, failed := w.Write((*buffer)[:n]); failed != nil {
				w = nil
			}
		}
		switch {
		case err == nil:
		case left < 0 && os.IsTimeout(err):
			// The tree is gone, and either w took its time, or a stranger holds the other end: what is in the pipe now is
			// all that can be the tool's.
			left = waiting(r)
			r.SetReadDeadline(time.Time{})
		default:
			return
		}
	}
}

// growPipe makes room for a tool that prints much: it and we wake each other less often. Most tools print little, and the
// system call would cost them more than it saves. Where the user has no more room for pipes, it stays as it is.
func growPipe(r *os.File) {
	const size = 512 << 10
	if raw, err := r.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
	}
}

// waiting is how many bytes a pipe holds.
func waiting(r *os.File) (n int) {
	if raw, err := r.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

// strangerWait is how long output may go on after the whole tree of the tool is gone. Only somebody outside the tree, to
// whom the tool passed its stdout, can make it last that long.
const strangerWait = time.Second

// finish waits for all output of a tool whose tree is gone.
func (s *streams) finish() {
	for _, r := range s.outputs {
		if r != nil {
			r.SetReadDeadline(time.Now().Add(strangerWait))
		}
	}
	s.copying.Wait()
}

// close releases what is still open.
func (s *streams) close() {
	s.started()
	for _, r := range s.outputs {
		if r != nil {
			r.Close()
		}
	}
}
