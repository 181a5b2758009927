package executor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// tools shows what a registry has, as "a/1 b/_".
func tools(r *Registry) string {
	var list []string
	for _, c := range r.List() {
		list = append(list, contracts.Key(c.Name, c.Version))
	}
	return strings.Join(list, " ")
}

// within polls until a registry has these tools.
func within(t *testing.T, d time.Duration, r *Registry, want string) {
	t.Helper()
	for deadline := time.Now().Add(d); tools(r) != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: it has %q, not %q; refused %v", d, tools(r), want, r.Refused())
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

const soon = 10 * time.Second // with room for a busy machine, which gives itself longer pauses

// watched loads directories and watches them until the test ends, or stop is called. What changes is heard, not looked for.
func watched(t *testing.T, dirs ...string) (r *Registry, log *logs, stop func()) {
	t.Helper()
	return watchedWithLooks(t, time.Hour, dirs...)
}

func watchedWithLooks(t *testing.T, each time.Duration, dirs ...string) (r *Registry, log *logs, stop func()) {
	t.Helper()
	r, log = NewRegistry(), &logs{}
	r.lookAgain = each
	if err := r.Load(dirs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Watch(ctx, zerolog.New(log)) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return r, log, stop
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchSeesFilesComeChangeAndGo(t *testing.T) {
	dir := writeTree(t, map[string]string{"a.yaml": contract("a", "1")})
	r, log, _ := watched(t, dir)
	within(t, soon, r, "a/1")
	write(t, contract("b", "1"), dir, "b.yaml")
	within(t, soon, r, "a/1 b/1")
	write(t, contract("b", "2"), dir, "b.yaml")
	within(t, soon, r, "a/1 b/2")
	write(t, "tools: ["+contract("c", "1")+", "+contract("d", "1")+"]", dir, "more", "deep", "contract.yaml")
	within(t, soon, r, "a/1 b/2 c/1 d/1")
	write(t, `{"name": "e", "version": "1", "engine": "local", "engine_spec": {"command": ["x"]}}`, dir, "more", "deep", "er", "e.contract.json")
	within(t, soon, r, "a/1 b/2 c/1 d/1 e/1")
	write(t, "not: a contract", dir, "more", "deep", "data.yaml") // counts for nothing
	do(t, os.RemoveAll(filepath.Join(dir, "more")), os.Remove(filepath.Join(dir, "a.yaml")))
	within(t, soon, r, "b/2")
	if text := log.text(); strings.Contains(text, "data.yaml") || !strings.Contains(text, `"added":["b/1"]`) || !strings.Contains(text, "the contracts have changed") {
		t.Error(text)
	}
}

// A file that becomes wrong keeps what it had, and is named once; a run that has its contract keeps that whatever comes.
func TestWatchKeepsWhatWasRight(t *testing.T) {
	dir := writeTree(t, map[string]string{"a.yaml": contract("a", "1"), "b.yaml": contract("b", "1")})
	r, log, _ := watched(t, dir)
	before, err := r.Find("a", "")
	do(t, err)
	write(t, "name: a\nengine: locl\n", dir, "a.yaml")
	wrong := filepath.Join(dir, "a.yaml") + ":2:9: engine: unknown engine"
	eventually(t, "the wrong file is named", func() bool { return strings.Contains(log.text(), wrong) })
	write(t, contract("c", "1"), dir, "c.yaml")
	within(t, soon, r, "a/1 b/1 c/1")
	if refused := r.Refused(); len(refused) != 1 || refused[0].Source != contracts.SourceDirectory || refused[0].Where != filepath.Join(dir, "a.yaml") || strings.Contains(refused[0].Reason, "\n") {
		t.Errorf("%+v", refused)
	}
	if n := strings.Count(log.text(), wrong); n != 1 {
		t.Errorf("named %d times:\n%s", n, log.text())
	}
	if c, err := r.Find("a", ""); err != nil || c != before {
		t.Errorf("%v, %v", c, err)
	}
	write(t, contract("a", "2"), dir, "a.yaml")
	within(t, soon, r, "a/2 b/1 c/1")
	if len(r.Refused()) != 0 {
		t.Errorf("%+v", r.Refused())
	}
	if before.Version != "1" {
		t.Error("a contract was changed")
	}
	// Wrong, and then gone.
	write(t, "[", dir, "a.yaml")
	eventually(t, "it is refused", func() bool { return len(r.Refused()) == 1 })
	do(t, os.Remove(filepath.Join(dir, "a.yaml")))
	within(t, soon, r, "b/1 c/1")
	// The same tool in two files: the first has it.
	write(t, contract("b", "1"), dir, "twice.yaml")
	eventually(t, "it is refused", func() bool {
		return len(r.Refused()) == 1 && strings.Contains(r.Refused()[0].Reason, "already defined")
	})
	within(t, soon, r, "b/1 c/1")
}

// Editors write another file and rename it, or rename the old one first; and move files.
func TestWatchWithEditors(t *testing.T) {
	dir := writeTree(t, map[string]string{"a.yaml": contract("a", "1")})
	r, log, stop := watched(t, dir)
	a := filepath.Join(dir, "a.yaml")
	for i := range 5 {
		version := fmt.Sprint("2.", i)
		switch i % 2 {
		case 0:
			write(t, contract("a", version), dir, ".a.yaml.swp")
			do(t, os.Rename(filepath.Join(dir, ".a.yaml.swp"), a))
		case 1:
			do(t, os.Rename(a, a+"~"))
			write(t, contract("a", version), a)
		}
		within(t, soon, r, "a/"+version)
	}
	do(t, os.Rename(a, filepath.Join(dir, "b.yaml")))
	eventually(t, "it has moved", func() bool {
		c, err := r.Find("a", "")
		return err == nil && filepath.Base(c.File) == "b.yaml"
	})
	// In no moment was it away, and nothing was refused.
	stop()
	if text := log.text(); strings.Contains(text, "not taken") || strings.Contains(text, `"removed":["a/2.4"]`) {
		t.Error(text)
	}
}

// configMap writes files as Kubernetes does: into a new directory, to which the link ..data is then moved.
func configMap(t *testing.T, dir, stamp string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		write(t, text, dir, ".."+stamp, name)
	}
	do(t, os.Symlink(".."+stamp, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		if _, err := os.Lstat(filepath.Join(dir, top)); err != nil {
			do(t, os.Symlink(filepath.Join("..data", top), filepath.Join(dir, top)))
		}
	}
}

func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	configMap(t, dir, "2026_1", map[string]string{"a.yaml": contract("a", "1"), "folder/contract.yaml": contract("b", "1")})
	r, log, _ := watched(t, dir)
	within(t, 0, r, "a/1 b/1")
	for i := 2; i < 6; i++ {
		version := fmt.Sprint(i)
		configMap(t, dir, "2026_"+version, map[string]string{"a.yaml": contract("a", version), "folder/contract.yaml": contract("b", version)})
		do(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("..2026_", i-1))))
		within(t, soon, r, "a/"+version+" b/"+version)
	}
	configMap(t, dir, "2026_7", map[string]string{"a.yaml": "engine: [", "folder/contract.yaml": contract("b", "7")})
	within(t, soon, r, "a/5 b/7")
	if refused := r.Refused(); len(refused) != 1 || refused[0].Where != filepath.Join(dir, "a.yaml") {
		t.Errorf("%+v", refused)
	}
	if c, err := r.Find("b", ""); err != nil || c.BaseDir != filepath.Join(dir, "folder") {
		t.Errorf("%+v, %v", c, err)
	}
	if strings.Contains(log.text(), `"removed":["a/1","b/1"],"tools":0`) {
		t.Error(log.text())
	}
}

// A directory that is removed keeps its contracts until it is back; so does one that was put in its place.
func TestWatchDirectoryComesBack(t *testing.T) {
	t.Parallel() // it waits for looks
	parent := writeTree(t, map[string]string{"tools/a.yaml": contract("a", "1"), "tools/b.yaml": contract("b", "1"), "other/c.yaml": contract("c", "1")})
	dir := filepath.Join(parent, "tools")
	r, log, _ := watchedWithLooks(t, lookAgain, dir, filepath.Join(parent, "other"))
	do(t, os.RemoveAll(dir))
	eventually(t, "the directory is named", func() bool { return strings.Contains(log.text(), "read the contracts in "+dir) })
	within(t, 0, r, "a/1 b/1 c/1")
	if refused := r.Refused(); len(refused) != 1 || refused[0].Where != dir {
		t.Errorf("%+v", refused)
	}
	write(t, contract("a", "2"), dir, "a.yaml")
	within(t, 30*time.Second, r, "a/2 c/1")
	if len(r.Refused()) != 0 {
		t.Errorf("%+v", r.Refused())
	}
	// It is heard again.
	write(t, contract("a", "3"), dir, "a.yaml")
	within(t, soon, r, "a/3 c/1")
	do(t, os.Rename(dir, dir+".old"), os.Rename(filepath.Join(parent, "other"), dir))
	within(t, 30*time.Second, r, "a/3 c/1") // the second directory is the one that is missing now
	write(t, contract("c", "4"), dir, "c.yaml")
	within(t, 30*time.Second, r, "c/4 c/1")
}

// Links to directories are followed inside of the directory, and only there; rings of them are no trouble.
func TestContractFilesWithLinks(t *testing.T) {
	elsewhere := writeTree(t, map[string]string{"contract.yaml": contract("elsewhere", "1")})
	dir := writeTree(t, map[string]string{
		"a.yaml":                  contract("a", "1"),
		"real/contract.yaml":      contract("real", "1"),
		".hidden/x/contract.yaml": contract("hidden", "1"),
	})
	for name, to := range map[string]string{
		"alias": "real", "ring": ".", "real/up": "..", "shown": ".hidden/x", "out": elsewhere, "broken": "nowhere", "file.yml": filepath.Join(elsewhere, "contract.yaml"),
	} {
		do(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	link := filepath.Join(t.TempDir(), "link")
	do(t, os.Symlink(dir, link))
	for _, root := range []string{dir, link} {
		r := NewRegistry()
		do(t, r.Load([]string{root}))
		if got := tools(r); got != "a/1 elsewhere/1 hidden/1 real/1" {
			t.Errorf("%s: %s", root, got)
		}
		if c, err := r.Find("real", ""); err != nil || c.BaseDir != filepath.Join(root, "real") {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

// What the system does not tell is found by looking: by time, size, and which file it is; and what was written just before it
// was read is read again, as its time may say nothing.
func TestScanFindsWhatIsNotTold(t *testing.T) {
	dir := writeTree(t, map[string]string{"a.yaml": contract("a", "1"), "b.yaml": contract("b", "1")})
	r := NewRegistry()
	do(t, r.Load([]string{dir}))
	a := filepath.Join(dir, "a.yaml")
	old := time.Now().Add(-time.Hour)
	scan := func(want string) {
		t.Helper()
		r.reading.Lock()
		r.scan()
		r.reading.Unlock()
		r.merge(zerolog.Nop())
		if got := tools(r); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	scan("a/1 b/1")
	write(t, contract("a", "2"), a) // of the same size, and maybe of the same time
	info, err := os.Stat(a)
	do(t, err)
	scan("a/2 b/1")
	write(t, contract("a", "3"), a)
	do(t, os.Chtimes(a, info.ModTime(), info.ModTime()))
	scan("a/3 b/1")
	do(t, os.Chtimes(a, old, old))
	scan("a/3 b/1")
	// Another file of the same size and time in its place.
	write(t, contract("a", "4"), dir, "new")
	do(t, os.Chtimes(filepath.Join(dir, "new"), old, old), os.Rename(filepath.Join(dir, "new"), a))
	scan("a/4 b/1")
	// One that may not be read, and may again, which changes neither.
	if os.Getuid() != 0 {
		do(t, os.Chmod(a, 0))
		write(t, contract("b", "2"), dir, "b.yaml")
		scan("a/4 b/2")
		do(t, os.Chmod(a, 0o644))
		scan("a/4 b/2")
		if len(r.Refused()) != 0 {
			t.Errorf("%+v", r.Refused())
		}
	}
}

func removeAll(dir string, names ...string) (errs []error) {
	for _, name := range names {
		errs = append(errs, os.Remove(filepath.Join(dir, name)))
	}
	return errs
}
