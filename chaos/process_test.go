//go:build linux

package chaos_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a child. It dies with the test: at its end, and also where the test itself is killed.
type process struct {
	tb    testing.TB
	name  string
	cmd   *exec.Cmd
	log   string // file with its stdout and stderr
	ended chan struct{}
}

// startProcess starts a program in a process group of its own, so that an interrupt on the terminal is the test's to handle.
func startProcess(tb testing.TB, logs, name, program string, args ...string) *process {
	tb.Helper()
	log := filepath.Join(logs, name+".log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	p := &process{tb: tb, name: name, cmd: exec.Command(program, args...), log: log, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + logs}
	// The thread that starts it lives as long as this process: Go ends threads only of goroutines that are locked to them.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	tb.Cleanup(p.kill)
	return p
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// kill ends it as a crash does; a stopped one too.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// wait waits for the end of what got SIGTERM, and returns its exit code.
func (p *process) wait(within time.Duration) int {
	p.tb.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.tb.Errorf("%s did not end within %s after SIGTERM", p.name, within)
		p.kill()
	}
	return p.cmd.ProcessState.ExitCode()
}

// said reports whether its log holds a text from a place on.
func (p *process) said(text string, from int64) bool {
	f, err := os.Open(p.log)
	if err != nil {
		return false
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil || size <= from {
		return false
	}
	b := make([]byte, size-from)
	n, _ := f.ReadAt(b, from)
	return bytes.Contains(b[:n], []byte(text))
}

// logDirectory is where the logs of a scenario go. They stay if it fails, and their ends are shown.
func logDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-"+strings.NewReplacer("/", "-", " ", "_").Replace(t.Name())+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
			return
		}
		t.Logf("the whole logs are in %s", dir)
		files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, f := range files {
			if said := complaints(f); said != "" {
				t.Logf("%s said at last:\n%s", filepath.Base(f), said)
			}
		}
	})
	return dir
}

// tail is the last lines of a file.
func tail(file string, lines int) string {
	text, _ := os.ReadFile(file)
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// complaints are the last lines of a log that are not only for information.
func complaints(log string) string {
	text, _ := os.ReadFile(log)
	var list []string
	for line := range strings.Lines(string(text)) {
		if quiet := strings.Contains(line, `"level":"info"`) || strings.Contains(line, `"level":"debug"`) || strings.Contains(line, " [INF] "); !quiet {
			list = append(list, line)
		}
	}
	return strings.Join(list[max(0, len(list)-15):], "")
}

// eventually polls until the condition holds, and fails the test where it does not within that time.
func eventually(tb testing.TB, what string, within time.Duration, holds func() bool) {
	tb.Helper()
	if !poll(within, holds) {
		tb.Fatalf("not within %s: %s", within, what)
	}
}

// poll asks until the condition holds, or the time is over.
func poll(within time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
