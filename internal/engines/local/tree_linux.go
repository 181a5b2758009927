package local

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// descendants lists all processes below root, by the parents that /proc tells. Processes that fork meanwhile can be
// missed: look again until nothing new is there.
func descendants(root int) []int {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	children := map[int][]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		found = append(found, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

// parentOf reads a process's parent; false where the process is gone. A zombie counts: it may be the first thread of a
// process whose others still run.
func parentOf(pid int) (parent int, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// pid (name) state ppid …: the name may hold anything, also ")".
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, err == nil
}

// signalTree sends a signal to all descendants of root.
func signalTree(root int, signal unix.Signal) {
	for _, pid := range descendants(root) {
		unix.Kill(pid, signal)
	}
}

// killTree sends SIGKILL to all descendants of root. They are stopped first, until no new one appears: what forks faster
// than it can be looked up would else outrun the kill.
func killTree(root int) {
	stopped := map[int]bool{}
	for round := 0; round < 64; round++ {
		fresh := false
		for _, pid := range descendants(root) {
			if !stopped[pid] {
				stopped[pid], fresh = true, true
				unix.Kill(pid, unix.SIGSTOP)
			}
		}
		if !fresh {
			break
		}
	}
	signalTree(root, unix.SIGKILL)
}
