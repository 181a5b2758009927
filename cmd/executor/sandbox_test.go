//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// localRun is a request that runs a command on the local engine, with what else its spec says.
func localRun(spec contracts.LocalSpec, argv ...string) client.Request {
	spec.Command.Argv = argv
	return client.Request{ID: client.NewID(), Contract: &contracts.Contract{Name: "tool", Engine: contracts.EngineLocal, Spec: &spec}}
}

// needsTier skips where the sandbox that is tested cannot be made: the program would not start. CI has to have it.
func needsTier(tb testing.TB) {
	tb.Helper()
	p := start(tb, nil, "doctor", "--json", "--config", writeFile(tb, "executor.yaml", "{nats: {urls: ['nats://127.0.0.1:1'], connect_timeout: 0.1}}"))
	<-p.ended
	if strings.Contains(p.log.String(), "the sandbox "+local.TierNamespaces+" does not work here") {
		tb.Skip("SKIPPED: there is no sandbox here: " + p.log.String())
	}
}

// Everything that the executor knows and tools must not lies in a directory that a tool has mounted: its configuration, its
// credentials, its data directory, with the token and the store of the NATS server of dev in it, and the file that tells
// commands where that is. All of it is readable for everybody, so that nothing but the sandbox keeps it from the tool.
func TestToolsDoNotSeeWhatIsTheExecutors(t *testing.T) {
	needsTier(t)
	world, err := os.MkdirTemp("/var/tmp", "executor-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(world) })
	seed, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seed.Seed()
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(world, name) }
	for name, text := range map[string]string{
		"shown": "this-is-shown", "nkey/user.nk": string(key), "state/executor/other": "another-file",
		"etc/executor.yaml": fmt.Sprintf(`# this-is-the-configuration
execution: {enable_sandboxing: true, local: {sandbox: {paths: [%q]}}}
policy: {mounts: ["%s:rw"]}
`, in("etc"), world),
	} {
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	dev := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+in("state")) }
	ready := startDevAs(t, []func(*exec.Cmd){dev}, in("data"), "--config", in("etc/executor.yaml"))
	token, err := os.ReadFile(in("data/token"))
	if err != nil {
		t.Fatal(err)
	}
	nc := connectTo(t, ready.url)
	c := newClient(t, nc)
	// What is in the store of NATS.
	if result := wait(t, begin(t, c, localRun(contracts.LocalSpec{}, "/bin/echo", "of-an-earlier-run"))); result.Status != contracts.Succeeded {
		t.Fatalf("%+v", result)
	}
	if out, err := exec.Command("chmod", "-R", "a+rX", world).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	secrets := map[string]string{
		"the token": strings.TrimSpace(string(token)), "the configuration": "this-is-the-configuration", "the store of NATS": "of-an-earlier-run", "the address with the token": "nats://",
	}
	const read = `find "$@" -type f ! -path '*/caches*' -exec cat {} + 2>/dev/null; exit 0`
	look := func(t *testing.T, c *client.Client, secrets map[string]string, where ...string) {
		t.Helper()
		spec := contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Mounts: contracts.Mounts{{Source: world, Target: "/mnt"}}}}
		result := wait(t, begin(t, c, localRun(spec, append([]string{"/bin/sh", "-c", read, "sh"}, where...)...)))
		if result.Status != contracts.Succeeded || result.Isolation.Tier != local.TierNamespaces {
			t.Fatalf("%+v", result)
		}
		printed := result.Stdout + string(result.StdoutBase64) // streams are no text
		if !strings.Contains(printed, "this-is-shown") || !strings.Contains(printed, "another-file") {
			t.Errorf("the mount is not what it should be: %q", printed)
		}
		for what, text := range secrets {
			if strings.Contains(printed, text) {
				t.Errorf("the tool read %s", what)
			}
		}
	}
	t.Run("dev", func(t *testing.T) { look(t, c, secrets, "/mnt", in("etc")) })
	t.Run("mounted by name", func(t *testing.T) {
		mounts := contracts.Mounts{
			{Source: in("data")}, {Source: in("data/nats")}, {Source: in("data/token")}, {Source: in("etc/executor.yaml")}, {Source: in("state/executor/dev.url")},
			{Source: world, Mode: "rw"}, {Source: in("etc"), Mode: "rw"}, // where a tool could put its own in the place of what is there
		}
		for _, m := range mounts {
			m.Target = "/mnt"
			spec := contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Mounts: contracts.Mounts{m}}}
			result := wait(t, begin(t, c, localRun(spec, "/bin/true")))
			if result.Status != contracts.Rejected || result.Error == nil || result.Error.Code != contracts.PolicyDenied {
				t.Errorf("%s was mounted: %+v", m.Source, result)
			}
		}
	})
	t.Run("serve with credentials", func(t *testing.T) {
		public, err := seed.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, Nkeys: []*server.NkeyUser{{Nkey: public}}})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { // after the executor has stopped
			s.Shutdown()
			s.WaitForShutdown()
		})
		config := in("etc/serve.yaml")
		text := fmt.Sprintf("# this-is-another-configuration\nnats: {nkey: %q}\nexecution: {enable_sandboxing: true}\npolicy: {inline_contracts: true, mounts: [\"%s:rw\"]}\n", in("nkey/user.nk"), world)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		startServe(t, s.ClientURL(), "--config", config, "--data", in("serve"))
		nc, err := nats.Connect(s.ClientURL(), nats.Nkey(public, seed.Sign))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		look(t, newClient(t, nc), map[string]string{"the seed of its key": strings.TrimSpace(string(key)), "the configuration": "this-is-another-configuration"}, "/mnt/shown", "/mnt/nkey", "/mnt/etc", "/mnt/state")
	})
}

// startDevAs is startDev with a data directory of one's own and changes to how it is started.
func startDevAs(tb testing.TB, change []func(*exec.Cmd), data string, extra ...string) *dev {
	tb.Helper()
	d := &dev{data: data}
	d.read(tb, func(w *os.File) *instance {
		return startAs(tb, w, change, append([]string{"dev", "--nats-port", "-1", "--http", "127.0.0.1:0", "--data", data}, extra...)...)
	})
	return d
}

// What policy says about the local engine, asked for over the bus.
func TestPolicyOfTheLocalEngine(t *testing.T) {
	needsTier(t)
	s := startNATS(t)
	c := newClient(t, connectTo(t, s.URL()))
	serve := func(t *testing.T, policy string) {
		p := startServe(t, s.URL(), "--config", writeFile(t, "executor.yaml", "execution: {enable_sandboxing: true, local: {kill_grace: 0.5}}\npolicy: {inline_contracts: true, shell: true, local: "+policy+"}\n"))
		t.Cleanup(p.stop)
	}
	denied := func(t *testing.T, request client.Request, words ...string) {
		t.Helper()
		run, err := c.Start(t.Context(), request)
		var text string
		if err != nil { // by the front door
			text = err.Error()
		} else {
			result := wait(t, run)
			run.Close()
			if result.Status != contracts.Rejected || result.Error == nil || result.Error.Code != contracts.PolicyDenied || result.Attempt != 0 {
				t.Fatalf("it is not denied: %+v", result)
			}
			text = result.Error.Message
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("the refusal does not name %q: %s", word, text)
			}
		}
	}
	tier := func(t *testing.T, request client.Request, want string) {
		t.Helper()
		result := wait(t, begin(t, c, request))
		if result.Status != contracts.Succeeded || result.Isolation.Tier != want {
			t.Errorf("%+v, %+v", result, result.Error)
		}
	}
	bare := contracts.LocalSpec{Sandbox: contracts.SandboxNone}
	t.Run("nothing is allowed", func(t *testing.T) {
		serve(t, "{}")
		denied(t, localRun(bare, "/bin/true"), "sandbox: none", "policy.local.unsandboxed")
		tier(t, localRun(contracts.LocalSpec{}, "/bin/true"), local.TierNamespaces)
		tier(t, localRun(contracts.LocalSpec{Sandbox: contracts.SandboxNamespaces}, "/bin/true"), local.TierNamespaces)
	})
	t.Run("without a sandbox", func(t *testing.T) {
		serve(t, "{unsandboxed: true}")
		tier(t, localRun(bare, "/bin/true"), local.TierNone)
		tier(t, localRun(contracts.LocalSpec{}, "/bin/true"), local.TierNamespaces) // not because another may be
	})
	t.Run("a list of commands", func(t *testing.T) {
		serve(t, "{commands: [/bin/echo], unsandboxed: true}")
		tier(t, localRun(contracts.LocalSpec{}, "echo", "x"), local.TierNamespaces)
		tier(t, localRun(bare, "echo", "x"), local.TierNone)
		for _, spec := range []contracts.LocalSpec{{}, bare} {
			denied(t, localRun(spec, "cat"), "cat", "policy.local.commands")
		}
		denied(t, shell("echo x"), "/bin/sh", "shell: true", "policy.local.commands")
	})
}

const (
	noNamespacesSetting = "/proc/sys/user/max_user_namespaces"
	noNamespacesRemedy  = "sysctl -w user.max_user_namespaces"
)

// noNamespaces starts a program where it can make no namespaces: in a user namespace of its own, whose setting is nobody
// else's. It has the users that the sandbox needs.
func noNamespaces(cmd *exec.Cmd) {
	cmd.Args = append([]string{"sh", "-c", "echo 0 >" + noNamespacesSetting + ` && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	same := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: same, GidMappings: same, GidMappingsEnableSetgroups: true}
}

// An instance that can make none of the allowed sandboxes does not run tools without: a request goes to a container engine
// with the reason, or is refused with what to do about it. Once that is done the instance serves the engine.
func TestBelowMinTier(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can take away what a sandbox needs")
	}
	const setting = noNamespacesSetting
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Skipf("SKIPPED: %s", err)
	}
	const config = "execution: {enable_sandboxing: true}\npolicy: {inline_contracts: true}\nlog: {level: debug, format: json}\n"
	const remedy = noNamespacesRemedy

	s := startNATS(t)
	alone := startAs(t, nil, []func(*exec.Cmd){noNamespaces}, "serve", "--server", s.URL(), "--http", "off", "--data", t.TempDir(), "--config", writeFile(t, "executor.yaml", config))
	if code := alone.exitCode(); code != exitError || !strings.Contains(alone.log.String(), remedy) || !strings.Contains(alone.log.String(), "there is no engine to serve") {
		t.Errorf("an instance that has no other engine: exit code %d", code)
	}

	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	fake := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, withFake+"="+contracts.EngineDocker) }
	p := startAs(t, nil, []func(*exec.Cmd){noNamespaces, fake}, "serve", "--server", s.URL(), "--http", address, "--data", t.TempDir(), "--config", writeFile(t, "executor.yaml", config))
	awaitReady(t, address)
	nc := connectTo(t, s.URL())
	c := newClient(t, nc)

	elsewhere := localRun(contracts.LocalSpec{}, "/bin/true")
	elsewhere.Contract.Fallback = []contracts.Fallback{{Engine: contracts.EngineDocker, Spec: &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{
		Image: "x", CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: []string{"x", "out:in a container"}}}}}}}
	result := wait(t, begin(t, c, elsewhere))
	if result.Status != contracts.Succeeded || result.Engine != contracts.EngineDocker || result.Stdout != "in a container" {
		t.Fatalf("%+v, %+v", result, result.Error)
	}
	if len(result.Tried) != 1 || result.Tried[0].Engine != contracts.EngineLocal || result.Tried[0].Code != contracts.EngineUnavailable || !strings.Contains(result.Tried[0].Reason, remedy) {
		t.Errorf("what was tried: %+v", result.Tried)
	}

	// Refused at the front door, before it is stored …
	result = wait(t, begin(t, c, localRun(contracts.LocalSpec{}, "/bin/true")))
	if result.Status != contracts.Unavailable || result.Error == nil || result.Error.Code != contracts.EngineUnavailable || !strings.Contains(result.Error.Message, remedy) {
		t.Errorf("at the front door: %+v, %+v", result, result.Error)
	}
	if list := stored(t, nc, "TOOLS_RESULT", "tools.reply."+result.ID+".result"); len(list) != 0 {
		t.Errorf("what the front door refused was stored: %d results", len(list))
	}
	// … and out of the queue, where somebody has put it.
	queued := localRun(contracts.LocalSpec{}, "/bin/true")
	text, err := json.Marshal(queued)
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := nc.Request("tools.exec.local", text, 5*time.Second); err != nil || !strings.Contains(string(reply.Data), "TOOLS_EXEC") {
		t.Fatalf("%v, %v", reply, err)
	}
	run := c.Follow(queued.ID)
	defer run.Close()
	if result := wait(t, run); result.Status != contracts.Unavailable || result.Error == nil || result.Error.Code != contracts.EngineUnavailable || !strings.Contains(result.Error.Message, remedy) {
		t.Errorf("out of the queue: %+v, %+v", result, result.Error)
	}
	discovery, err := c.Discover(t.Context(), "")
	if err != nil || len(discovery.Executors) != 1 {
		t.Fatalf("%+v, %v", discovery, err)
	}
	if state := discovery.Executors[0].Engines[contracts.EngineLocal]; state.Ready || !strings.Contains(state.Reason, remedy) {
		t.Errorf("what the fleet hears: %+v", state)
	}
	if after, _ := os.ReadFile(setting); string(after) != string(before) {
		t.Fatalf("the setting of the machine was changed from %s to %s", before, after)
	}

	// The operator does as he is told: without another start the engine is there.
	mend := exec.Command("nsenter", "--user", "--target", strconv.Itoa(p.cmd.Process.Pid), "sh", "-c", "echo 1000 >"+setting)
	if out, err := mend.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deadline := time.Now().Add(60 * time.Second) // a look at an engine that is not healthy comes every 30 s at the latest
	for {
		run, err := c.Start(t.Context(), localRun(contracts.LocalSpec{}, "/bin/true"))
		if err == nil {
			result := wait(t, run)
			run.Close()
			if result.Status == contracts.Succeeded && result.Isolation.Tier == local.TierNamespaces {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not served a minute later: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// What works here and what does not is for doctor to say, with what to do about it.
func TestDoctorTellsOfTheSandbox(t *testing.T) {
	needsTier(t)
	dir := t.TempDir()
	find := func(t *testing.T, config string, change ...func(*exec.Cmd)) map[string]finding {
		t.Helper()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		config += "\nnats: {urls: ['nats://127.0.0.1:1'], connect_timeout: 0.1}\nexecutor: {data_dir: '" + dir + "'}\n"
		p := startAs(t, w, change, "doctor", "--json", "--config", writeFile(t, "executor.yaml", config))
		w.Close()
		var answer struct{ Findings []finding }
		if err := json.NewDecoder(r).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		found := map[string]finding{}
		for _, f := range answer.Findings {
			if _, ok := found[f.Name]; !ok { // of the tiers the strongest
				found[f.Name] = f
			}
		}
		return found
	}
	t.Run("in use", func(t *testing.T) {
		found := find(t, "execution: {enable_sandboxing: true}\npolicy: {local: {commands: [/usr/bin/env, /usr/lib, /nothing]}}")
		if f := found["local"]; f.State != findingOK || !strings.Contains(f.Detail, local.TierNamespaces) {
			t.Errorf("local: %+v", f)
		}
		if f := found["limits"]; !strings.Contains(f.Detail, "pids_limit by ") || (f.State == findingOK) != (f.Mend == "") {
			t.Errorf("limits: %+v", f)
		}
		if f := found["commands"]; f.State != findingWarn || !strings.Contains(f.Detail, "/usr/lib is a directory") || !strings.Contains(f.Detail, "/nothing is not there") || strings.Contains(f.Detail, "/usr/bin/env") {
			t.Errorf("commands: %+v", f)
		}
		if f, ok := found["sandbox"]; ok && strings.HasPrefix(f.Detail, local.TierNamespaces) {
			t.Errorf("a tier that is in use is told of twice: %+v", f)
		}
	})
	t.Run("not in use", func(t *testing.T) {
		found := find(t, "execution: {enable_sandboxing: false}\npolicy: {local: {commands: [/usr/bin/]}}")
		if f := found["sandbox"]; f.State != findingOK || !strings.Contains(f.Detail, local.TierNamespaces+" works here") {
			t.Errorf("sandbox: %+v", f)
		}
		if f, ok := found["limits"]; ok {
			t.Errorf("limits where there are none: %+v", f)
		}
		if f := found["commands"]; f.State != findingOK {
			t.Errorf("commands: %+v", f)
		}
	})
	t.Run("not possible", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("SKIPPED: only root can take away what a sandbox needs")
		}
		found := find(t, "execution: {enable_sandboxing: true}", noNamespaces)
		for _, name := range []string{"local", "sandbox"} {
			if f := found[name]; f.State == findingOK || !strings.Contains(f.Detail, noNamespacesRemedy) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	})
}

// An executor may be at work in the data directory, and what dead ones left there is of use to whoever looks for the reason.
func TestDoctorChangesNothingInTheDataDirectory(t *testing.T) {
	world, err := os.MkdirTemp("/var/tmp", "executor-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(world) })
	data := filepath.Join(world, "way", "data")
	for _, err := range []error{os.Chmod(world, 0o711), os.MkdirAll(filepath.Join(data, "runs/1-dead/1/work"), 0o700), os.MkdirAll(filepath.Join(data, "caches-65534/pip"), 0o700), os.Chmod(filepath.Dir(data), 0o711), os.Chmod(data, 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	look := func() (all []string) {
		err := filepath.WalkDir(world, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			all = append(all, fmt.Sprint(path, " ", info.Mode(), " ", info.Sys().(*syscall.Stat_t).Gid))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	doctor := func(dir string) string {
		out, _ := runProgram(t, "doctor", "--config", writeFile(t, "executor.yaml", "{execution: {enable_sandboxing: true}, nats: {urls: ['nats://127.0.0.1:1'], connect_timeout: 0.1}, executor: {data_dir: '"+dir+"'}}"))
		return out
	}
	before := look()
	for _, dir := range []string{data, filepath.Join(world, "way/new/data")} {
		out := doctor(dir)
		if after := look(); !slices.Equal(before, after) || strings.Contains(out, trialName) {
			t.Errorf("before: %q\nafter doctor looked at %s: %q\nit said\n%s", before, dir, after, out)
		}
	}
	if os.Geteuid() != 0 {
		return // tools are no other user
	}
	// What is wrong with the directory itself, or with one that it is in, is told of that.
	for _, closed := range []string{data, filepath.Dir(data)} {
		if err := os.Chmod(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		if out := doctor(data); !strings.Contains(out, "through "+closed+": run chmod o+x") {
			t.Errorf("%s is closed, and doctor says\n%s", closed, out)
		}
		if err := os.Chmod(closed, 0o711); err != nil {
			t.Fatal(err)
		}
	}
}
