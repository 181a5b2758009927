package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines"
)

// Main is the program in the container. It does not return.
func Main() {
	out := &frames{to: os.Stdout, left: FirstBytes}
	out.write([]byte(Hello))
	began := time.Now().UnixMilli()
	end, err := start(out)
	if err != nil {
		end = End{Unstarted: err.Error(), Root: errors.Is(err, errRoot)}
	}
	end.Bytes, end.Began, end.Dropped = out.bytes, began, out.dropped
	line := appendEnd(nil, end)
	out.write(line)
	if out.left < 0 { // it is continued
		_, _ = os.Stdout.Write(line)
	}
	os.Exit(0) // what the tool started ends with the container
}

var errRoot = errors.New("the user is root")

// start runs the tool to its end. An error means that it was not started.
func start(out *frames) (End, error) {
	text, err := io.ReadAll(io.LimitReader(os.Stdin, maxPlan))
	if err != nil {
		return End{}, fmt.Errorf("read what is to be started: %w", err)
	}
	var plan Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		return End{}, fmt.Errorf("read what is to be started: %w", err)
	}
	for _, name := range plan.Secrets {
		if err := os.Setenv(name, strings.TrimPrefix(os.Getenv(name), SecretPrefix)); err != nil {
			return End{}, fmt.Errorf("env_passthrough: %s: %w", name, err)
		}
	}
	if plan.NoRoot {
		if os.Geteuid() == 0 {
			return End{}, errRoot
		}
		// Nor may the tool become root, by a program of the image that is setuid. It is a matter of the thread, which starts the tool.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return End{}, fmt.Errorf("take the way to root: %w", err)
		}
	}
	if err := os.WriteFile(ArgsFile, plan.Args, argsMode); err != nil {
		return End{}, fmt.Errorf("write the file of arguments: %w", err)
	}
	if err := os.Chdir(plan.Dir); err != nil {
		return End{}, fmt.Errorf("cwd: %w", err)
	}
	file, err := lookUp(plan.Argv[0], slices.Contains(plan.Secrets, pathName))
	if err != nil {
		return End{}, fmt.Errorf("command: %w", err)
	}
	stdin, err := engines.StdinFile(plan.Stdin)
	if err != nil {
		return End{}, fmt.Errorf("make its stdin: %w", err)
	}
	out.most = plan.Most
	// A session of its own: what it sends to its group does not reach us.
	c := &exec.Cmd{Path: file, Args: plan.Argv, Stdin: stdin, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	var streams [2]*os.File
	for i, to := range []*io.Writer{&c.Stdout, &c.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return End{}, fmt.Errorf("make its streams: %w", err)
		}
		streams[i], *to = r, w
		defer w.Close()
	}
	if err := c.Start(); err != nil {
		return End{}, fmt.Errorf("%s cannot be started: %w", file, cause(err))
	}
	stdin.Close()
	for _, w := range []io.Writer{c.Stdout, c.Stderr} {
		w.(*os.File).Close()
	}
	var copying sync.WaitGroup
	for i, r := range streams {
		copying.Go(func() { out.copy(i+1, r) })
	}
	err = c.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return End{}, fmt.Errorf("wait for it: %w", err)
	}
	// Who still holds its streams is about to end with the container: what is in them now is all.
	for _, r := range streams {
		r.SetReadDeadline(time.Now())
	}
	copying.Wait()
	state := c.ProcessState
	end := End{CPUMS: float64(state.UserTime()+state.SystemTime()) / float64(time.Millisecond)}
	if used, ok := state.SysUsage().(*syscall.Rusage); ok {
		end.MaxRSS = used.Maxrss << 10
	}
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		if end.Signal = unix.SignalName(status.Signal()); end.Signal == "" {
			end.Signal = fmt.Sprintf("SIG%d", int(status.Signal()))
		}
	} else {
		end.Code = status.ExitStatus()
	}
	return end, nil
}

// cause leaves out the path, which is said already.
func cause(err error) error {
	var at *os.PathError
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return errors.New("it is not a program that this system can run; a script needs a first line as #!/bin/sh")
	case errors.Is(err, syscall.ENOENT):
		return errors.New("the interpreter in its first line, or a library loader, does not exist in the image")
	case errors.As(err, &at):
		return at.Err
	}
	return err
}

// lookUp finds a program as a shell would, but never in the working directory unless it is named so. A PATH that is hidden is not told.
func lookUp(name string, hidden bool) (string, error) {
	if filepath.Base(name) != name {
		return name, executable(name)
	}
	list := os.Getenv(pathName)
	if list == "" {
		list = DefaultPath
	}
	var found error
	for _, dir := range filepath.SplitList(list) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if found == nil && !errors.Is(err, os.ErrNotExist) {
			found = err
		}
	}
	if hidden {
		list = "as env_passthrough has it"
	}
	if found == nil || hidden {
		found = fmt.Errorf("there is no program %q that its user may execute in the PATH of the tool (%s)", name, list)
	}
	return "", found
}

func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", file)
	case unix.Access(file, unix.X_OK) != nil:
		return fmt.Errorf("%s is not executable for the user of the tool", file)
	}
	return nil
}

// frames writes lines, each whole, for both streams.
type frames struct {
	mu     sync.Mutex
	to     io.Writer
	left   int // bytes until it is continued on standard error; below 0: it is
	broken bool
	bytes  [2]int64 // of the tool's streams

	most    int64 // of both, which are written; 0: all
	taken   int64
	dropped int64
}

// room is how many of n bytes are to be written; the others are dropped.
func (f *frames) room(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	may := n
	if f.most > 0 {
		may = int(min(int64(n), f.most-f.taken))
	}
	f.taken += int64(may)
	f.dropped += int64(n - may)
	return may
}

func (f *frames) write(line []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left >= 0 {
		if f.left -= len(line); f.left < 0 {
			f.put([]byte(moreLine))
			f.to = os.Stderr
			f.put([]byte(More))
		}
	}
	f.put(line)
}

func (f *frames) put(line []byte) {
	if !f.broken {
		_, err := f.to.Write(line)
		f.broken = err != nil // nobody reads any more: the tool goes on, as with any reader of ours that fails
	}
}

// copy reads a stream of the tool to its end. Where its deadline comes first, it reads what is there.
func (f *frames) copy(stream int, r *os.File) {
	defer r.Close()
	buffer := make([]byte, frameBytes)
	var line []byte
	offset, left := int64(0), -1
	for left != 0 {
		n, err := r.Read(buffer)
		if left > 0 {
			n = min(n, left)
			left -= n
		}
		if n = f.room(n); n > 0 {
			line = appendFrame(line[:0], stream, offset, buffer[:n])
			offset += int64(n)
			f.bytes[stream-1] = offset // each has its own goroutine, which ends before this is read
			f.write(line)
		}
		switch {
		case err == nil:
		case left < 0 && os.IsTimeout(err):
			left = waiting(r)
			r.SetReadDeadline(time.Time{})
		default:
			return
		}
	}
}

// waiting is how many bytes a pipe holds.
func waiting(r *os.File) (n int) {
	if raw, err := r.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}
