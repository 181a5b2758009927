package docker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	posix "path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/strslice"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
	config   container.Config
	host     container.HostConfig
	image    *image
	platform *ocispec.Platform // nil: the image has but one
	caches   []string          // names of the volumes
	mounts   []boot.Mount      // those of the contract, which are the first of host.Mounts
	links    []boot.Link
	apart    bool   // the kernel may be another one than that of the executor
	network  string // for people
	timeout  time.Duration
}

// key is the same for the same container. The timeout is part of it: by that a container that was made ahead is known to be overdue.
func (p *plan) key() string {
	text, err := json.Marshal([]any{p.config, p.host, p.platform, p.mounts, p.links, p.timeout})
	if err != nil {
		return "" // of no kind: never ahead
	}
	return string(text)
}

// plan works out the container of a contract.
func (e *Engine) plan(job *engines.Job, spec *contracts.DockerSpec, img *image, info *system.Info) (*plan, error) {
	p := &plan{image: img, platform: variant(info, spec.Platform), network: e.network(spec), timeout: time.Duration(spec.Timeout), apart: e.apart(info)}
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
	if err := e.placeMounts(p, job.Contract, spec, info); err != nil {
		return nil, err
	}
	p.placeCaches(spec.CacheMounts)
	p.placeVolumes(e.config.TempSize)
	return p, p.placed()
}

// bound is the limit of a contract, else the operator's, where the daemon can enforce it; 0: none. What the contract asks for and the
// daemon cannot was refused before, but with best_effort.
func bound(asked, configured int64, can bool) int64 {
	switch {
	case !can:
		return 0
	case asked > 0:
		return asked
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
func (e *Engine) placeMounts(p *plan, c *contracts.Contract, spec *contracts.DockerSpec, info *system.Info) error {
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
		if err := engines.SecretInMount(e.secrets, m.Source, source, writable); err != nil {
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
		bind := mount.Mount{Type: mount.TypeBind, Source: source, Target: m.Target, ReadOnly: !writable}
		if !writable {
			bind.BindOptions = e.readOnly(info)
		}
		p.host.Mounts = append(p.host.Mounts, bind)
		p.mounts = append(p.mounts, boot.Mount{Target: m.Target, Dev: dev, Ino: ino})
	}
	return nil
}

// Of a daemon from this API on, a mount can be read-only with all that is mounted below it, where its kernel and runtime can that.
const recursiveAPI = "1.44"

var kernelText = regexp.MustCompile(`^(\d+)\.(\d+)`)

// readOnly is how a mount is made read-only. Below one that is as usual, other file systems of the host can still be written: where the
// daemon cannot make them read-only too, they are left out.
func (e *Engine) readOnly(info *system.Info) *mount.BindOptions {
	var features struct {
		MountOptions []string `json:"mountOptions"`
	}
	// A runtime that says nothing, or what cannot be read, has none.
	_ = json.Unmarshal([]byte(info.Runtimes[cmp.Or(e.config.Runtime, info.DefaultRuntime)].Status["org.opencontainers.runtime-spec.features"]), &features)
	recursive := slices.Contains(features.MountOptions, "rro") && versions.GreaterThanOrEqualTo(e.daemon.ClientVersion(), recursiveAPI)
	if m := kernelText.FindStringSubmatch(info.KernelVersion); m == nil || versions.LessThan(m[0], "5.12") {
		recursive = false
	}
	return &mount.BindOptions{NonRecursive: !recursive, ReadOnlyForceRecursive: recursive}
}

// ordinary are the programs of runtimes whose containers have the kernel of the machine.
var ordinary = []string{"runc", "crun", "youki", "nvidia-container-runtime", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}

// apart reports whether containers may have a kernel of their own (gVisor, Kata), which numbers files in its own way.
func (e *Engine) apart(info *system.Info) bool {
	name := cmp.Or(e.config.Runtime, info.DefaultRuntime)
	return name != "" && !slices.Contains(ordinary, posix.Base(cmp.Or(info.Runtimes[name].Path, info.Runtimes[name].Type, name)))
}

// unchanged looks whether what a container has mounted is still in its place. That is less than what the first process finds out, which sees
// what was mounted, but all there is to see from outside.
func (p *plan) unchanged() error {
	for i, m := range p.mounts {
		if dev, ino, err := identity(p.host.Mounts[i].Source); err != nil || dev != m.Dev || ino != m.Ino {
			return contracts.Errorf(contracts.PolicyDenied, "mounts: %s is not what was looked at; something changed it meanwhile", p.host.Mounts[i].Source)
		}
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

// inHome is a path of a contract's cache, with ~ for HOME however that was written.
func inHome(path string) string {
	if below, is := strings.CutPrefix(path, home+"/"); is {
		return "~/" + below
	}
	return path
}

// placeCaches adds named volumes. One below HOME, or below a directory of the host, is reached by a link: the daemon would make the
// directories above it root's.
func (p *plan) placeCaches(list contracts.CacheMounts) {
	for _, cache := range list {
		volume := cacheVolume(cache.Name)
		target := cache.Path
		if below, is := strings.CutPrefix(inHome(target), "~/"); is {
			target = posix.Join(home, below)
		}
		if slices.ContainsFunc(append(slices.Clone(p.mounts), boot.Mount{Target: home}), func(m boot.Mount) bool { return strings.HasPrefix(target, m.Target+"/") }) {
			at := target
			target = posix.Join(caches, cache.Name)
			p.links = append(p.links, boot.Link{Path: at, Target: target})
		}
		if !slices.ContainsFunc(p.host.Mounts, func(m mount.Mount) bool { return m.Target == target }) {
			delete(p.host.Tmpfs, target)
			p.host.Mounts = append(p.host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: volume, Target: target, VolumeOptions: &mount.VolumeOptions{NoCopy: true}})
		}
		p.caches = append(p.caches, cache.Name)
	}
}

// placeVolumes puts directories in memory where the image wants volumes and the contract has nothing. Volumes would be on the daemon's disk, without
// a bound, and could be written whatever the contract says of the root.
func (p *plan) placeVolumes(size int64) {
	for _, volume := range p.image.volumes {
		at := posix.Join("/", volume)
		_, memory := p.host.Tmpfs[at]
		if memory || at == "/" || takenBy(at) == boot.Dir || slices.ContainsFunc(p.host.Mounts, func(m mount.Mount) bool { return m.Target == at }) {
			continue
		}
		p.memory(at, size, ownedBy(p.config.User)) // runc before 1.2 leaves the mode of what is there in the image
	}
}

// placed is nil where everything that lies below a mount of the host has its place there. Else the daemon would make it: as root, and to stay.
func (p *plan) placed() error {
	sources := map[string]string{} // of the mounts of the host, by target
	targets := slices.Collect(maps.Keys(p.host.Tmpfs))
	for _, m := range p.host.Mounts {
		targets = append(targets, m.Target)
		if m.Type == mount.TypeBind {
			sources[m.Target] = m.Source
		}
	}
	slices.Sort(targets) // so the last that one lies below is the one that it lies in
	for _, at := range targets {
		in := ""
		for _, other := range targets {
			if strings.HasPrefix(at, other+"/") {
				in = other
			}
		}
		source, is := sources[in]
		if !is {
			continue
		}
		if err := exists(source, strings.TrimPrefix(at, in+"/")); err != nil {
			return contracts.Errorf(contracts.SpawnFailed, "mounts: the container has no place for what is to be at %s: that lies in %s, which is mounted at %s, and has to be there before (%s)", at, source, in, err)
		}
	}
	return nil
}

// exists is nil where there is something at a path below a directory, which links do not leave.
func exists(dir, path string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = root.Stat(path)
	return err
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
	if p.apart {
		q.Kernel = boot.Kernel()
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
			a, b := inHome(one.Path), inHome(other.Path)
			if i != j && (a == b || strings.HasPrefix(a, "~/") && strings.HasPrefix(a+"/", b+"/")) {
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
		for _, limit := range unenforced(spec, info) {
			all[limit] = !spec.BestEffort
		}
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

// unenforced lists the limits of a spec that this daemon cannot enforce.
func unenforced(spec *contracts.DockerSpec, info *system.Info) (list []string) {
	if spec.MemoryLimit > 0 && !info.MemoryLimit {
		list = append(list, "memory_limit (it has no memory controller)")
	}
	if spec.CPULimit > 0 && !info.CPUCfsQuota {
		list = append(list, "cpu_limit (it has no cpu controller)")
	}
	if spec.PidsLimit > 0 && !info.PidsLimit {
		list = append(list, "pids_limit (it has no pids controller)")
	}
	return list
}

// notes says what is not as the contract asked, or as its reader would expect.
func (e *Engine) notes(c *contracts.Contract, spec *contracts.DockerSpec, p *plan, info *system.Info) (notes []string) {
	if list := unenforced(spec, info); len(list) > 0 {
		notes = append(notes, fmt.Sprintf("not enforced by the Docker daemon at %s (best_effort): %s", e.daemon.host, strings.Join(list, ", ")))
	}
	if spec.MemoryLimit > 0 && p.host.Memory > 0 && !info.SwapLimit {
		notes = append(notes, fmt.Sprintf("memory_limit: the tool may have used swap beside it, which the Docker daemon at %s cannot limit", e.daemon.host))
	}
	for _, m := range spec.Mounts {
		if c.Praxis && m.Mode == "" && slices.ContainsFunc(p.host.Mounts, func(one mount.Mount) bool { return one.Target == m.Target && one.ReadOnly }) {
			notes = append(notes, fmt.Sprintf("mounts: %s was read-only, as policy.mounts does not have it with :rw; Praxis wrote it back", m.Source))
		}
	}
	return notes
}

// refuse is nil where a spec can be done.
func (e *Engine) refuse(spec *contracts.DockerSpec, info *system.Info) error {
	cannot := e.cannot(spec, info)
	if len(cannot) == 0 {
		return nil
	}
	mend := "leave that out or use an executor whose daemon can"
	if info != nil && len(unenforced(spec, info)) == len(cannot) {
		mend += ", or let it run without by best_effort: true"
	}
	return contracts.Errorf(contracts.Unsupported, "the Docker engine cannot do or enforce %s with the daemon at %s; %s", strings.Join(cannot, ", "), e.daemon.host, mend)
}

// deadline is when a container has no business to be there any more, whatever became of its executor.
func (e *Engine) deadline(p *plan) time.Time {
	return time.Now().Add(e.config.Warm.MaxAge + p.timeout + e.config.KillGrace + overdue)
}

// overdue is how long after its time a container is left to its executor.
const overdue = 5 * time.Minute
