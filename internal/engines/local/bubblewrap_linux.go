package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// In the tier bubblewrap the namespaces of a run are made by bwrap, which a machine may let make them where it lets nobody else:
// by a profile of AppArmor, or as a setuid program. The tool is not its child. It enters what bwrap has made, as it does what is
// made in the tier namespaces, because bwrap tells an exit with the code 137 and an end by SIGKILL alike; and so neither its
// arguments nor its environment are those of another process.

// bubblewrapPlaces are where bwrap is looked for: never in a PATH.
var bubblewrapPlaces = []string{"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap", "/run/current-system/sw/bin/bwrap"}

// findBubblewrap finds a bwrap that nobody but root can have put there.
func findBubblewrap(places []string) (string, error) {
	for _, place := range places {
		file, err := filepath.EvalSymlinks(place)
		if err != nil {
			continue
		}
		var stat unix.Stat_t
		if err := unix.Stat(file, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		switch {
		case stat.Mode&0o022 != 0:
			return "", fmt.Errorf("%s can be written by others than its owner: run chmod go-w on it", file)
		case stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
			return "", fmt.Errorf("%s belongs to the user %d, not to root: run chown root on it", file, stat.Uid)
		case unix.Access(file, unix.X_OK) != nil:
			return "", fmt.Errorf("%s is not executable for the user of the executor: run chmod +x on it", file)
		}
		return file, nil
	}
	return "", fmt.Errorf("there is no bwrap in %s: run apt-get install bubblewrap, or dnf install bubblewrap", strings.Join(places, ", "))
}

// bubblewrapNeeds are the options that have not always been there: the last since 0.10, and in the 0.8 and 0.9 of distributions that
// mended CVE-2024-42472. What a contract names must be what was looked at when it is mounted, its own directory too.
var bubblewrapNeeds = []string{"--json-status-fd", "--perms", "--size", "--unshare-cgroup", "--clearenv", "--bind-fd"}

// prepareBubblewrap makes the engine run tools in namespaces that bwrap makes.
func (e *Engine) prepareBubblewrap() error {
	program, err := findBubblewrap(bubblewrapPlaces)
	if err != nil {
		return err
	}
	help := exec.Command(program, "--help")
	help.Env = []string{}
	text, err := help.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s --help: %w", program, err)
	}
	for _, option := range bubblewrapNeeds {
		if !strings.Contains(string(text), option+" ") {
			return fmt.Errorf("%s has no option %s: it needs bubblewrap 0.10 or later, or the 0.8 or 0.9 of a distribution that keeps it mended, as Debian 12 does; update it, or install a newer one", program, option)
		}
	}
	if err := e.prepareNamespaces(); err != nil {
		return err
	}
	endStrays() // of executors that died
	e.view.ready = false
	if err := e.space.share(); err != nil {
		return err
	}
	e.detail = "by " + program
	if version, err := exec.Command(program, "--version").Output(); err == nil {
		e.detail = strings.TrimSpace(string(version)) + ", " + program
	}
	return nil
}

// bubblewrapRemedy names what keeps bwrap from making namespaces.
func bubblewrapRemedy(how ended) string {
	release := kernelRelease()
	switch {
	case release != "" && olderThan5(release, 11):
		return "it needs Linux 5.11 or later, and this is " + release
	case setting("user/max_user_namespaces") == "0", setting("kernel/unprivileged_userns_clone") == "0" && os.Geteuid() != 0:
		return namespacesRemedy(how)
	case inContainer():
		return "containers are kept from making namespaces, by bwrap as well: start this one with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or set execution.local.sandbox.min_tier: landlock, which needs none"
	case setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor keeps bwrap from user namespaces: it needs a profile with \"userns,\" (the package apparmor-profiles has /usr/share/apparmor/extra-profiles/bwrap-userns-restrict: copy it to /etc/apparmor.d and run apparmor_parser -r on it)"
	case strings.Contains(how.Error, "source path") && strings.Contains(how.Error, "Permission denied"):
		return "where the executor is root, bwrap runs as the user of tools (execution.local.sandbox.user), who must be able to enter all directories above that one: run chmod o+x on them"
	}
	return ""
}

// room is what bwrap made: namespaces, with a first process that collects orphans and one that waits. Both have a filter
// of system calls that allows just that.
type room struct {
	outer int   // bwrap as it was started, a child of this process
	first int   // its child, the first process in the pid namespace
	pidfd int   // of that; below 0: it is closed
	hold  int   // its end ends the one that waits
	ids   []int // of all three
}

// roomTime bounds how long bwrap may take.
const roomTime = 20 * time.Second

// bubblewrapArgv is how bwrap is called: nobody else calls it so. What it executes says that all is there, and waits. It is ours,
// because it is executed without the limits of a tool: what is in the room otherwise, a shell too, a contract may have put there.
var bubblewrapArgv = []string{"bwrap", "--args", "4", "--", sandbox.Hold}

// endStrays ends what bwrap leaves that was killed while it made a room: its child waits for a word from it, and does not end
// with it yet. Its parent is no bwrap any more.
func endStrays() {
	name := strings.Join(bubblewrapArgv, "\x00") + "\x00"
	is := func(pid int) bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return string(text) == name
	}
	for _, p := range descendants(0) {
		if parent, _, ok := stat(p.pid); ok && is(p.pid) && !is(parent) && !isShim(parent) {
			p.signal(unix.SIGKILL)
		}
	}
}

// isShim reports whether a process is a shim, of whichever executor.
func isShim(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(text) == shimName+"\x00"
}

// openRoom has bwrap make the namespaces of a plan.
func openRoom(plan *sandbox.Plan) (*room, error) {
	program, err := findBubblewrap(bubblewrapPlaces)
	if err != nil {
		return nil, err
	}
	b := &bubblewrap{next: 5}
	defer b.close()
	if err := b.list(plan); err != nil {
		return nil, err
	}
	args, err := engines.MemoryFile("args", []byte(strings.Join(b.args, "\x00")+"\x00"))
	if err != nil {
		return nil, err
	}
	defer args.Close()
	var ends [4][2]int // of pipes for stdin, stdout, stderr and the status: reading, writing
	for i := range ends {
		if err := unix.Pipe2(ends[i][:], unix.O_CLOEXEC); err != nil {
			for _, pair := range ends[:i] {
				unix.Close(pair[0])
				unix.Close(pair[1])
			}
			return nil, fmt.Errorf("pipe: %w", err)
		}
	}
	files := []uintptr{uintptr(ends[0][0]), uintptr(ends[1][1]), uintptr(ends[2][1]), uintptr(ends[3][1]), args.Fd()}
	for _, f := range b.files {
		files = append(files, f.Fd())
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if plan.User >= 0 {
		sys.Credential = &syscall.Credential{Uid: uint32(plan.User), Gid: uint32(plan.User)}
	}
	// Its environment can be read by tools in the room. Its arguments, but for the first, come by a descriptor.
	argv := bubblewrapArgv
	r := &room{pidfd: -1, hold: ends[0][1]}
	r.outer, _, err = syscall.StartProcess(program, argv, &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	unix.Close(ends[0][0])
	for _, pair := range ends[1:] {
		unix.Close(pair[1])
		defer unix.Close(pair[0])
	}
	if err != nil {
		unix.Close(r.hold)
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	r.ids = []int{r.outer}
	if err := r.await(ends[1][0], ends[2][0], ends[3][0]); err != nil {
		unix.Close(r.hold)
		if r.pidfd >= 0 {
			unix.Close(r.pidfd)
		}
		unix.Kill(r.outer, unix.SIGKILL) // with all that it has started, which is told to end with it
		return nil, err
	}
	return r, nil
}

// await waits until the room is there. An error has what bwrap said.
func (r *room) await(up, said, status int) error {
	deadline := time.Now().Add(roomTime)
	if text, err := readWithin(up, deadline); err != nil {
		return err
	} else if text == "" { // it has ended, and all that it said is in the pipe
		message, _ := readWithin(said, deadline)
		return &bubblewrapError{strings.TrimSpace(strings.TrimPrefix(message, "bwrap: "))}
	}
	text, err := readWithin(status, deadline)
	if err != nil {
		return err
	}
	var report struct {
		Child int `json:"child-pid"`
	}
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&report); err != nil || report.Child <= 1 {
		return fmt.Errorf("bwrap has not said which its first process is, but %q", text)
	}
	if r.pidfd, err = unix.PidfdOpen(report.Child, 0); err != nil {
		return fmt.Errorf("the first process of the sandbox: %w", err)
	}
	// Its parent has not waited for it: the id is no stranger's.
	if parent, _, ok := stat(report.Child); !ok || parent != r.outer {
		return errors.New("the first process of the sandbox is gone")
	}
	r.first = report.Child
	r.ids = append(append(r.ids, r.first), childrenOf(r.first)...)
	return nil
}

// readWithin reads what comes from a pipe; "" is its end.
func readWithin(fd int, deadline time.Time) (string, error) {
	text := make([]byte, 4<<10)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(0, int(time.Until(deadline).Milliseconds())))
		if err == nil && n == 0 {
			return "", fmt.Errorf("bwrap has not made a sandbox within %s", roomTime)
		}
		if err == nil {
			if n, err = unix.Read(fd, text); err == nil {
				return string(text[:n]), nil
			}
		}
		if err != unix.EINTR {
			return "", fmt.Errorf("read what bwrap says: %w", err)
		}
	}
}

// bubblewrapError is what bwrap said when it failed.
type bubblewrapError struct{ text string }

func (e *bubblewrapError) Error() string {
	if e.text == "" {
		return "bwrap has ended without a word"
	}
	return "bwrap says: " + e.text
}

// holds reports whether a process is one of those that hold the room, and not the tool's.
func (r *room) holds(pid int) bool { return r != nil && slices.Contains(r.ids, pid) }

// close ends the room, and with it all in it.
func (r *room) close() {
	if r.pidfd >= 0 {
		_ = unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0) // it may have ended
		unix.Close(r.pidfd)
		r.pidfd = -1
		unix.Close(r.hold)
	}
}

// endRoom ends what is in the room, and then the room. What the tool left is ended first: so it is collected by the first
// process, and what it used is known, which it is not of what ends with that.
func (s *shim) endRoom() {
	if s.room == nil || s.room.pidfd < 0 {
		return
	}
	for round := 0; round < 16 && (!s.over || len(childrenOf(s.room.first)) > 1); round++ {
		for _, p := range descendants(os.Getpid()) {
			if !s.room.holds(p.pid) {
				p.signal(unix.SIGKILL)
			}
		}
		s.reap()
		unix.Poll(nil, 1)
	}
	s.room.close()
}

// childrenOf lists the children of another process that has one thread.
func childrenOf(pid int) (found []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil { // a kernel without that file
		for _, p := range descendants(pid) {
			if parent, _, ok := stat(p.pid); ok && parent == pid {
				found = append(found, p.pid)
			}
		}
		return found
	}
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// bubblewrap are the arguments of bwrap, with the descriptors that they name.
type bubblewrap struct {
	args  []string
	files []*os.File
	next  int // descriptor
}

func (b *bubblewrap) add(args ...string) { b.args = append(b.args, args...) }

// pass has bwrap get a file, and says under which number.
func (b *bubblewrap) pass(f *os.File) string {
	b.files = append(b.files, f)
	b.next++
	return strconv.Itoa(b.next - 1)
}

func (b *bubblewrap) close() {
	for _, f := range b.files {
		f.Close()
	}
}

// list writes a plan as arguments: the same as in the tier namespaces, in the same order. The one difference is that bwrap does
// not bound how many files there are in /tmp.
func (b *bubblewrap) list(p *sandbox.Plan) error {
	b.add("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup")
	if !p.HostNetwork {
		b.add("--unshare-net")
	}
	id := strconv.Itoa(sandbox.ID)
	b.add("--uid", id, "--gid", id, "--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--json-status-fd", "3")
	b.add("--proc", "/proc")
	if _, err := os.Stat("/proc/keys"); err == nil {
		b.add("--ro-bind", "/dev/null", "/proc/keys")
	}
	b.add("--remount-ro", "/proc", "--dir", "/dev")
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		b.add("--dev-bind", "/dev/"+name, "/dev/"+name)
	}
	for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}} {
		b.add("--symlink", l[0], l[1])
	}
	if p.WorkSize > 0 {
		b.add("--perms", "0700", "--size", strconv.FormatInt(p.WorkSize, 10), "--tmpfs", sandbox.Home)
	}
	b.add("--perms", "1777", "--size", strconv.FormatInt(p.TempSize, 10), "--tmpfs", sandbox.Temp)
	b.add("--perms", "1777", "--size", strconv.FormatInt(p.SharedSize, 10), "--tmpfs", "/dev/shm")
	for _, file := range p.Files {
		f, err := engines.MemoryFile(path.Base(file.Path), []byte(file.Text))
		if err != nil {
			return err
		}
		b.add("--perms", "0644", "--file", b.pass(f), file.Path)
	}
	for _, l := range p.Links {
		b.add("--symlink", l.Text, l.Path)
	}
	aside := 0
	for _, bind := range p.Sorted() {
		option, source, at := "--ro-bind", bind.Source, bind.At()
		if p.Inside(bind) { // bwrap would follow links that tools left there
			at = sandbox.Aside(aside)
			aside++
		}
		if bind.Write {
			option = "--bind"
		}
		if bind.Exact {
			fd, err := unix.Openat2(unix.AT_FDCWD, bind.Source, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
			if err != nil {
				return &os.PathError{Op: "open", Path: bind.Source, Err: err}
			}
			option += "-fd"
			source = b.pass(os.NewFile(uintptr(fd), bind.Source))
		}
		b.add(option, source, at)
	}
	// Last, so that nothing is mounted over it.
	hold, err := engines.MemoryFile("hold", sandbox.HoldProgram())
	if err != nil {
		return err
	}
	b.add("--perms", "0755", "--ro-bind-data", b.pass(hold), sandbox.Hold)
	filter, err := engines.MemoryFile("filter", sandbox.HoldFilter())
	if err != nil {
		return err
	}
	b.add("--seccomp", b.pass(filter))
	b.add("--remount-ro", "/", "--chdir", "/")
	return nil
}
