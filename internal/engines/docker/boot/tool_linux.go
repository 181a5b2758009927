package boot

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// oomScore is added to that of tools: where memory runs out, the kernel ends them, and not this process, which tells of it.
const oomScore = "500"

// run starts the tool and returns when nothing of it is left.
func (b *boot) run() End {
	b.bye = make(chan struct{})
	stop := make(chan byte, 4)
	go b.obey(stop)
	before := oomKills()

	b.setScore(oomScore)
	pid, err := syscall.ForkExec(b.file, b.request.Argv, &syscall.ProcAttr{
		Env: b.request.Env, Files: []uintptr{b.stdin.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	b.setScore("0")
	b.stdin.Close()
	if err != nil {
		end := End{Error: err.Error(), OOM: -1}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			end.Errno = int(errno)
		}
		return end
	}

	ended := make(chan End)
	go func() { ended <- collect(pid) }()
	end := End{}
	var grace <-chan time.Time
	for running := true; running; {
		select {
		case end1 := <-ended:
			end1.Stopped = end.Stopped
			end, running = end1, false
		case command := <-stop:
			end.Stopped = true
			if command == Kill {
				killAll(unix.SIGKILL)
			} else if grace == nil {
				grace = b.terminate()
			}
		case <-b.asked:
			if grace == nil {
				grace = b.terminate()
			}
		case <-grace:
			killAll(unix.SIGKILL)
		}
	}
	if after := oomKills(); after < 0 || before < 0 {
		end.OOM = -1
	} else {
		end.OOM = after - before
	}
	return end
}

func (b *boot) setScore(score string) {
	if b.score != nil {
		_, _ = b.score.WriteAt([]byte(score), 0) // some runtimes do not have it
	}
}

// terminate asks all processes to end, and returns when they are to be ended.
func (b *boot) terminate() <-chan time.Time {
	if b.request.Grace <= 0 {
		killAll(unix.SIGKILL)
		return nil
	}
	killAll(unix.SIGTERM)
	return time.After(b.request.Grace)
}

// killAll sends a signal to all processes of the container but this one.
func killAll(s unix.Signal) { _ = unix.Kill(-1, s) } // an error means that there is none

// obey passes commands on until stdin ends, which means that nobody needs this container any more.
func (b *boot) obey(stop chan<- byte) {
	for {
		command, err := b.in.ReadByte()
		switch {
		case err != nil:
			killAll(unix.SIGKILL)
			os.Exit(exitCannot) // with the first process the kernel ends all others
		case command == Bye:
			close(b.bye)
			return
		case command == Term, command == Kill:
			stop <- command
		}
	}
}

// collect waits for the tool, ends what it left, and adds up what all of it used.
func collect(tool int) End {
	var end End
	over := false
	for {
		var status unix.WaitStatus
		var used unix.Rusage
		pid, err := unix.Wait4(-1, &status, 0, &used)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		default: // there is no process left
			var own unix.Rusage
			if unix.Getrusage(unix.RUSAGE_SELF, &own) == nil && end.MaxRSS <= own.Maxrss<<10 {
				end.MaxRSS = 0 // a program that was started from this one counts as at least as large
			}
			return end
		}
		end.CPU += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		end.MaxRSS = max(end.MaxRSS, used.Maxrss<<10)
		if pid == tool {
			over = true
			if end.Code = status.ExitStatus(); status.Signaled() {
				end.Code, end.Signal = 0, signalName(status.Signal())
			}
		}
		if over {
			killAll(unix.SIGKILL)
		}
	}
}

// signalName is SIGKILL and the like; SIG40 for one that has no name.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(s))
}

// oomKills is how many processes of the container were ended for lack of memory; below 0: nobody says.
func oomKills() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); ok && string(name) == "oom_kill" {
				n, err := strconv.ParseInt(string(value), 10, 64)
				if err == nil {
					return n
				}
			}
		}
	}
	return -1
}
