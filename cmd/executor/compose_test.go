package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// TestCompose builds the image and brings docker-compose.yml up, as docs/docker.md says, on the Docker daemon of this
// machine. Of the images that it is built from and runs with, those are used that the daemon has; nothing is pulled. For
// the others there are stand-ins of the same make, put together from what this machine has.
func TestCompose(t *testing.T) {
	d := needDocker(t)
	image := d.name + "/executor"
	d.env["EXECUTOR_IMAGE"], d.env["EXECUTOR_VERSION"] = image, "0.1.0-test"
	d.env["NATS_PORT"] = strconv.Itoa(freePort(t))
	d.env["NATS_EXECUTOR_PASSWORD"] = rand.Text()
	if out, err := d.tryCompose("config", "--quiet"); err == nil || !strings.Contains(out, "NATS_AGENT_PASSWORD") || !strings.Contains(out, ".env") {
		t.Fatalf("without a password for agents: %v\n%s", err, out)
	}
	d.env["NATS_AGENT_PASSWORD"] = "12345" // text, though it looks like a number
	d.compose("config", "--quiet")
	alpine, python := d.image("alpine:3.22", busyboxImage), d.image("python:3.13-slim", pythonImage)
	d.env["GO_IMAGE"] = d.image("golang:1.26-alpine", golangImage)
	d.env["NATS_IMAGE"] = d.image("nats:2.15-alpine", natsImage)

	// The small image.
	d.env["EXECUTOR_BASE"] = alpine
	began := time.Now()
	d.compose("build", "executor")
	t.Logf("built after %s", time.Since(began).Round(time.Second))
	var built struct {
		Size   int64
		Config struct {
			User, StopSignal string
			Labels           map[string]string
			Healthcheck      struct{ Test []string }
		}
	}
	d.inspect(&built, image)
	var base struct{ Size int64 }
	d.inspect(&base, alpine)
	t.Logf("the image has %.1f MiB, %.1f MiB of which are its base", mib(built.Size), mib(base.Size))
	if added := built.Size - base.Size; added > 32<<20 {
		t.Errorf("the image adds %.1f MiB to its base, more than 32", mib(added))
	}
	if c := built.Config; c.User != "65532:65532" || c.StopSignal != "SIGTERM" || len(c.Healthcheck.Test) == 0 || c.Labels["org.opencontainers.image.version"] != "0.1.0-test" {
		t.Errorf("configuration of the image: %+v", c)
	}
	if out := d.docker("run", "--rm", "--network=none", image, "version"); !strings.HasPrefix(out, "executor 0.1.0-test ") {
		t.Errorf("version: %s", out)
	}

	// The fleet.
	d.env["EXECUTOR_BASE"] = python
	d.compose("build", "executor")
	began = time.Now()
	d.compose("up", "-d", "--scale", "executor=3")
	d.healthy("nats", 1)
	d.healthy("executor", 3)
	t.Logf("healthy after %s", time.Since(began).Round(time.Second))

	nc := connectTo(t, d.url("agent"))
	c := newClient(t, nc)
	fleet := d.fleet(c, 3)
	for _, one := range fleet {
		if one.Version != "0.1.0-test" || !one.Engines[contracts.EngineLocal].Ready || one.Engines[contracts.EngineLocal].Tier != local.TierNamespaces || one.Tools == 0 {
			t.Errorf("an executor: %+v", one)
		}
	}
	asked := client.Request{ID: client.NewID(), Tool: "python_data_processor", Args: map[string]any{"operation": "numbers", "data": "1,2,3,4,5"}}
	first := wait(t, begin(t, c, asked))
	if first.Status != "succeeded" || !strings.Contains(first.Stdout, "15") {
		t.Fatalf("python_data_processor: %+v", first)
	}

	t.Run("command line", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "run", "--server", d.url("agent"), "text_analyzer", "--arg", "text=one two two")
		cmd.Env = append(os.Environ(), asProgram+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(`"words": 3`)) {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("agents write no results", func(t *testing.T) {
		denied := make(chan error, 8)
		nc, err := nats.Connect(d.url("agent"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, subject := range []string{"tools.reply." + asked.ID + ".result", "$JS.API.STREAM.DELETE.TOOLS_RESULT", "$KV.TOOLS_EXECUTORS.x", "$KV.TOOLS_CONTRACTS.x/1"} {
			if err := nc.Publish(subject, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-denied:
				if !strings.Contains(err.Error(), "ermissions") {
					t.Errorf("%s: %v", subject, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s: allowed", subject)
			}
		}
		if reply, err := nc.Request("tools.run", []byte(`{"tool": "system_info"}`), 10*time.Second); err != nil || !bytes.Contains(reply.Data, []byte(`"succeeded"`)) {
			t.Errorf("tools.run: %v %+v", err, reply)
		}
		if results := stored(t, nc, "TOOLS_RESULT", "tools.reply."+asked.ID+".result"); len(results) != 1 {
			t.Errorf("an agent finds %d results", len(results))
		}
		for _, url := range []string{"nats://127.0.0.1:" + d.env["NATS_PORT"], "nats://agent:wrong@127.0.0.1:" + d.env["NATS_PORT"]} {
			if nc, err := nats.Connect(url); err == nil {
				nc.Close()
				t.Errorf("let in: %s", url)
			}
		}
	})

	t.Run("as little as possible", func(t *testing.T) {
		for _, container := range d.containers("executor") {
			for _, p := range d.processes(container) {
				if p["Uid"] != "65532 65532 65532 65532" {
					t.Errorf("a process is not of the executor's user: %v", p)
				}
			}
			for _, file := range []string{"/usr/local/bin/x", "/etc/executor/production.yaml", "/etc/executor/tools/x"} {
				if out, err := d.try("docker", "exec", container, "sh", "-c", ": >>"+file); err == nil {
					t.Errorf("%s can be written: %s", file, out)
				}
			}
			status := d.docker("exec", container, "grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status")
			if !regexp.MustCompile(`CapEff:\s+0+\s+NoNewPrivs:\s+1`).MatchString(status) {
				t.Errorf("rights: %s", status)
			}
		}
		for _, container := range slices.Concat(d.containers("executor"), d.containers("nats")) {
			var network struct {
				NetworkSettings struct {
					Ports map[string][]struct{ HostIp, HostPort string }
				}
			}
			d.inspect(&network, container)
			for port, published := range network.NetworkSettings.Ports {
				for _, p := range published {
					if port != "4222/tcp" || p.HostIp != "127.0.0.1" || p.HostPort != d.env["NATS_PORT"] {
						t.Errorf("%s is published at %s:%s", port, p.HostIp, p.HostPort)
					}
				}
			}
		}
	})

	t.Run("orphans", func(t *testing.T) {
		container := d.containers("executor")[0]
		// Its parent gone, a process belongs to process 1, which has to collect it.
		d.docker("exec", container, "sh", "-c", "(sleep 0.2 & sleep 0.2 & sleep 0.2 &)")
		eventually(t, "the orphans are gone, zombies and all", func() bool {
			return !slices.ContainsFunc(d.processes(container), func(p map[string]string) bool { return p["Name"] == "sleep" })
		})
	})

	t.Run("one dies", func(t *testing.T) {
		container := d.containers("executor")[0]
		host := strings.TrimSpace(d.docker("exec", container, "hostname"))
		d.docker("kill", container)
		for range 6 {
			result := wait(t, begin(t, c, client.Request{ID: client.NewID(), Tool: "system_info"}))
			if result.Status != "succeeded" || strings.HasPrefix(result.Executor, host) {
				t.Errorf("system_info: %+v", result)
			}
		}
		d.compose("up", "-d", "--scale", "executor=3") // starts it again
		d.healthy("executor", 3)
	})

	t.Run("restart", func(t *testing.T) {
		d.compose("restart")
		d.healthy("nats", 1)
		d.healthy("executor", 3)
		// A connection of its own: the one above may be waiting for its next try.
		c := newClient(t, connectTo(t, d.url("agent")))
		follow := c.Follow(asked.ID)
		defer follow.Close()
		again := wait(t, follow)
		if again.Stdout != first.Stdout || again.Executor != first.Executor || !again.Time.Equal(first.Time) {
			t.Errorf("the result was %+v, after a restart it is %+v", first, again)
		}
		if result := wait(t, begin(t, c, client.Request{ID: client.NewID(), Tool: "system_info"})); result.Status != "succeeded" {
			t.Errorf("system_info: %+v", result)
		}
	})

	t.Run("restart of NATS alone", func(t *testing.T) {
		d.compose("restart", "nats")
		d.healthy("nats", 1)
		// Who is there is kept in memory, and told anew.
		d.fleet(newClient(t, connectTo(t, d.url("agent"))), 3)
	})

	t.Run("down", func(t *testing.T) {
		began := time.Now()
		d.compose("stop")
		for _, container := range d.containers("executor") {
			var ended struct{ State struct{ ExitCode int } }
			d.inspect(&ended, container)
			if ended.State.ExitCode != 0 {
				t.Errorf("an executor exited with %d", ended.State.ExitCode)
			}
		}
		left := d.docker("run", "--rm", "--volume", d.name+"_executor-data:/data", "--entrypoint", "ls", image, "/data/runs")
		// The one that was killed left its directory to the others, who take it away when they start.
		if left != "" {
			t.Errorf("left in the volume of the executors: %s", left)
		}
		d.compose("down")
		t.Logf("down after %s", time.Since(began).Round(time.Second))
		if left := d.left(); !slices.Equal(left, []string{"volume " + d.name + "_executor-data", "volume " + d.name + "_nats-data"}) {
			t.Errorf("after down there are %q", left)
		}
		d.compose("down", "--volumes")
		if left := d.left(); len(left) > 0 {
			t.Errorf("after down --volumes there are %q", left)
		}
	})
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// testDocker says that this machine is here to run the tests that need Docker: where they cannot, they fail.
const testDocker = "EXECUTOR_TEST_DOCKER"

// dockerDaemon is the Docker daemon of this machine, as one test uses it.
type dockerDaemon struct {
	tb             testing.TB
	name           string // of all that the test makes
	composeCommand []string
	env            map[string]string
}

// needDocker is for tests that need a Docker daemon and compose. They are skipped where there is none.
func needDocker(tb testing.TB) *dockerDaemon {
	tb.Helper()
	missing := func(format string, a ...any) {
		tb.Helper()
		if os.Getenv(testDocker) != "" {
			tb.Fatalf(format, a...)
		}
		tb.Skipf(format, a...)
	}
	d := &dockerDaemon{tb: tb, name: "executor-test-" + strings.ToLower(rand.Text()[:8]), env: map[string]string{}}
	if out, err := d.try("docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		missing("this test needs a Docker daemon: %v: %s", err, out)
	}
	if err := staticBusybox(); err != nil {
		missing("this test needs a static busybox, for images that cannot be pulled: %v", err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		tb.Fatal(err)
	}
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if out, err := d.try(append(slices.Clone(command), "version", "--short")...); err == nil && !strings.HasPrefix(strings.TrimSpace(out), "1.") { // that does not know systempaths
			tb.Logf("%s %s", strings.Join(command, " "), strings.TrimSpace(out))
			d.composeCommand = append(command, "--project-name", d.name, "--project-directory", root, "--file", filepath.Join(root, "docker-compose.yml"))
			break
		}
	}
	if d.composeCommand == nil {
		missing("this test needs Docker Compose v2: docker compose, or docker-compose")
	}
	tb.Cleanup(d.cleanUp)
	return d
}

// testLabel marks the stand-ins, and all that is built from them.
const testLabel = "io.github.praxis-sdk.executor.test"

// cleanUp takes away what the test made, whatever became of it, and nothing else: everything has its name.
func (d *dockerDaemon) cleanUp() {
	if d.tb.Failed() {
		out, _ := d.tryCompose("logs", "--no-color", "--tail", "50")
		d.tb.Logf("logs:\n%s", out)
	}
	d.tryCompose("kill")
	d.tryCompose("down", "--volumes")
	if left := d.left(); len(left) > 0 {
		d.tb.Errorf("the test leaves %q", left)
	}
	// By name, which leaves those that others were built from; they go together when nothing of them has a name any more.
	if images := strings.Fields(d.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference="+d.name+"/*")); len(images) > 0 {
		d.docker(append([]string{"image", "rm"}, images...)...)
	}
	d.docker("image", "prune", "--force", "--filter", "label="+testLabel+"="+d.name)
	if left := d.docker("image", "ls", "--all", "--quiet", "--filter", "label="+testLabel+"="+d.name); left != "" {
		d.tb.Errorf("the test leaves the images %q", left)
	}
}

func (d *dockerDaemon) url(user string) string {
	password := d.env["NATS_"+strings.ToUpper(user)+"_PASSWORD"]
	return fmt.Sprintf("nats://%s:%s@127.0.0.1:%s", user, password, d.env["NATS_PORT"])
}

// command is ready to run, for five minutes at most.
func (d *dockerDaemon) command(args ...string) (*exec.Cmd, context.CancelFunc) {
	// Not the test's own context: that has ended when the test cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = os.Environ()
	for name, value := range d.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd, cancel
}

func (d *dockerDaemon) try(args ...string) (string, error) {
	cmd, cancel := d.command(args...)
	defer cancel()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *dockerDaemon) tryCompose(args ...string) (string, error) {
	return d.try(append(slices.Clone(d.composeCommand), args...)...)
}

func (d *dockerDaemon) compose(args ...string) {
	d.tb.Helper()
	if out, err := d.tryCompose(args...); err != nil {
		d.tb.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// docker returns what the command prints on its standard output.
func (d *dockerDaemon) docker(args ...string) string {
	d.tb.Helper()
	cmd, cancel := d.command(append([]string{"docker"}, args...)...)
	defer cancel()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		d.tb.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

func (d *dockerDaemon) inspect(into any, what string) {
	d.tb.Helper()
	if err := json.Unmarshal([]byte(d.docker("inspect", "--format", "{{json .}}", what)), into); err != nil {
		d.tb.Fatal(err)
	}
}

func (d *dockerDaemon) containers(service string) []string {
	d.tb.Helper()
	return strings.Fields(d.docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+d.name, "--filter", "label=com.docker.compose.service="+service))
}

// healthy waits until so many containers of a service are.
func (d *dockerDaemon) healthy(service string, want int) {
	d.tb.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; {
		states := d.docker("ps", "--filter", "label=com.docker.compose.project="+d.name, "--filter", "label=com.docker.compose.service="+service, "--format", "{{.Status}}")
		if strings.Count(states, "(healthy)") == want {
			return
		}
		if time.Now().After(deadline) {
			d.tb.Fatalf("after 90 s there are not %d healthy ones of the service %s:\n%s", want, service, states)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// fleet waits until so many executors are there.
func (d *dockerDaemon) fleet(c *client.Client, want int) []contracts.Presence {
	d.tb.Helper()
	var fleet []contracts.Presence
	eventually(d.tb, fmt.Sprintf("there are %d executors", want), func() bool {
		found, err := c.Discover(d.tb.Context(), "")
		if err != nil {
			return false
		}
		fleet = found.Executors
		return len(fleet) == want
	})
	return fleet
}

// processes are those of a container, by what /proc says of them.
func (d *dockerDaemon) processes(container string) []map[string]string {
	d.tb.Helper()
	var list []map[string]string
	text := d.docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null || true") // one that ends meanwhile has none
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if key == "Name" {
			list = append(list, map[string]string{})
		}
		if len(list) > 0 {
			list[len(list)-1][key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return list
}

// left is what there is of the project.
func (d *dockerDaemon) left() []string {
	d.tb.Helper()
	var left []string
	for _, list := range [][]string{
		{"container", "ls", "--all", "--format", "container {{.Names}}"},
		{"network", "ls", "--format", "network {{.Name}}"},
		{"volume", "ls", "--format", "volume {{.Name}}"},
	} {
		names := d.docker(append(list, "--filter", "label=com.docker.compose.project="+d.name)...)
		left = append(left, strings.FieldsFunc(names, func(r rune) bool { return r == '\n' })...)
	}
	slices.Sort(left)
	return left
}

// image is the name of an image, if the daemon has it, or of a stand-in for it.
func (d *dockerDaemon) image(name string, fill func(*rootfs)) string {
	d.tb.Helper()
	if _, err := d.try("docker", "image", "inspect", name); err == nil {
		d.tb.Logf("%s is here", name)
		return name
	}
	began := time.Now()
	file, err := os.Create(filepath.Join(d.tb.TempDir(), "rootfs.tar"))
	if err != nil {
		d.tb.Fatal(err)
	}
	defer file.Close()
	r := &rootfs{tb: d.tb, tar: tar.NewWriter(file), have: map[string]bool{"/": true, ".": true}, changes: []string{"LABEL " + testLabel + "=" + d.name}}
	fill(r)
	if err := r.tar.Close(); err != nil {
		d.tb.Fatal(err)
	}
	standIn := d.name + "/" + strings.ReplaceAll(name, ":", "-")
	args := []string{"import"}
	for _, change := range r.changes {
		args = append(args, "--change", change)
	}
	d.docker(append(args, file.Name(), standIn)...)
	os.Remove(file.Name())
	d.tb.Logf("%s is not here; a stand-in was made in %s", name, time.Since(began).Round(100*time.Millisecond))
	return standIn
}

// rootfs is the content of a stand-in.
type rootfs struct {
	tb      testing.TB
	tar     *tar.Writer
	have    map[string]bool
	changes []string // as in a Dockerfile
}

func (r *rootfs) add(header tar.Header, content []byte) {
	r.tb.Helper()
	r.dir(path.Dir(header.Name), 0o755)
	if r.have[header.Name] {
		return
	}
	r.have[header.Name] = true
	header.Size = int64(len(content))
	if err := r.tar.WriteHeader(&header); err != nil {
		r.tb.Fatal(err)
	}
	if _, err := r.tar.Write(content); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *rootfs) dir(name string, mode int64) {
	if !r.have[name] {
		r.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
	}
}

func (r *rootfs) link(name, target string) {
	r.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (r *rootfs) write(name string, mode int64, content string) {
	r.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, []byte(content))
}

// copy takes a file of this machine over.
func (r *rootfs) copy(file, name string) {
	r.tb.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		r.tb.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm())}, content)
}

// copyTree takes a directory of this machine over, without what is named.
func (r *rootfs) copyTree(dir, name string, without ...string) {
	r.tb.Helper()
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if slices.Contains(without, rel) || slices.Contains(without, filepath.Base(rel)+"/") {
			return filepath.SkipDir
		}
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() { // links become what they lead to
			r.copy(file, path.Join(name, filepath.ToSlash(rel)))
		}
		return nil
	})
	if err != nil {
		r.tb.Fatal(err)
	}
}

// output is that of a command of this machine.
func (r *rootfs) output(env []string, args ...string) string {
	r.tb.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		r.tb.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// staticBusybox says why there is none.
func staticBusybox() error {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer program.Close()
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not static", file)
		}
	}
	return nil
}

// busyboxImage is what Alpine is for the most part.
func busyboxImage(r *rootfs) {
	file := r.output(nil, "sh", "-c", "command -v busybox")
	r.copy(file, "/bin/busybox")
	for _, name := range strings.Fields(r.output(nil, file, "--list")) {
		r.link("/bin/"+name, "busybox")
	}
	r.write("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
	r.write("/etc/group", 0o644, "root:x:0:\n")
	r.dir("/tmp", 0o1777)
	r.changes = append(r.changes, "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", `CMD ["/bin/sh"]`)
}

// pythonImage has the python3 of this machine, with its standard library and the C libraries of both: that of the system where
// there is one, because tools in the sandbox see what is in /usr.
func pythonImage(r *rootfs) {
	busyboxImage(r)
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		python = "python3"
	}
	found := strings.Fields(r.output(nil, python, "-c", "import os, sys, sysconfig; print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'))"))
	program, library := found[0], found[1]
	r.copy(program, program)
	r.link("/usr/local/bin/python3", program)
	r.copyTree(library, library, "test", "site-packages", "dist-packages", "idlelib", "tkinter", "lib2to3", "__pycache__/")
	modules, err := filepath.Glob(filepath.Join(library, "lib-dynload", "*.so"))
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, needed := range regexp.MustCompile(`/\S+\.so\S*`).FindAllString(r.output(nil, append([]string{"ldd", program}, modules...)...), -1) {
		if !strings.HasSuffix(needed, ":") { // what it is about, not what that needs
			r.copy(needed, needed)
		}
	}
}

// golangImage has the Go of this machine, and the modules that go.sum names, as a proxy would have them.
func golangImage(r *rootfs) {
	busyboxImage(r)
	root := r.output(nil, "go", "env", "GOROOT")
	r.copyTree(root, "/usr/local/go", "test", "doc", "api", "testdata/")
	r.copy("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
	sums, err := os.ReadFile("../../go.sum")
	if err != nil {
		r.tb.Fatal(err)
	}
	r.output(nil, "go", "mod", "download") // also what only other systems need, which a build here has not downloaded
	cache := filepath.Join(r.output(nil, "go", "env", "GOMODCACHE"), "cache", "download")
	for line := range strings.Lines(string(sums)) {
		module, version, _ := strings.Cut(line, " ")
		version, _, _ = strings.Cut(version, " ")
		version, _, _ = strings.Cut(version, "/")
		for _, kind := range []string{".info", ".mod", ".zip"} {
			file := filepath.Join(escaped(module), "@v", escaped(version)+kind)
			if _, err := os.Stat(filepath.Join(cache, file)); err == nil {
				r.copy(filepath.Join(cache, file), "/proxy/"+filepath.ToSlash(file))
			}
		}
	}
	r.changes = append(r.changes, "ENV PATH=/usr/local/go/bin:/usr/bin:/bin GOPATH=/go GOTOOLCHAIN=local GOPROXY=file:///proxy GOSUMDB=off")
}

// escaped is how a module cache writes capital letters.
func escaped(name string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(name, func(s string) string { return "!" + strings.ToLower(s) })
}

// natsImage has the server of go.mod, built here, and the start script of the official image.
func natsImage(r *rootfs) {
	busyboxImage(r)
	program := filepath.Join(r.tb.TempDir(), "nats-server")
	r.output([]string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/nats-io/nats-server/v2")
	r.copy(program, "/usr/local/bin/nats-server")
	r.write("/usr/local/bin/docker-entrypoint.sh", 0o755, "#!/bin/sh\nset -e\nexec \"$@\"\n")
	r.changes = append(r.changes, "EXPOSE 4222 8222 6222", `ENTRYPOINT ["docker-entrypoint.sh"]`, `CMD ["nats-server"]`)
}
