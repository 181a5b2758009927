//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// lay makes files and links below a directory, "" being a directory, "-> x" a link, and all else a program that prints it.
func lay(t *testing.T, dir string, entries map[string]string) {
	t.Helper()
	for name, text := range entries {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			if to, link := strings.CutPrefix(text, "-> "); link {
				err = os.Symlink(to, path)
			} else {
				err = os.WriteFile(path, []byte("#!/bin/sh\necho "+text+"\n"), 0o755)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A contract from the bus cannot have a program of the list do what it likes; the operator's own may.
func TestAllowedCommandsAreNotSwayed(t *testing.T) {
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		for name, list := range map[string][]string{"no list": nil, "a list": {"/bin/echo"}} {
			e := newEngine(t, tier, func(config *Config) { config.Commands = list })
			for target, sways := range map[string]bool{"/lib/x86_64-linux-gnu": true, "/usr": true, "/etc/ld.so.preload": true, "/": true, "/usrx": false, "~/usr": false} {
				err := e.unswayed(&contracts.Contract{}, &contracts.LocalSpec{CommonSpec: contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: "c", Path: target}}}})
				if denied := errorCode(err) == contracts.PolicyDenied && strings.Contains(err.Error(), target); denied != (list != nil && sways) {
					t.Errorf("%s, a cache at %s: %v", name, target, err)
				}
			}
			for _, variable := range []string{"LD_PRELOAD", "PATH", "PYTHONPATH", "BASH_ENV", "PLAIN"} {
				j := job("/bin/echo")
				j.Spec.Common().Env = contracts.Variables{variable: "/nothing"}
				_, err := e.Run(t.Context(), j, nil, nil)
				if denied := errorCode(err) == contracts.PolicyDenied && strings.Contains(err.Error(), variable); denied != (list != nil && variable != "PLAIN") {
					t.Errorf("%s, %s: %v", name, variable, err)
				}
				j.Contract.File = "/tools/x.yaml"
				if _, err := e.Run(t.Context(), j, nil, nil); err != nil {
					t.Errorf("%s, the operator's contract with %s: %v", name, variable, err)
				}
			}
		}
	})
}

func TestAllowedCommands(t *testing.T) {
	dir := openDir(t)
	lay(t, dir, map[string]string{
		"one": "one", "other": "other", "to-one": "-> one", "to-other": "-> " + dir + "/other",
		"tools/a": "a", "tools/deep/b": "b", "tools/out": "-> ../other", "tools-x/c": "c", "to-tools": "-> tools",
		"bin/d": "-> ../tools/a", "bin/e": "-> /bin/sh",
	})
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		for _, c := range []struct {
			name    string
			list    []string
			command string
			shell   bool
			allowed bool
		}{
			{"no list", nil, dir + "/one", false, true},
			{"the file", []string{dir + "/one"}, dir + "/one", false, true},
			{"another file", []string{dir + "/one"}, dir + "/other", false, false},
			{"a link to it", []string{dir + "/one"}, dir + "/to-one", false, true},
			{"a link to another", []string{dir + "/to-one"}, dir + "/to-other", false, false},
			{"the list has the link", []string{dir + "/to-one"}, dir + "/one", false, true},
			{"in the directory", []string{dir + "/tools/"}, dir + "/tools/a", false, true},
			{"deep in it", []string{dir + "/tools/"}, dir + "/tools/deep/b", false, true},
			{"by a link to the directory", []string{dir + "/to-tools/"}, dir + "/tools/a", false, true},
			{"a link into it", []string{dir + "/tools/"}, dir + "/bin/d", false, true},
			{"a link out of it", []string{dir + "/tools/"}, dir + "/tools/out", false, false},
			{"by ..", []string{dir + "/tools/"}, dir + "/tools/../other", false, false},
			{"the same beginning", []string{dir + "/tools/"}, dir + "/tools-x/c", false, false},
			{"without the slash", []string{dir + "/tools"}, dir + "/tools/a", false, false},
			{"a name in the PATH", []string{"/bin/echo"}, "echo", false, true},
			{"another name in the PATH", []string{"/bin/echo"}, "cat", false, false},
			{"what is in the list is not there", []string{"/nothing"}, dir + "/one", false, false},
			{"the shell", []string{"/bin/sh"}, "echo shell", true, true},
			{"the shell is not in the list", []string{dir + "/"}, "echo shell", true, false},
			{"the shell by another name", []string{dir + "/"}, dir + "/bin/e", false, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				e := newEngine(t, tier, func(config *Config) {
					config.Commands, config.Sandbox.Paths = c.list, append(config.Sandbox.Paths, dir)
				})
				j := job(c.command)
				if c.shell {
					j = jobOf(contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Shell: c.command}}, Shell: true})
				}
				started := false
				j.Starting = func() error { started = true; return nil }
				_, err := e.Run(t.Context(), j, nil, nil)
				if c.allowed != (err == nil) || c.allowed != started {
					t.Fatalf("started: %v, %v", started, err)
				}
				if err == nil {
					return
				}
				if errorCode(err) != contracts.PolicyDenied || !strings.Contains(err.Error(), "policy.local.commands") {
					t.Errorf("%v", err)
				}
				if c.shell && !strings.Contains(err.Error(), "shell: true") {
					t.Errorf("it does not say what needs the shell: %v", err)
				}
				if c.name == "without the slash" && !strings.Contains(err.Error(), dir+"/tools/") {
					t.Errorf("it does not say what is meant: %v", err)
				}
			})
		}
	})
}

// What a tool finds under a name need not be what the host has there. It is the tool's file that has to be in the list.
func TestAllowedCommandsAreThoseOfTheSandbox(t *testing.T) {
	listed, mounted := t.TempDir(), t.TempDir()
	for _, dir := range []string{listed, mounted} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lay(t, listed, map[string]string{"tool": "right"})
	lay(t, mounted, map[string]string{"tool": "wrong", "link": "-> " + listed + "/tool", "far": "-> /far/tool"})
	e := newEngine(t, sandboxed(t), func(c *Config) {
		c.Commands, c.Sandbox.MountRoots, c.Sandbox.Paths = []string{listed + "/"}, []string{mounted}, append(c.Sandbox.Paths, listed)
	})
	with := func(command string, mounts ...contracts.Mount) *engines.Job {
		j := job(command)
		j.Spec.Common().Mounts = mounts
		return j
	}
	if got := run(t, e, with(listed+"/tool")); got != "right\n" {
		t.Errorf("it printed %q", got)
	}
	if got := run(t, e, with("/mnt/link", contracts.Mount{Source: mounted, Target: "/mnt"})); got != "right\n" {
		t.Errorf("by a link it printed %q", got)
	}
	over := contracts.Mount{Source: mounted, Target: listed}
	for name, j := range map[string]*engines.Job{
		"another file in the place of a listed one": with(listed+"/tool", over),
		"a link to that":            with("/mnt/link", over, contracts.Mount{Source: mounted, Target: "/mnt"}),
		"a link to another mount":   with("/mnt/far", contracts.Mount{Source: mounted, Target: "/mnt"}, contracts.Mount{Source: mounted, Target: "/far"}),
		"a link to what is nowhere": with("/mnt/far", contracts.Mount{Source: mounted, Target: "/mnt"}),
	} {
		var stdout strings.Builder
		if exit, err := e.Run(t.Context(), j, &stdout, nil); err == nil {
			t.Errorf("%s was run: %+v, it printed %q", name, exit, stdout.String())
		}
	}
}

// A link that is changed after the look leads nowhere: the file itself is executed.
func TestAllowedCommandIsTheFileThatIsExecuted(t *testing.T) {
	dir := openDir(t)
	lay(t, dir, map[string]string{"good": `good "$0"`, "bad": "bad", "link": "-> good"})
	eachTier(t, func(t *testing.T, tier func(*Config)) {
		e := newEngine(t, tier, func(c *Config) { c.Commands, c.Sandbox.Paths = []string{dir + "/good"}, append(c.Sandbox.Paths, dir) })
		link := filepath.Join(dir, "link")
		j := job(link)
		j.Starting = func() error { // the look is over
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("bad", link)
		}
		if got, want := run(t, e, j), "good "+dir+"/good\n"; got != want {
			t.Errorf("it printed %q, and %q is right", got, want)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		lay(t, dir, map[string]string{"link": "-> good"})
	})
}

func TestResolveEndsInALoop(t *testing.T) {
	dir := openDir(t)
	lay(t, dir, map[string]string{"a": "-> b", "b": "-> a"})
	e := newEngine(t, sandboxed(t), func(c *Config) { c.Sandbox.Paths = append(c.Sandbox.Paths, dir) })
	if in, out, err := e.view.resolve(dir + "/a"); err == nil {
		t.Errorf("a loop leads to %s and %s", in, out)
	}
	if in, out, err := e.view.resolve("/bin/../bin/sh"); err != nil || !strings.HasPrefix(out, "/usr/") || in != out {
		t.Errorf("/bin/sh leads to %s and %s, %v", in, out, err)
	}
}
