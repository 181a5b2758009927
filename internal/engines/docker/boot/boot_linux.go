package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines"
)

// Invoked reports whether this process is the first one of a container. The program asks first thing and calls Main if so.
func Invoked() bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name }

// Main runs one tool for the engine at the other end of stdin and exits the process.
func Main() {
	if len(os.Args) == 2 && os.Args[1] == Anchor {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that there is to wait for
		os.Exit(0)
	}
	// The tool has our user: keep it from tracing us and from reading our memory and descriptors. What of /proc is ours to
	// write belongs to root afterwards, so it is opened before.
	score, _ := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0) // where it cannot be, the kernel chooses by size alone
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		exit(fmt.Errorf("close this process to others: %w", err))
	}
	in := bufio.NewReaderSize(os.Stdin, 64<<10)
	request, err := ReadRequest(in)
	if errors.Is(err, io.EOF) {
		os.Exit(0) // nobody needs this container
	}
	if err != nil {
		exit(fmt.Errorf("read the request: %w", err))
	}
	b := &boot{request: request, in: in, score: score, asked: make(chan os.Signal, 1)}
	signal.Notify(b.asked, syscall.SIGTERM, syscall.SIGINT) // of `docker stop`
	reserveThreads()
	if refusal := b.prepare(); refusal != nil {
		b.answer(os.Stdout, Cannot, refusal.Encode())
		b.await(Bye)
		os.Exit(exitCannot)
	}
	b.answer(os.Stdout, Ready, nil)
	if !b.await(Go) {
		os.Exit(0) // it is not to be started
	}
	end := b.run()
	// The tool may have left the streams, which are the same ones, such that a write fails where there is no room for it. What says how it
	// ended has to wait for that. Nobody is left who could change it again.
	for _, stream := range []int{1, 2} {
		_ = unix.SetNonblock(stream, false) // fails where a stream is closed, which its write tells too
	}
	b.answer(os.Stderr, Ended, nil)
	b.answer(os.Stdout, Ended, end.Encode())
	// The daemon gives up on output that is not read soon after this process has ended: it has to have arrived before.
	<-b.bye
	os.Exit(codeOf(end))
}

// exitCannot is how this process exits where there is no exit code of a tool.
const exitCannot = 125

// exitSignalled is how it exits where a signal ended the tool.
const exitSignalled = 137

func exit(err error) {
	fmt.Fprintln(os.Stderr, "executor: the first process of the container:", err)
	os.Exit(exitCannot)
}

// codeOf is the exit code that the daemon shows.
func codeOf(end End) int {
	switch {
	case end.Error != "":
		return exitCannot
	case end.Signal != "":
		return exitSignalled
	}
	return end.Code
}

// boot runs one tool.
type boot struct {
	request *Request
	in      *bufio.Reader
	score   *os.File // our oom_score_adj; nil: it cannot be changed

	file  string   // the program
	stdin *os.File // of the tool
	bye   chan struct{}
	asked chan os.Signal
}

// reserveThreads makes all threads that this process will ever need: a tool that uses up the processes of its container would
// end it otherwise, which cannot go on without a thread that it wants. Threads that nobody needs wait for somebody who does.
func reserveThreads() {
	release := make(chan struct{})
	defer close(release)
	for range 2 * Threads {
		if tasks, err := os.ReadDir("/proc/self/task"); err != nil || len(tasks) >= Threads {
			return
		}
		there := make(chan struct{})
		go func() {
			runtime.LockOSThread() // until release, so that the next one needs another
			defer runtime.UnlockOSThread()
			close(there)
			<-release
		}()
		<-there
	}
}

// answer writes a frame. An error means that nobody listens, which the end of stdin tells as well.
func (b *boot) answer(to io.Writer, kind byte, payload []byte) {
	_, _ = to.Write(Frame(b.request.Mark, kind, payload))
}

// await reads the next command, and reports whether it is the one.
func (b *boot) await(command byte) bool {
	got, err := b.in.ReadByte()
	return err == nil && got == command
}

// prepare does all that can fail, so that what cannot be started is known before it is to be.
func (b *boot) prepare() *Refusal {
	q := b.request
	if q.NoRoot && os.Geteuid() == 0 {
		return &Refusal{Denied: true, Message: "the user of the image or contract is root, which is not allowed on this executor; its operator can allow it by policy.root, or the contract name another user"}
	}
	same := q.Kernel == "" || q.Kernel == Kernel()
	for _, m := range q.Mounts {
		var stat unix.Stat_t // of what the tool will find: the place may be a link of the image
		if err := unix.Stat(m.Target, &stat); err != nil || same && (stat.Ino != m.Ino || stat.Dev != m.Dev) {
			return &Refusal{Denied: true, Message: fmt.Sprintf("mounts: what is at %s in the container is not what was looked at; something changed it meanwhile, or the daemon sees another file system than this executor", m.Target)}
		}
	}
	var err error
	if b.stdin, err = engines.StdinFile(q.Stdin); err != nil {
		return &Refusal{Message: fmt.Sprintf("keep the stdin of the tool: %s", err)}
	}
	if q.ArgsFile != "" {
		if err := os.WriteFile(q.ArgsFile, q.ArgsText, 0o400); err != nil {
			return &Refusal{Message: fmt.Sprintf("write the file of arguments: %s", err)}
		}
	}
	for _, l := range q.Links {
		if err := link(l); err != nil {
			return &Refusal{Message: fmt.Sprintf("cache_mounts: %s", err)}
		}
	}
	if refusal := enter(q.Dir); refusal != nil {
		return refusal
	}
	if b.file, err = lookUp(q.Argv[0], q.Env); err != nil {
		return &Refusal{Message: "command: " + err.Error()}
	}
	q.ArgsText, q.Stdin = nil, nil
	return nil
}

// link makes a link. One that an earlier run left, in a directory of the host that is mounted there, is as good.
func link(l Link) error {
	if err := os.MkdirAll(filepath.Dir(l.Path), 0o700); err != nil {
		return err
	}
	err := os.Symlink(l.Target, l.Path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if to, err := os.Readlink(l.Path); err == nil && to == l.Target {
		return nil
	}
	return fmt.Errorf("%s is there already, in what is mounted; put the cache elsewhere, or remove it", l.Path)
}

// enter makes a directory that of this process, and so of the tool.
func enter(dir string) *Refusal {
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		return &Refusal{Message: fmt.Sprintf("cwd: there is no directory %s in the container", dir)}
	case err != nil:
		return &Refusal{Message: fmt.Sprintf("cwd: %s", err)}
	case !info.IsDir():
		return &Refusal{Message: fmt.Sprintf("cwd: %s is not a directory", dir)}
	}
	if err := os.Chdir(dir); err != nil {
		return &Refusal{Message: fmt.Sprintf("cwd: the user of the tool may not enter %s", dir)}
	}
	return nil
}

// lookUp finds a program as the tool would: a name in the PATH it gets; a path as it is.
func lookUp(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	path := ""
	for _, entry := range env {
		if value, is := strings.CutPrefix(entry, "PATH="); is {
			path = value
		}
	}
	var found error
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue // "" and "." in PATH: whatever lies about would be run
		}
		file := filepath.Join(dir, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if _, statErr := os.Stat(file); found == nil && statErr == nil {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", fmt.Errorf("there is no program %q in the image, in the PATH of the tool (%s); write its absolute path, or use an image that has it", name, path)
}

func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case os.IsNotExist(err):
		return fmt.Errorf("there is no file %s in the container", file)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory, not a program", file)
	case info.Mode()&fs.ModeType != 0:
		return fmt.Errorf("%s is not a regular file", file)
	case unix.Access(file, unix.X_OK) != nil:
		return fmt.Errorf("%s is not executable for the user of the tool; run chmod +x on it, or name its interpreter first", file)
	}
	return nil
}
