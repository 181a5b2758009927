package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	posix "path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/strslice"
	"github.com/docker/docker/api/types/system"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// Directories that every container has.
const (
	home     = "/work"               // HOME, in memory
	temp     = "/tmp"                // TMPDIR, in memory
	own      = "/run/executor"       // in memory, for the file of arguments
	argsFile = own + "/args.json"    //
	caches   = "/run/executor-cache" // caches that lie below HOME, which links lead to
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// bootEnv is the environment of the first process of containers: it has one thing to do at a time, and little memory.
var bootEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// plan is a container as a contract wants it, made of nothing that differs between the runs of the contract: what a run adds is
// its Request. Containers of the same plan can so be made ahead.
type plan struct {
	config  container.Config
	host    container.HostConfig
	image   *image
	caches  []string // names of the volumes
	mounts  []boot.Mount
	links   []boot.Link
	network string // for people
	timeout time.Duration
}

// key is the same for the same container. The timeout is part of it: by that a container that was made ahead is known to be overdue.
func (p *plan) key() string {
	text, err := json.Marshal([]any{p.config, p.host, p.mounts, p.links, p.timeout})
	if err != nil {
		return "" // of no kind: never ahead
	}
	return string(text)
}

// plan works out the container of a contract.
func (e *Engine) plan(job *engines.Job, spec *contracts.DockerSpec, img *image, info *system.Info) (*plan, error) {
	p := &plan{image: img, network: e.network(spec), timeout: time.Duration(spec.Timeout)}
	if p.timeout == 0 {
		p.timeout = time.Duration(contracts.DefaultTimeout)
	}
	readOnly := e.config.ReadOnly
	if spec.ReadOnly != nil {
		readOnly = *spec.ReadOnly
	}
	memory, pids := bound(int64(spec.MemoryLimit), e.config.Memory, info.MemoryLimit), bound(spec.PidsLimit, e.config.Pids, info.PidsLimit)
	p.config = container.Config{
		Image: img.id, User: e.user(spec, img), Entrypoint: strslice.StrSlice{boot.Program}, Cmd: strslice.StrSlice{}, Env: bootEnv, WorkingDir: "/",
		OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		NetworkDisabled: p.network == "none", // much faster to make than a network "none", and as empty
		Healthcheck:     &container.HealthConfig{Test: []string{"NONE"}},
	}
	p.host = container.HostConfig{
		AutoRemove: true, LogConfig: container.LogConfig{Type: "none"}, NetworkMode: container.NetworkMode(p.network), IpcMode: container.IPCModePrivate,
		ReadonlyRootfs: readOnly, Privileged: spec.Privileged, Runtime: e.config.Runtime, ShmSize: bound(int64(spec.ShmSize), e.config.SharedSize, true),
		Tmpfs: map[string]string{},
		Resources: container.Resources{
			Memory: memory, NanoCPUs: 1e6 * bound(int64(spec.CPULimit), e.config.CPU, info.CPUCfsQuota),
		},
	}
	if memory > 0 && info.SwapLimit {
		p.host.MemorySwap = memory
	}
	if pids > 0 {
		pids += boot.Threads // which are not the tool's
		p.host.PidsLimit = &pids
	}
	if !spec.Privileged {
		p.host.CapDrop, p.host.SecurityOpt = strslice.StrSlice{"ALL"}, []string{"no-new-privileges"}
		if filter := filterFor(info); filter != "" {
			p.host.SecurityOpt = append(p.host.SecurityOpt, filter)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Ulimits)) {
		p.host.Ulimits = append(p.host.Ulimits, &container.Ulimit{Name: name, Soft: spec.Ulimits[name].Soft, Hard: spec.Ulimits[name].Hard})
	}
	if request, some := gpus(spec.GPUs); some {
		p.host.DeviceRequests = []container.DeviceRequest{request}
	}
	p.memory(home, e.config.HomeSize, ownedBy(p.config.User))
	p.memory(temp, e.config.TempSize, "mode=1777")
	p.memory(own, 0, ownedBy(p.config.User))
	for _, path := range slices.Sorted(maps.Keys(spec.Tmpfs)) {
		size := int64(spec.Tmpfs[path])
		if size == 0 {
			size = e.config.TempSize
		}
		p.memory(path, size, "mode=1777")
	}
	if err := e.placeMounts(p, job.Contract, spec); err != nil {
		return nil, err
	}
	p.placeCaches(spec.CacheMounts)
	return p, nil
}

// bound is the limit of a contract, else the operator's where the daemon can enforce it; 0: none. What the contract asks for and the
// daemon cannot was refused before.
func bound(asked, configured int64, can bool) int64 {
	if asked > 0 {
		return asked
	}
	if !can {
		return 0
	}
	return configured
}

// network is that of a contract.
func (e *Engine) network(spec *contracts.DockerSpec) string {
	if spec.Network != "" {
		return spec.Network
	}
	return e.config.Network
}

// user is whom a tool is: the contract's, else the image's, else the operator's. The first process of the container looks who
// that is, and refuses root where that is not allowed.
func (e *Engine) user(spec *contracts.DockerSpec, img *image) string {
	switch {
	case spec.User != "":
		return spec.User
	case spec.Privileged:
		return "0:0"
	case img.user != "" && !isRoot(img.user):
		return img.user
	}
	return e.config.User
}

func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "root" || strings.Trim(name, "0") == "" && name != ""
}

// ownedBy are the options of a directory in memory that is a user's alone, as far as his number is known.
func ownedBy(user string) string {
	id, group, _ := strings.Cut(user, ":")
	uid, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return "mode=1777"
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return fmt.Sprintf("mode=0700,uid=%d,gid=%d", uid, gid)
	}
	return fmt.Sprintf("mode=0700,uid=%d", uid)
}

// memory puts a directory in memory to a place.
func (p *plan) memory(path string, size int64, mode string) {
	options := "rw,exec,nosuid,nodev," + mode
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	} else {
		options += ",size=16m"
	}
	p.host.Tmpfs[path] = options
}

// taken are places of a container that no contract may have.
var taken = []string{boot.Dir, own, caches, "/proc", "/sys", "/dev"}

func takenBy(target string) string {
	for _, place := range taken {
		if target == place || strings.HasPrefix(target, place+"/") {
			return place
		}
	}
	return ""
}

// placeMounts adds the contract's mounts.
func (e *Engine) placeMounts(p *plan, c *contracts.Contract, spec *contracts.DockerSpec) error {
	for _, m := range spec.Mounts {
		if place := takenBy(m.Target); place != "" && !strings.HasPrefix(m.Target, "/dev/") {
			return contracts.Errorf(contracts.SpawnFailed, "mounts: %s has its place in the container already; mount %s elsewhere", place, m.Source)
		}
		source, writable, err := engines.MountSource(c, m, e.config.MountRoots)
		if socket, is := e.socket(c, m); is {
			source, writable, err = socket, m.Mode != "ro", nil
		}
		if err != nil {
			return err
		}
		if !e.config.DockerSocket && e.daemon.socketIn(source) {
			return contracts.Errorf(contracts.PolicyDenied, "mounts: %s is or holds the socket of the Docker daemon, with which a tool would be root on its machine; the operator can allow it by policy.docker_socket", m.Source)
		}
		if err := engines.SecretInMount(e.secrets, m.Source, source); err != nil {
			return err
		}
		if !e.daemon.local {
			return contracts.Errorf(contracts.Unsupported, "mounts: the Docker daemon at %s is on another machine, which has not the files of this one; leave them out, or use an executor beside the daemon", e.daemon.host)
		}
		dev, ino, err := identity(source)
		if err != nil {
			return contracts.Errorf(contracts.PolicyDenied, "mounts: %s: %s", m.Source, err)
		}
		delete(p.host.Tmpfs, m.Target)
		p.host.Mounts = append(p.host.Mounts, mount.Mount{Type: mount.TypeBind, Source: source, Target: m.Target, ReadOnly: !writable})
		p.mounts = append(p.mounts, boot.Mount{Target: m.Target, Dev: dev, Ino: ino})
	}
	return nil
}

// socket resolves a mount of the daemon's socket, where the operator allows that.
func (e *Engine) socket(c *contracts.Contract, m contracts.Mount) (string, bool) {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(c.BaseDir, source)
	}
	source, err := filepath.EvalSymlinks(source)
	return source, err == nil && e.config.DockerSocket && socketOf(source)
}

// placeCaches adds named volumes. One below HOME is reached by a link: the daemon would make the directories above it root's.
func (p *plan) placeCaches(list contracts.CacheMounts) {
	for _, cache := range list {
		volume := cacheVolume(cache.Name)
		target := cache.Path
		if below, inHome := strings.CutPrefix(target, "~/"); inHome {
			target = posix.Join(caches, cache.Name)
			p.links = append(p.links, boot.Link{Path: posix.Join(home, below), Target: target})
		}
		if !slices.ContainsFunc(p.host.Mounts, func(m mount.Mount) bool { return m.Target == target }) {
			delete(p.host.Tmpfs, target)
			p.host.Mounts = append(p.host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: volume, Target: target, VolumeOptions: &mount.VolumeOptions{NoCopy: true}})
		}
		p.caches = append(p.caches, cache.Name)
	}
}

// gpus is what the daemon is asked for; false: nothing.
func gpus(asked contracts.GPUs) (container.DeviceRequest, bool) {
	request := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	switch n, err := strconv.Atoi(string(asked)); {
	case asked == "":
		return request, false
	case asked == "all":
		request.Count = -1
	case err == nil:
		request.Count = n
	default:
		request.DeviceIDs = strings.Split(string(asked), ",")
	}
	return request, true
}

// request is what one run adds to its container.
func (e *Engine) request(job *engines.Job, spec *contracts.DockerSpec, p *plan) (*boot.Request, error) {
	variables := contracts.Environment{
		Base: e.base(p.image), Contract: spec.Env, Passthrough: job.Passthrough, Args: job.Args, Context: job.Context,
		ArgsEnv: job.Contract.ArgumentNames(), Declared: job.Contract.Parameters.Names(), ArgsFile: argsFile,
	}
	env, err := variables.Variables()
	if err != nil {
		return nil, err
	}
	argv, err := job.Argv()
	if err != nil {
		return nil, err
	}
	before := p.image.entrypoint
	if spec.Entrypoint != nil {
		before = spec.Entrypoint
	}
	argv = append(slices.Clone(before), argv...)
	text, err := job.ArgsText()
	if err != nil {
		return nil, contracts.Errorf(contracts.InvalidArgs, "the arguments cannot be written as JSON: %s", err)
	}
	q := &boot.Request{
		Mark: newMark(), Env: env, Argv: argv, Dir: directory(spec.Cwd, p.image.dir), ArgsFile: argsFile, ArgsText: text,
		Grace: e.config.KillGrace, NoRoot: !e.config.Root && !spec.Privileged, Mounts: p.mounts, Links: p.links, Stdin: job.Stdin,
	}
	return q, fits(argv, env)
}

// base is the environment every tool starts from: that of the image, and of its directories.
func (e *Engine) base(img *image) map[string]string {
	base := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8"}
	for _, entry := range img.env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			base[name] = value
		}
	}
	maps.Copy(base, e.config.Env)
	base["HOME"], base["TMPDIR"] = home, temp
	return base
}

// directory is where a tool starts: the contract's cwd, else that of the image, else HOME. A relative cwd begins at the image's.
func directory(cwd, ofImage string) string {
	if ofImage == "" || ofImage == "/" {
		ofImage = home
	}
	switch {
	case cwd == "":
		return ofImage
	case posix.IsAbs(cwd):
		return cwd
	}
	return posix.Join(ofImage, cwd)
}

const (
	maxElement   = 128 << 10 // bytes of an argument or variable with its NUL, as Linux has them
	maxArguments = 6 << 20   // bytes of all
	usualStack   = 8 << 20   // of which Linux gives a quarter to arguments and variables
)

// fits reports an error where Linux would not start a program for the size of its arguments and environment: better before the
// run is claimed than after.
func fits(argv, env []string) error {
	size := 0
	for _, list := range [][]string{argv, env} {
		for _, s := range list {
			if len(s) >= maxElement {
				return contracts.Errorf(contracts.SpawnFailed, "an element of the command or a variable has %d bytes, and Linux takes at most 128 KiB: %s…", len(s), s[:40])
			}
			size += len(s) + 1 + 8 // NUL, pointer
		}
	}
	if most := min(maxArguments, usualStack/4); size > most {
		return contracts.Errorf(contracts.SpawnFailed, "the command and its environment have %d bytes and Linux takes %d; let the tool read ARGS_FILE or its stdin", size, most)
	}
	return nil
}

// cannot lists what of a spec this daemon cannot do. info is nil where that is not known yet: then only what no daemon can.
func (e *Engine) cannot(spec *contracts.DockerSpec, info *system.Info) (list []string) {
	network := e.network(spec)
	all := map[string]bool{
		"network: " + network + " (that of another container)": strings.HasPrefix(network, "container:"),
		"mounts on a daemon of another machine":                len(spec.Mounts) > 0 && !e.daemon.local,
	}
	for _, cache := range spec.CacheMounts {
		place := strings.TrimPrefix(cache.Path, "~/")
		all["a cache at "+cache.Path] = takenBy(cache.Path) != "" || place == "." || cache.Path == "/"
	}
	for i, one := range spec.CacheMounts {
		for j, other := range spec.CacheMounts {
			if i != j && (one.Path == other.Path || strings.HasPrefix(one.Path, "~/") && strings.HasPrefix(one.Path+"/", other.Path+"/")) {
				all["caches at the same place, or in one another"] = true
			}
		}
	}
	for path := range spec.Tmpfs {
		all["a tmpfs at "+path] = takenBy(path) != ""
	}
	if info != nil {
		_, nvidia := info.Runtimes["nvidia"]
		_, runtime := info.Runtimes[e.config.Runtime]
		all["memory_limit (it has no memory controller)"] = spec.MemoryLimit > 0 && !info.MemoryLimit
		all["cpu_limit (it has no cpu controller)"] = spec.CPULimit > 0 && !info.CPUCfsQuota
		all["pids_limit (it has no pids controller)"] = spec.PidsLimit > 0 && !info.PidsLimit
		all["gpus (it has no nvidia runtime and no CDI devices)"] = spec.GPUs != "" && !nvidia && len(info.CDISpecDirs) == 0
		all["the runtime "+e.config.Runtime] = e.config.Runtime != "" && !runtime
	}
	for what, asked := range all {
		if asked {
			list = append(list, what)
		}
	}
	slices.Sort(list)
	return list
}

// refuse is nil where a spec can be done.
func (e *Engine) refuse(spec *contracts.DockerSpec, info *system.Info) error {
	cannot := e.cannot(spec, info)
	if len(cannot) == 0 {
		return nil
	}
	return contracts.Errorf(contracts.Unsupported, "the Docker engine cannot do or enforce %s with the daemon at %s; leave that out or use an executor whose daemon can", strings.Join(cannot, ", "), e.daemon.host)
}

// deadline is when a container has no business to be there any more, whatever became of its executor.
func (e *Engine) deadline(p *plan) time.Time {
	return time.Now().Add(e.config.Warm.MaxAge + p.timeout + e.config.KillGrace + overdue)
}

// overdue is how long after its time a container is left to its executor.
const overdue = 5 * time.Minute
