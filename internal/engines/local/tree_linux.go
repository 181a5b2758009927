package local

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process and not another one that got its id later.
type process struct {
	pid     int
	started string // field 22 of its stat, in ticks since the boot
}

// descendants lists all processes below root, by the parents that /proc tells. Processes that fork meanwhile can be
// missed: look again until nothing new is there.
func descendants(root int) []process {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	children := map[int][]process{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if parent, started, ok := stat(pid); ok {
			children[parent] = append(children[parent], process{pid, started})
		}
	}
	found := children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found
}

// stat reads a process's parent and when it was started; not ok where it is gone. A zombie is there: it may be the first
// thread of a process whose others still run.
func stat(pid int) (parent int, started string, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", false
	}
	// pid (name) state ppid …: the name may hold anything, also ")".
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, "", false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, string(fields[19]), err == nil
}

// isZombie reports whether a process has ended and waits for its parent to see that.
func isZombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	at := bytes.LastIndexByte(text, ')')
	return err == nil && at > 0 && at+2 < len(text) && text[at+2] == 'Z'
}

// signal sends a signal to the process if it is still the one that was found: while we looked at others it may have
// ended, and its id may be that of a stranger.
func (p process) signal(signal unix.Signal) {
	if _, started, ok := stat(p.pid); ok && started == p.started {
		unix.Kill(p.pid, signal)
	}
}

// hunt ends a tree of processes that start others as they are killed. All are stopped before one is killed, so that none
// sees it.
type hunt struct {
	stopped map[process]bool
	steps   int
}

// step stops the descendants of root that are new. Where none is, or too many steps found some, it kills all.
func (h *hunt) step(root int) {
	if h.stopped == nil {
		h.stopped = map[process]bool{}
	}
	fresh := false
	for _, p := range descendants(root) {
		if !h.stopped[p] {
			h.stopped[p], fresh = true, true
			p.signal(unix.SIGSTOP)
		}
	}
	if h.steps++; fresh && h.steps < 16 {
		return
	}
	for p := range h.stopped {
		p.signal(unix.SIGKILL)
	}
	*h = hunt{}
}

// killThoseOf ends the processes whose file of arguments is below dir, as their environment tells, and returns when they
// are gone. It is for what a tool left whose shim was killed: nobody is its parent any more.
func killThoseOf(dir string) {
	entry := []byte("\x00ARGS_FILE=" + dir + "/")
	for end := time.Now().Add(huntingTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found := 0
		names, _ := os.ReadDir("/proc")
		for _, name := range names {
			pid, err := strconv.Atoi(name.Name())
			if err != nil || pid == os.Getpid() { // this executor may be a tool of the one that died
				continue
			}
			_, started, _ := stat(pid)
			text, err := os.ReadFile("/proc/" + name.Name() + "/environ")
			if err == nil && bytes.Contains(append([]byte{0}, text...), entry) {
				process{pid, started}.signal(unix.SIGKILL)
				found++
			}
		}
		if found == 0 {
			return
		}
	}
}

// huntingTime bounds the search: a process can hide from it.
const huntingTime = 10 * time.Second

// killChildren sends SIGKILL to all children of this process, and to their process groups: no fork escapes the signal to
// a group. Neither id can be a stranger's, because nobody but us collects our children. It looks at our own children alone
// and takes so little time that a process which forks and ends, again and again, is met before its next step.
func killChildren() {
	for _, pid := range children() {
		if group, err := unix.Getpgid(pid); err == nil && group > 1 && group != unix.Getpgrp() {
			unix.Kill(-group, unix.SIGKILL)
		}
		unix.Kill(pid, unix.SIGKILL)
	}
}

// children lists the children of this process.
func children() (found []int) {
	const threads = "/proc/self/task"
	names, err := os.ReadDir(threads)
	for _, name := range names {
		var text []byte
		if text, err = os.ReadFile(threads + "/" + name.Name() + "/children"); err != nil {
			break
		}
		for _, field := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				found = append(found, pid)
			}
		}
	}
	if err != nil { // a kernel without that file
		for _, p := range descendants(os.Getpid()) {
			if parent, _, ok := stat(p.pid); ok && parent == os.Getpid() {
				found = append(found, p.pid)
			}
		}
	}
	return found
}
