//go:build linux

package abuse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process that the attempt has left is known by its mark, or by being a child of this process, which adopts orphans, that
// it did not start. So one that hides its environment and its arguments is found as well.

type procStat struct {
	name, state, nice string
	parent            int
	threads           int
}

// dead reports whether the process is only there for its parent to take notice. One whose first thread alone has ended is not.
func (s procStat) dead() bool { return s.state == "Z" && s.threads <= 1 }

func statOf(pid int) (s procStat) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s
	}
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	s.name = string(text[from+1 : to])
	fields := strings.Fields(string(text[to+1:]))
	s.state, s.nice = fields[0], fields[16]
	s.parent, _ = strconv.Atoi(fields[1])
	s.threads, _ = strconv.Atoi(fields[17])
	return s
}

// peakOf is the most memory that a process has had; 0 where it is gone.
func peakOf(pid int) (bytes int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fmt.Sscan(rest, &bytes)
	return bytes << 10
}

// survivors lists the processes that an attempt has left. Ours are those that this process has started.
func (w *world) survivors(ours ...int) (found []int) {
	collect(ours)
	// Those that change their id again and again are our children each time, and there only for a moment.
	for _, pid := range children() {
		if !slices.Contains(ours, pid) && !statOf(pid).dead() {
			found = append(found, pid)
		}
	}
	if len(found) > 0 {
		return found
	}
	files, _ := filepath.Glob("/proc/[0-9]*")
	parents := map[int]int{}
	strange := map[int]bool{}
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(file))
		parents[pid] = statOf(pid).parent
		arguments, _ := os.ReadFile(file + "/cmdline")
		variables, _ := os.ReadFile(file + "/environ")
		strange[pid] = bytes.Contains(arguments, []byte("mark:"+w.mark)) || bytes.Contains(variables, []byte("ARG_MARK="+w.mark))
	}
	for pid, parent := range parents {
		if parent == os.Getpid() {
			strange[pid] = !statOf(pid).dead() // the dead are ours to collect, as they are init's elsewhere
		}
	}
	for _, pid := range ours {
		strange[pid] = false
	}
	for pid := range parents {
		for at := pid; at > 1; at = parents[at] {
			if strange[at] {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// children lists the children of this process, at once.
func children() (found []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				found = append(found, pid)
			}
		}
	}
	return found
}

// collect does what init does: it waits for those that have come here and have ended.
func collect(ours []int) {
	for _, pid := range children() {
		if statOf(pid).dead() && !slices.Contains(ours, pid) {
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// end ends the processes that an attempt has left.
func (w *world) end(ours ...int) error {
	quiet := 0 // looks that saw none: one process may start another during a look
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		left := w.survivors(ours...)
		if quiet++; len(left) > 0 {
			quiet = 0
		} else if quiet == 3 {
			return nil
		}
		for _, pid := range left {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	return fmt.Errorf("processes of the attempt cannot be ended")
}

// left lists what an attempt has left on the host, and removes it.
func (w *world) left() (found []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.Contains(at, w.dir) || strings.Contains(at, w.mark) {
			found = append(found, "the mount "+at)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	}
	for _, pattern := range []string{"/tmp/*%s*", "/var/tmp/*%s*", "/dev/shm/*%s*", "/sys/fs/cgroup/*%s*", "/sys/fs/cgroup/*/*%s*"} {
		names, _ := filepath.Glob(fmt.Sprintf(pattern, w.mark))
		for _, name := range names {
			found = append(found, name)
			if strings.HasPrefix(name, "/sys/") {
				unix.Rmdir(name)
			} else {
				os.RemoveAll(name)
			}
		}
	}
	for name, remove := range map[string]uintptr{"shm": unix.SYS_SHMCTL, "msg": unix.SYS_MSGCTL, "sem": unix.SYS_SEMCTL} {
		table, _ := os.ReadFile("/proc/sysvipc/" + name)
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); fields[0] == strconv.Itoa(w.key) {
				found = append(found, name+" of System V")
				id, _ := strconv.Atoi(fields[1])
				command := uintptr(unix.IPC_RMID)
				if name == "sem" {
					unix.Syscall6(remove, uintptr(id), 0, command, 0, 0, 0)
				} else {
					unix.Syscall(remove, uintptr(id), command, 0)
				}
			}
		}
	}
	if name, err := unix.BytePtrFromString("abuse-" + w.mark); err == nil {
		if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0); errno == 0 {
			found = append(found, "a message queue")
		}
	}
	runs, _ := filepath.Glob(w.path("data/runs/*"))
	hidden, _ := filepath.Glob(w.path("data/runs/.*"))
	for _, name := range append(runs, hidden...) {
		found = append(found, "directories of runs: "+name)
	}
	return found
}
