//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// withCaches is a job that has named caches.
func withCaches(j *engines.Job, caches ...contracts.CacheMount) *engines.Job {
	j.Spec.Common().CacheMounts = caches
	return j
}

// What bwrap executes is none of the contract's business: not the shell that it put into a cache, and not its libraries.
func TestWhatBubblewrapExecutes(t *testing.T) {
	e := newEngine(t, in(t, TierBubblewrap))
	evil := func(at string) contracts.CacheMount { return contracts.CacheMount{Name: "evil", Path: at} }
	run(t, e, withCaches(shell(`cp -L /bin/sh ~/c/real; printf '#!/usr/bin/real\necho was here >/usr/bin/evidence\necho up\nread _\n' >~/c/sh; chmod +x ~/c/sh`), evil("~/c")))
	for _, at := range []string{"/usr/bin", "/bin"} { // by the link as well
		var stdout strings.Builder
		if _, err := e.Run(t.Context(), withCaches(job("/usr/bin/real", "-c", "echo ran"), evil(at)), &stdout, nil); err != nil || stdout.String() != "ran\n" {
			t.Errorf("with a cache over %s the tool printed %q, %v", at, stdout.String(), err)
		}
		if got, _ := output(t, e, withCaches(shell("cat ~/c/evidence 2>/dev/null"), evil("~/c"))); got != "" {
			t.Errorf("with a cache over %s the shell of the contract %s", at, got)
		}
	}
	if got := run(t, e, withCaches(tool(t, "out:ran"), contracts.CacheMount{Name: "empty", Path: "/usr"})); got != "ran" {
		t.Errorf("where there is neither a shell nor a library the tool printed %q", got)
	}
}

// Tools leave links in caches. What has its place in the cache is not put where they lead: bwrap would follow them before it leaves
// the host's files behind.
func TestLinksInTheWayOfMounts(t *testing.T) { eachOf(t, boxes, testLinksInTheWayOfMounts) }

func testLinksInTheWayOfMounts(t *testing.T, tier string) {
	e := newEngine(t, in(t, tier))
	host := openDir(t)
	for _, err := range []error{os.WriteFile(filepath.Join(host, "secret"), []byte("secret"), 0o644), os.Chmod(host, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name, path string) contracts.CacheMount { return contracts.CacheMount{Name: name, Path: path} }
	run(t, e, withCaches(shell("cd /var/a; ln -s ../../usr usr; ln -s /oldroot"+host+" host; ln -s /oldroot"+e.space.caches+" caches; ln -s /oldroot"+host+" /b/z"), at("a", "/var/a"), at("b", "/b")))
	for name, caches := range map[string][]contracts.CacheMount{
		"a directory of the system":      {at("a", "/var/a"), at("b", "/var/a/usr/bin")},
		"one of the host":                {at("a", "/var/a"), at("b", "/var/a/host/made")},
		"one from which there are binds": {at("a", "/var/a"), at("b", "/var/a/caches"), at("z", "/z")},
	} {
		var stdout strings.Builder
		_, err := e.Run(t.Context(), withCaches(shell("cat /z/secret"), caches...), &stdout, nil)
		if errorCode(err) != contracts.SpawnFailed || !strings.Contains(err.Error(), "mount "+caches[1].Path) {
			t.Errorf("%s: Run returned %v", name, err)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s: a file of the host was read: %q", name, stdout.String())
		}
	}
	if _, err := os.Lstat(filepath.Join(host, "made")); err == nil {
		t.Error("there is a new directory on the host")
	}
}

func TestPlacesThatEverySandboxHas(t *testing.T) { eachOf(t, boxes, testPlacesThatEverySandboxHas) }

func testPlacesThatEverySandboxHas(t *testing.T, tier string) {
	dir := openDir(t)
	e := newEngine(t, in(t, tier), func(c *Config) { c.Sandbox.MountRoots = []string{dir} })
	for _, at := range []string{"/", "/proc", "/proc/self/root/oldroot/x", "/dev", "/dev/fd/3", "/run", "/run/args.json", "/etc", "/work", "/.sandbox", "/.sandbox/hold", "/.sandbox/0", "/tmp", "/opt/x", "/data"} {
		free := at == "/tmp" || at == "/opt/x" || at == "/data"
		cache, mount := withCaches(shell("true"), contracts.CacheMount{Name: "a", Path: at}), shell("true")
		mount.Spec.Common().Mounts = contracts.Mounts{{Source: dir, Target: at}}
		for what, j := range map[string]*engines.Job{"cache_mounts: ": cache, "mounts: ": mount} {
			_, err := e.Run(t.Context(), j, nil, nil)
			if free && err != nil || !free && (errorCode(err) != contracts.SpawnFailed || !strings.Contains(err.Error(), what+at+" is in the place")) {
				t.Errorf("%s%s: %v", what, at, err)
			}
		}
	}
}

// Whatever a contract has is mounted as it was looked at, its own directory too: a bwrap that cannot is none.
func TestBubblewrapThatIsTooOld(t *testing.T) {
	config := Config{DataDir: filepath.Join(openDir(t), "data"), Path: DefaultPath}
	in(t, TierBubblewrap)(&config)
	real, err := findBubblewrap(bubblewrapPlaces)
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(openDir(t), "bwrap")
	if err := os.WriteFile(old, []byte("#!/bin/sh\nif [ \"$1\" = --help ]; then "+real+" --help 2>&1 | grep -v bind-fd; else exec "+real+" \"$@\"; fi\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer func(places []string) { bubblewrapPlaces = places }(bubblewrapPlaces)
	bubblewrapPlaces = []string{old}
	e, err := New(config, zerolog.Nop())
	if err == nil {
		e.Close()
	}
	if errorCode(err) != contracts.EngineUnavailable || !strings.Contains(err.Error(), "has no option --bind-fd: it needs bubblewrap 0.10 or later") {
		t.Errorf("New returned %v", err)
	}
}
