package local

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The controllers that limits need.
const (
	memoryController = "memory"
	cpuController    = "cpu"
	pidsController   = "pids"
)

// What is enforced how, as results say it.
const (
	limitsNone   = "none"
	limitsRlimit = "rlimit"
	limitsCgroup = "cgroup"
)

// cgroupPrefix begins the names of all cgroups that executors make: executor-run-<pid>-<start of that process>-<number>.
// Who finds one can tell whether its executor lives.
const cgroupPrefix = "executor-run-"

// hierarchy is a place where cgroups with some controllers can be made. There is one of version 2, or several of version 1
// (cgroups(7)); where both are mounted, each controller is in one of them.
type hierarchy struct {
	dir         string
	unified     bool
	controllers []string
}

// groups makes the cgroups of runs. nil makes none.
type groups struct {
	hierarchies []hierarchy
	prefix      string
	log         zerolog.Logger

	mu   sync.Mutex
	made int
	wait sync.WaitGroup // for those that the kernel does not let go yet
}

// openGroups finds out which limits can be enforced, and removes what dead executors left. nil: none can.
func openGroups(log zerolog.Logger) *groups {
	_, started, ok := stat(os.Getpid())
	if !ok {
		return nil
	}
	g := &groups{prefix: fmt.Sprintf("%s%d-%s-", cgroupPrefix, os.Getpid(), started), log: log}
	for _, h := range findHierarchies("/proc/self/cgroup", "/proc/self/mountinfo") {
		if unix.Access(h.dir, unix.W_OK) != nil {
			continue
		}
		reapGroups(h.dir, log)
		if h.unified {
			h.controllers = h.delegate()
		}
		if len(h.controllers) > 0 && g.works(h) {
			g.hierarchies = append(g.hierarchies, h)
		}
	}
	if len(g.hierarchies) == 0 {
		return nil
	}
	return g
}

// works reports whether cgroups can be made there: file systems that are mounted read-only, and containers, say no.
func (g *groups) works(h hierarchy) bool {
	dir := filepath.Join(h.dir, g.prefix+"probe")
	if os.Mkdir(dir, 0o755) != nil {
		return false
	}
	defer unix.Rmdir(dir)
	if kind, err := os.ReadFile(filepath.Join(dir, "cgroup.type")); err == nil && string(bytes.TrimSpace(kind)) != "domain" {
		return false // for threads alone
	}
	for _, controller := range h.controllers {
		file := map[string]string{memoryController: "memory.limit_in_bytes", cpuController: "cpu.cfs_quota_us", pidsController: "pids.max"}[controller]
		if h.unified {
			file = controller + ".max"
		}
		if unix.Access(filepath.Join(dir, file), unix.W_OK) != nil {
			return false
		}
	}
	return true
}

// findHierarchies lists where this process is in the hierarchies that have a controller we want. In cgroup, a line is
// id:controllers:path, the unified hierarchy having no controllers there; in mountinfo the root of a mount is what of the
// hierarchy it shows.
func findHierarchies(cgroup, mountinfo string) (found []hierarchy) {
	paths := map[string]string{} // by controller, "" for version 2
	eachLine(cgroup, func(line string) {
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 {
			for _, controller := range strings.Split(parts[1], ",") {
				paths[controller] = parts[2]
			}
		}
	})
	taken := map[string]bool{}
	eachLine(mountinfo, func(line string) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			return
		}
		h := hierarchy{unified: kind[0] == "cgroup2"}
		path, there := paths[""]
		if kind[0] == "cgroup" {
			for _, option := range strings.Split(kind[2], ",") {
				if option == memoryController || option == cpuController || option == pidsController {
					h.controllers = append(h.controllers, option)
					path, there = paths[option], true
				}
			}
		}
		if !h.unified && len(h.controllers) == 0 || !there {
			return
		}
		below, err := filepath.Rel(unescape(fields[3]), path)
		if err != nil || !filepath.IsLocal(below) {
			return // a mount of another part
		}
		h.dir = filepath.Join(unescape(fields[4]), below)
		if h.unified && filepath.Base(h.dir) == ownLeaf {
			h.dir = filepath.Dir(h.dir)
		}
		key := strings.Join(h.controllers, ",")
		if _, err := os.Stat(h.dir); err == nil && !taken[key] {
			taken[key] = true
			found = append(found, h)
		}
	})
	return found
}

// unescape reads a path of mountinfo, where blanks are octal.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

func eachLine(file string, take func(string)) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		take(lines.Text())
	}
}

// ownLeaf is where an executor moves itself that was delegated a cgroup: of version 2, one with processes of its own may not
// have controllers for others. It is not undone: other engines of this process, and executors after it, find themselves
// there.
const ownLeaf = "executor-itself"

// delegate makes the controllers of a version 2 cgroup available below it, and says which are.
//
// Whoever has processes of its own goes out of the way first. The kernel refuses such a cgroup the controller of memory, but
// not those of cpu and processes, which can also bound threads: then no process could be put into the cgroups below.
func (h hierarchy) delegate() (available []string) {
	has := func(file string) []string {
		text, _ := os.ReadFile(filepath.Join(h.dir, file))
		return strings.Fields(string(text))
	}
	wanted := slices.DeleteFunc(has("cgroup.controllers"), func(c string) bool {
		return c != memoryController && c != cpuController && c != pidsController
	})
	if len(wanted) == 0 {
		return nil
	}
	_, err := os.Stat(filepath.Join(h.dir, "cgroup.type"))
	if root := errors.Is(err, os.ErrNotExist); !root && len(has("cgroup.procs")) > 0 {
		if !h.alone() {
			return nil
		}
		leaf := filepath.Join(h.dir, ownLeaf)
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil
		}
		for _, pid := range has("cgroup.procs") {
			_ = os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0) // seen below
		}
		if len(has("cgroup.procs")) > 0 {
			return nil
		}
	}
	for _, controller := range wanted {
		if !slices.Contains(has("cgroup.subtree_control"), controller) {
			_ = os.WriteFile(filepath.Join(h.dir, "cgroup.subtree_control"), []byte("+"+controller), 0) // seen below
		}
	}
	return slices.DeleteFunc(wanted, func(c string) bool { return !slices.Contains(has("cgroup.subtree_control"), c) })
}

// alone reports whether all processes of the cgroup are this one and its children: others are not ours to move.
func (h hierarchy) alone() bool {
	text, err := os.ReadFile(filepath.Join(h.dir, "cgroup.procs"))
	if err != nil {
		return false
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if parent, _, ok := stat(pid); err != nil || ok && pid != os.Getpid() && parent != os.Getpid() {
			return false
		}
	}
	return true
}

// reapGroups removes the cgroups of executors that are dead, with what still runs in them.
func reapGroups(dir string, log zerolog.Logger) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), cgroupPrefix)
		parts := strings.Split(rest, "-")
		if !ours || len(parts) < 2 {
			continue
		}
		pid, err := strconv.Atoi(parts[0])
		if err != nil {
			continue
		}
		if _, started, ok := stat(pid); ok && started == parts[1] {
			continue // it lives
		}
		path := filepath.Join(dir, entry.Name())
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
			if err = unix.Rmdir(path); err == nil {
				break
			}
		}
		log.Info().Err(err).Str("cgroup", path).Msg("removed the cgroup of a dead executor")
	}
}

func (g *groups) has(controller string) bool {
	return g != nil && slices.ContainsFunc(g.hierarchies, func(h hierarchy) bool { return slices.Contains(h.controllers, controller) })
}

// group are the cgroups of one run, one in each hierarchy that its limits need.
type group struct {
	of    *groups
	parts []part
}

type part struct {
	hierarchy
	path string
}

// create makes the cgroups for limits; none where there are none.
func (g *groups) create(limits bounds) (*group, error) {
	if g == nil || limits == (bounds{}) {
		return nil, nil
	}
	g.mu.Lock()
	g.made++
	name := g.prefix + strconv.Itoa(g.made)
	g.mu.Unlock()
	one := &group{of: g}
	for _, h := range g.hierarchies {
		if !slices.ContainsFunc(h.controllers, func(c string) bool { return limits.of(c) != 0 }) {
			continue
		}
		p := part{h, filepath.Join(h.dir, name)}
		if err := os.Mkdir(p.path, 0o755); err != nil {
			one.remove()
			return nil, err
		}
		one.parts = append(one.parts, p)
		for _, controller := range h.controllers {
			if limits.of(controller) == 0 {
				continue
			}
			if err := p.limit(controller, limits.of(controller)); err != nil {
				one.remove()
				return nil, err
			}
		}
	}
	return one, nil
}

const cpuPeriod = 100_000 // microseconds, the kernel's default

// limit sets a limit: bytes, thousandths of a processor, or a number of processes. The one of processes counts those
// of the sandbox, too.
func (p part) limit(controller string, n int64) error {
	set := func(file, value string) error {
		return os.WriteFile(filepath.Join(p.path, file), []byte(value), 0)
	}
	number := strconv.FormatInt(n, 10)
	quota := strconv.FormatInt(max(n*cpuPeriod/1000, 1000), 10) // the kernel takes no less than a millisecond
	switch {
	case controller == pidsController:
		return set("pids.max", number)
	case controller == cpuController && p.unified:
		return set("cpu.max", quota+" "+strconv.Itoa(cpuPeriod))
	case controller == cpuController:
		if err := set("cpu.cfs_period_us", strconv.Itoa(cpuPeriod)); err != nil {
			return err
		}
		return set("cpu.cfs_quota_us", quota)
	case p.unified:
		if err := set("memory.max", number); err != nil {
			return err
		}
		_ = set("memory.swap.max", "0") // there may be no swap
		return nil
	}
	if err := set("memory.limit_in_bytes", number); err != nil {
		return err
	}
	_ = set("memory.memsw.limit_in_bytes", number) // kernels that do not count swap have no such file
	return nil
}

func (g *group) dirs() (list []string) {
	if g != nil {
		for _, p := range g.parts {
			list = append(list, p.path)
		}
	}
	return list
}

// outOfMemory reports whether the kernel killed something of the run for its memory limit.
func (g *group) outOfMemory() bool {
	if g == nil {
		return false
	}
	for _, p := range g.parts {
		file := "memory.oom_control"
		if p.unified {
			file = "memory.events"
		}
		text, _ := os.ReadFile(filepath.Join(p.path, file))
		for line := range bytes.Lines(text) {
			if fields := bytes.Fields(line); len(fields) == 2 && string(fields[0]) == "oom_kill" && string(fields[1]) != "0" {
				return true
			}
		}
	}
	return false
}

// removingTime bounds how long is tried to remove a cgroup in which nothing runs.
const removingTime = 10 * time.Second

// remove removes the cgroups. Nothing runs in them any more, but the kernel may need a moment to see that.
func (g *group) remove() {
	if g == nil {
		return
	}
	var busy []string
	for _, p := range g.parts {
		if err := unix.Rmdir(p.path); err != nil && err != unix.ENOENT {
			busy = append(busy, p.path)
		}
	}
	for _, path := range busy {
		g.of.wait.Go(func() {
			var err error
			for end := time.Now().Add(removingTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
				if err = unix.Rmdir(path); err == nil || err == unix.ENOENT {
					return
				}
			}
			g.of.log.Warn().Err(err).Str("cgroup", path).Msg("the cgroup of a run cannot be removed")
		})
	}
}

func (g *groups) close() {
	if g != nil {
		g.wait.Wait()
	}
}
