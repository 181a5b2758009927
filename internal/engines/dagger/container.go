package dagger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	posix "path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dagger/querybuilder"
	"github.com/distribution/reference"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

// image is what its configuration says about programs.
type image struct {
	Path       string   `json:"path"`
	Workdir    string   `json:"workdir"`
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
}

// container is what a run needs, before anything was asked of the engine.
type container struct {
	job     *engines.Job
	spec    *contracts.DaggerSpec
	image   string
	argv    []string
	args    []byte // for ARGS_FILE
	env     []string
	secrets map[string]string // variables that the engine shows to nobody
	mounts  []mount
	socket  string // of the Docker daemon, on the host; "": none
	user    string // whom the tool is, after settle; "": root
	noRoot  bool   // it may not be root
	most    int64  // bytes of output that are taken; 0: all
	bare    string // why no program of ours stands beside the tool; "": one does
}

// plan resolves all that needs no engine. An error is a *contracts.Error.
func (e *Engine) plan(job *engines.Job, spec *contracts.DaggerSpec, image string) (*container, error) {
	c := &container{job: job, spec: spec, image: image, secrets: map[string]string{}, socket: e.config.DockerSocket, most: e.config.MaxOutput}
	if err := e.mayUse(image); err != nil {
		return nil, err
	}
	// Where there is no image, only a program of ours runs.
	c.user, c.noRoot = spec.User, !e.config.Root && !spec.Privileged && image != ""
	if c.noRoot && spec.User != "" && isRoot(spec.User) {
		return nil, deniedRoot(spec.User)
	}
	var err error
	if c.argv, err = job.Argv(); err != nil {
		return nil, err
	}
	if c.args, err = job.ArgsText(); err != nil {
		return nil, contracts.Errorf(contracts.InvalidArgs, "write the file of arguments: %s", err)
	}
	variables := contracts.Environment{
		Base:     map[string]string{"HOME": inside.Home, "TMPDIR": inside.Temp, "LANG": "C.UTF-8"},
		Contract: spec.Env, Args: job.Args, Context: job.Context,
		ArgsEnv: job.Contract.ArgsEnv, Declared: job.Contract.Parameters.Names(), ArgsFile: inside.ArgsFile,
	}
	// They may be secrets of the executor. As such they are neither in the engine's cache nor in what it tells about runs.
	for name, value := range job.Passthrough {
		if !utf8.ValidString(value) {
			return nil, contracts.Errorf(contracts.SpawnFailed, "env_passthrough: the value of %s is not UTF-8, and the dagger engine takes nothing else", name)
		}
		c.secrets[name] = value
	}
	variables.Passthrough = job.Passthrough
	all, err := variables.Variables()
	if err != nil {
		return nil, err
	}
	for _, entry := range all {
		name, value, _ := strings.Cut(entry, "=")
		if secret, is := c.secrets[name]; is && secret == value {
			continue
		}
		delete(c.secrets, name) // an argument of that name came later
		c.env = append(c.env, entry)
	}
	if c.mounts, err = e.mountsOf(job.Contract, spec); err != nil {
		closeMounts(c.mounts)
		return nil, err
	}
	return c, nil
}

// mayUse is nil where the operator allows an image (policy.images).
func (e *Engine) mayUse(image string) error {
	if image == "" || len(e.config.Images) == 0 {
		return nil
	}
	named, err := engines.ImageName(image)
	if err != nil {
		return err
	}
	var digests []string
	if digested, is := named.(reference.Digested); is {
		digests = []string{digested.Digest().String()}
	}
	if !engines.ImageAllowed(e.config.Images, named, digests) {
		return contracts.Errorf(contracts.PolicyDenied, "image: %s is not among those that this executor may use; its operator can allow it by policy.images", image)
	}
	return nil
}

// isRoot reports whether a user of a container, as user or user:group, is root for all that can be seen from here; a name can be
// that of root in an image as well.
func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	n, err := strconv.ParseUint(name, 10, 32)
	return name == "" || name == "root" || err == nil && n == 0
}

func deniedRoot(user string) *contracts.Error {
	return contracts.Errorf(contracts.PolicyDenied, "user: %s is root in its container, which is not allowed on this executor; name another, or have its operator allow it by policy.root", user)
}

// settle decides whom the tool is, by what the image says.
func (c *container) settle(from image) error {
	if c.user == "" && !isRoot(from.User) {
		c.user = from.User // by name: else what is mounted would be root's
	}
	if !c.noRoot {
		return nil
	}
	if c.user == "" {
		c.user = nobody
	}
	// Beside the tool our program sees whether a name is that of root. Alone it has to be seen here.
	if name, _, _ := strings.Cut(c.user, ":"); c.bare != "" && strings.Trim(name, "0123456789") != "" {
		return contracts.Errorf(contracts.PolicyDenied, "user: %s may be root in its container, which is not allowed on this executor; name the user as a number, or have its operator allow it by policy.root", c.user)
	}
	return nil
}

// under reports whether a path is dir or lies below it.
func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// home makes a path of "~/…".
func home(path string) string {
	if rest, is := strings.CutPrefix(path, "~/"); is {
		return posix.Join(inside.Home, rest)
	}
	return path
}

// quote writes a string for a query.
func quote(s string) string {
	text, _ := querybuilder.MarshalGQL(context.Background(), s) // of a string it cannot fail
	return text
}

// sources asks for all that the container is made of: directories, caches, secrets, sockets. It returns their ids by name.
func (s *session) sources(ctx context.Context, c *container, from image, workdir string) (map[string]string, error) {
	var fields []string
	for i, m := range c.mounts {
		switch {
		case m.socket:
			fields = append(fields, fmt.Sprintf("m%d:host{unixSocket(path:%s){id}}", i, quote(m.source)))
		case m.file:
			fields = append(fields, fmt.Sprintf("m%d:host{file(path:%s,noCache:true){id}}", i, quote(m.source)))
		default:
			fields = append(fields, fmt.Sprintf("m%d:host{directory(path:%s,noCache:true){id}}", i, quote(m.source)))
		}
	}
	for i, cache := range c.spec.CacheMounts {
		fields = append(fields, fmt.Sprintf("c%d:cacheVolume(key:%s){id}", i, quote("executor-"+cache.Name)))
	}
	for i, name := range slices.Sorted(maps.Keys(c.secrets)) {
		// A secret that has changed under its name would not run anything again that is in the cache. The engine shows the names of
		// secrets: without the key, values that are easy to guess could be found by theirs.
		value := c.secrets[name]
		sum := hmac.New(sha256.New, s.key)
		fmt.Fprintf(sum, "%s=%s", name, value)
		if c.bare == "" {
			value = inside.SecretPrefix + value
		}
		fields = append(fields, fmt.Sprintf("s%d:setSecret(name:%s,plaintext:%s){id}", i, quote(name+"-"+hex.EncodeToString(sum.Sum(nil)[:16])), quote(value)))
	}
	if c.socket != "" {
		fields = append(fields, fmt.Sprintf("d0:host{unixSocket(path:%s){id}}", quote(c.socket)))
	}
	if c.holds(inside.Home) || c.holds(inside.Temp) {
		fields = append(fields, "empty:directory{id}")
	}
	if c.bare != "" {
		fields = append(fields, fmt.Sprintf("a0:file(name:\"args.json\",contents:%s,permissions:%d){id}", quote(string(c.args)), 0o444))
	}
	ids := map[string]string{}
	rooms := c.rooms(s, from, workdir)
	if len(rooms) > 0 {
		s.mu.Lock()
		ids["rooms"] = s.rooms[strings.Join(rooms, ":")]
		s.mu.Unlock()
		if ids["rooms"] == "" {
			field, end := "rooms:directory", "{id}"
			for _, path := range rooms {
				field, end = field+fmt.Sprintf("{withNewDirectory(path:%s,permissions:%d)", quote(path), 0o777), end+"}"
			}
			fields = append(fields, field+end)
		}
	}
	if len(fields) == 0 {
		return ids, nil
	}
	var answer map[string]any
	if err := s.root().SelectFields(fields...).Bind(&answer).Execute(ctx); err != nil {
		return nil, err
	}
	for name, at := range answer {
		for at != nil {
			inner, is := at.(map[string]any)
			if !is {
				break
			}
			at = nil
			for _, value := range inner { // there is one
				at = value
			}
		}
		if ids[name], _ = at.(string); ids[name] == "" {
			return nil, fmt.Errorf("the engine gave no id for %s", name)
		}
	}
	if len(rooms) > 0 {
		s.mu.Lock()
		if s.rooms == nil || len(s.rooms) >= mostFacts {
			s.rooms = map[string]string{}
		}
		s.rooms[strings.Join(rooms, ":")] = ids["rooms"]
		s.mu.Unlock()
	}
	return ids, nil
}

// imageOf asks what an image says about programs. It is kept for a while (keepFacts), in which a tag can move.
func (s *session) imageOf(ctx context.Context, c *container) (image, error) {
	if c.image == "" {
		return image{Path: inside.DefaultPath}, nil
	}
	name := c.image + " " + c.spec.Platform
	s.mu.Lock()
	known := s.images[name]
	s.mu.Unlock()
	if known.fresh() {
		return known.image, nil
	}
	var found image
	err := s.from(c).SelectFields(`path:envVariable(name:"PATH")`, "workdir", "entrypoint", "user").Bind(&found).Execute(ctx)
	if err != nil {
		return image{}, err
	}
	if found.Path == "" {
		found.Path = inside.DefaultPath
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images == nil || len(s.images) >= mostFacts {
		s.images = map[string]knownImage{}
	}
	s.images[name] = knownImage{found, seen(time.Now())}
	return found, nil
}

// seen is when something was seen in an image.
type seen time.Time

func (s seen) fresh() bool { return time.Since(time.Time(s)) < keepFacts }

type knownImage struct {
	image
	seen
}

// ready is a container in which the tool can be started.
type ready struct {
	box     *querybuilder.Selection // a query about it
	workdir string
	sources map[string]string
}

// prepare makes the container: it pulls the image and copies mounts in. Nothing of the tool runs. An error is a *contracts.Error,
// or the cause of ctx.
func (s *session) prepare(ctx context.Context, c *container) (*ready, error) {
	fail := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return refused(err, c.image)
	}
	from, err := s.imageOf(ctx, c)
	if err != nil {
		return nil, fail(err)
	}
	c.bare = s.why
	if c.bare == "" && c.spec.Platform != "" && c.spec.Platform != s.platform {
		c.bare = fmt.Sprintf("the contract is for %s, this program is for %s", c.spec.Platform, s.platform)
	}
	if err := c.settle(from); err != nil {
		return nil, err
	}
	before := from.Entrypoint
	if c.spec.Entrypoint != nil {
		before = c.spec.Entrypoint
	}
	c.argv = append(slices.Clone(before), c.argv...)
	r := &ready{workdir: workdirOf(c.spec, from)}
	inPlace := func() error {
		for i := range c.mounts {
			if err := c.mounts[i].moved(); err != nil {
				return contracts.Errorf(contracts.PolicyDenied, "mounts: %s; run the tool again, and let nothing else move its directories", rootOf(err))
			}
		}
		return nil
	}
	if err := inPlace(); err != nil {
		return nil, err
	}
	if r.sources, err = s.sources(ctx, c, from, r.workdir); err != nil {
		return nil, fail(err)
	}
	if err := inPlace(); err != nil {
		return nil, err
	}
	path := from.Path
	for _, entry := range c.env {
		if value, is := strings.CutPrefix(entry, "PATH="); is {
			path = value
		}
	}
	lookFor := c.lookUps(r.workdir, path)
	fields := []string{"id:sync"}
	box := s.build(c, r, from)
	known, program := make([]bool, len(lookFor)), false
	for i, one := range lookFor {
		known[i] = s.knownPath(c, one)
		program = program || known[i] && one.kind == regular // then its other places do not matter
	}
	for i, one := range lookFor {
		if enough := known[i] || program && one.kind == regular; !enough && !c.inMemory(one.path) {
			fields = append(fields, fmt.Sprintf("e%d:exists(path:%s,expectedType:%s)", i, quote(one.path), one.kind))
		}
	}
	var answer map[string]any
	if len(fields) == 1 && s.wasMade(c) {
		r.box = box // all of it is there: it is made by the query that runs the tool
	} else {
		if err := box.SelectFields(fields...).Bind(&answer).Execute(ctx); err != nil {
			return nil, fail(err)
		}
		id, _ := answer["id"].(string)
		if id == "" {
			return nil, contracts.Errorf(contracts.SpawnFailed, "the Dagger engine gave no id for the container")
		}
		r.box = s.inContainer(id)
	}
	there := func(i int) bool {
		is, _ := answer[fmt.Sprintf("e%d", i)].(bool)
		if is {
			s.learnPath(c, lookFor[i])
		}
		return is || known[i]
	}
	s.learnPath(c, made)
	return r, c.missing(lookFor, there, path)
}

// Each look at a path costs an engine some milliseconds: what was seen in an image is kept for a while. What was not there is looked
// for each time, as somebody may just have put it there, and so is what lies in mounts.

// mostFacts bounds what is kept; beyond, it begins anew.
const mostFacts = 10_000

type imagePath struct {
	image string
	lookUp
}

// knownPath reports whether a path was seen in the image of late.
func (s *session) knownPath(c *container, one lookUp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !c.inMount(one.path) && s.paths[imagePath{c.image + " " + c.spec.Platform, one}].fresh()
}

func (s *session) learnPath(c *container, one lookUp) {
	if c.inMount(one.path) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths == nil || len(s.paths) >= mostFacts {
		s.paths = map[imagePath]seen{}
	}
	s.paths[imagePath{c.image + " " + c.spec.Platform, one}] = seen(time.Now())
}

// made stands for the image itself: a container was made of it, so it has been pulled.
var made = lookUp{}

func (s *session) wasMade(c *container) bool {
	return len(c.mounts)+len(c.spec.CacheMounts) == 0 && s.knownPath(c, made)
}

// from begins a query about the image.
func (s *session) from(c *container) *querybuilder.Selection {
	q := s.root().Select("container")
	if c.spec.Platform != "" {
		q = q.Arg("platform", c.spec.Platform)
	}
	if c.image == "" {
		return q
	}
	return q.Select("from").Arg("address", c.image)
}

const inMemoryMount = "withMountedTemp"

// build is the query that makes the container.
func (s *session) build(c *container, r *ready, from image) *querybuilder.Selection {
	q := s.from(c)
	places := c.places(s, r.sources)
	if rooms := r.sources["rooms"]; rooms != "" { // before what differs from run to run, so that it is made once for an image
		q = q.Select("withDirectory").Arg("path", "/").Arg("source", rooms)
	}
	if !c.spec.Cache {
		// Another label makes another container, which is not in the cache. Tools do not see labels.
		q = q.Select("withLabel").Arg("name", "executor.run").Arg("value", newTrace().String())
	}
	if c.user != "" {
		q = q.Select("withUser").Arg("name", c.user)
	}
	if r.workdir != from.Workdir && c.started(r.workdir) {
		q = q.Select("withWorkdir").Arg("path", r.workdir)
	}
	for _, entry := range c.env {
		name, value, _ := strings.Cut(entry, "=")
		q = q.Select("withEnvVariable").Arg("name", name).Arg("value", value)
	}
	for i, name := range slices.Sorted(maps.Keys(c.secrets)) {
		q = q.Select("withSecretVariable").Arg("name", name).Arg("secret", r.sources[fmt.Sprintf("s%d", i)])
	}
	// An engine forgets what was mounted below a place when something is mounted there: what lies in another comes after it.
	for _, path := range slices.Sorted(maps.Keys(places)) {
		m := places[path]
		if q = q.Select(m.how).Arg("path", path); m.kind != "" {
			q = q.Arg(m.kind, m.id)
		}
		if m.size > 0 {
			q = q.Arg("size", m.size)
		}
		if m.kind != "" && !m.ours && c.user != "" {
			q = q.Arg("owner", c.user)
		}
	}
	return q
}

// places says what is mounted where, of sources, which has the ids.
func (c *container) places(s *session, sources map[string]string) map[string]mounting {
	places := map[string]mounting{}
	for _, path := range []string{inside.Home, inside.Temp} {
		places[path] = mounting{how: inMemoryMount}
		if c.holds(path) { // what is in memory is mounted last, over all that lies below it
			places[path] = mounting{how: "withMountedDirectory", kind: "source", id: sources["empty"]}
		}
	}
	for path, size := range c.spec.Tmpfs {
		places[path] = mounting{how: inMemoryMount, size: int(size)}
	}
	if c.bare == "" {
		places[inside.Dir] = mounting{how: inMemoryMount}
		places[inside.Program] = mounting{how: "withMountedFile", kind: "source", id: s.program, ours: true}
	} else {
		places[inside.ArgsFile] = mounting{how: "withMountedFile", kind: "source", id: sources["a0"], ours: true}
	}
	for i, m := range c.mounts {
		how := "withMountedDirectory"
		if m.file {
			how = "withMountedFile"
		} else if m.socket {
			how = "withUnixSocket"
		}
		places[m.target] = mounting{how: how, kind: "source", id: sources[fmt.Sprintf("m%d", i)]}
	}
	for i, cache := range c.spec.CacheMounts {
		places[home(cache.Path)] = mounting{how: "withMountedCache", kind: "cache", id: sources[fmt.Sprintf("c%d", i)]}
	}
	if c.socket != "" {
		places[DockerSocket] = mounting{how: "withUnixSocket", kind: "source", id: sources["d0"]}
	}
	return places
}

// rooms are the places in memory that an engine would give to root alone: it gives them the mode of the directory that they cover, and makes
// one where the working directory is none. Other places are for everybody.
func (c *container) rooms(s *session, from image, workdir string) (list []string) {
	if c.user == "" || isRoot(c.user) {
		return nil
	}
	for path, m := range c.places(s, nil) {
		_, own := c.spec.Tmpfs[path]
		if m.how == inMemoryMount && (own || under(from.Workdir, path) || c.started(workdir) && under(workdir, path)) {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return list
}

// started reports whether the engine has to begin in the working directory. Our program goes to one in memory by itself.
func (c *container) started(workdir string) bool { return c.bare != "" || !c.inMemory(workdir) }

// mounting is how something gets to its place: of a kind, which has an id, or in memory.
type mounting struct {
	how, kind, id string
	size          int
	ours          bool // else it is given to the user of the tool
}

// holds reports whether the contract puts something of its own below a path.
func (c *container) holds(path string) bool {
	return slices.ContainsFunc(c.mounts, func(m mount) bool { return strings.HasPrefix(m.target, path+"/") }) ||
		slices.ContainsFunc(c.spec.CacheMounts, func(m contracts.CacheMount) bool { return strings.HasPrefix(home(m.Path), path+"/") })
}

// workdirOf is the working directory: the contract's, else the image's if it names one, else the run's own.
func workdirOf(spec *contracts.DaggerSpec, from image) string {
	own := inside.Home
	if from.Workdir != "" && from.Workdir != "/" {
		own = from.Workdir
	}
	if spec.Cwd == "" {
		return own
	}
	if posix.IsAbs(spec.Cwd) {
		return posix.Clean(spec.Cwd)
	}
	return posix.Join(own, spec.Cwd)
}

// lookUp is a path that has to be there.
type lookUp struct{ path, kind string }

const (
	regular   = "REGULAR_TYPE"
	directory = "DIRECTORY_TYPE"
)

// lookUps are the paths whose absence means that the tool cannot be started: the working directory, and the program in any of
// its possible places. Where the program may be in a cache nothing can be said: that is there only while the tool runs. Nor where PATH
// is a secret: an engine shows what it is asked.
func (c *container) lookUps(workdir, path string) (list []lookUp) {
	if _, memory := c.spec.Tmpfs[workdir]; c.spec.Cwd != "" && !memory && !c.inCache(workdir) && workdir != inside.Home && workdir != inside.Temp {
		list = append(list, lookUp{workdir, directory})
	}
	files := c.programs(workdir, path)
	if _, hidden := c.secrets["PATH"]; hidden && !strings.Contains(c.argv[0], "/") || slices.ContainsFunc(files, c.inCache) {
		return list
	}
	for _, file := range files {
		list = append(list, lookUp{file, regular})
	}
	return list
}

// programs are the places where the command may be.
func (c *container) programs(workdir, path string) (files []string) {
	name := c.argv[0]
	if strings.Contains(name, "/") {
		return []string{posix.Join(workdirIfRelative(name, workdir), name)}
	}
	for dir := range strings.SplitSeq(path, ":") {
		if posix.IsAbs(dir) {
			files = append(files, posix.Join(dir, name))
		}
	}
	return files
}

func workdirIfRelative(name, workdir string) string {
	if posix.IsAbs(name) {
		return "/"
	}
	return workdir
}

// inCache reports whether a path lies in a named cache.
func (c *container) inCache(path string) bool {
	return !c.inMount(path) && slices.ContainsFunc(c.spec.CacheMounts, func(m contracts.CacheMount) bool { return under(path, home(m.Path)) })
}

// inMemory reports whether a path lies where every run begins with nothing. An engine refuses to look there.
func (c *container) inMemory(path string) bool {
	return !c.inMount(path) && (slices.ContainsFunc(inMemory, func(dir string) bool { return under(path, dir) }) ||
		slices.ContainsFunc(slices.Collect(maps.Keys(c.spec.Tmpfs)), func(dir string) bool { return under(path, dir) }))
}

var inMemory = []string{inside.Home, inside.Temp, inside.Dir}

func (c *container) inMount(path string) bool {
	return slices.ContainsFunc(c.mounts, func(m mount) bool { return under(path, m.target) && !m.socket })
}

// missing is nil where all that was looked for is there, the program in one place at least.
func (c *container) missing(list []lookUp, there func(int) bool, path string) error {
	program, found := false, false
	for i, one := range list {
		switch {
		case one.kind == directory && !there(i):
			return contracts.Errorf(contracts.SpawnFailed, "cwd: there is no directory %s in the image %s, nor is one mounted there", one.path, c.image)
		case one.kind == regular:
			program, found = true, found || there(i)
		}
	}
	switch {
	case !program || found:
		return nil
	case strings.Contains(c.argv[0], "/"):
		return contracts.Errorf(contracts.SpawnFailed, "command: there is no file %s in the image %s, nor is one mounted there", c.argv[0], c.image)
	}
	return contracts.Errorf(contracts.SpawnFailed, "command: there is no program %q in the image %s in the PATH of the tool (%s)", c.argv[0], c.image, path)
}

// String is the id in hexadecimal digits.
func (t trace) String() string { return hex.EncodeToString(t[:]) }

// socketThere reports whether a path is a socket.
func socketThere(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}
