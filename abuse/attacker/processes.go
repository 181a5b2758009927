//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// again starts this program anew with another verb.
func again(attributes *syscall.SysProcAttr, args ...string) (pid int, err error) {
	c := exec.Command("/proc/self/exe", args...)
	c.SysProcAttr = attributes
	c.Stdout = os.Stdout
	if err := c.Start(); err != nil {
		return 0, err
	}
	return c.Process.Pid, nil
}

// wait waits, for a day where nothing else is said.
func wait(args []string) error {
	duration := 24 * time.Hour
	if len(args) > 0 {
		var err error
		if duration, err = time.ParseDuration(args[0]); err != nil {
			return err
		}
	}
	time.Sleep(duration)
	os.Exit(0)
	return nil
}

// canary is the process that the others are after. It says which signals it gets, and ends with its stdin.
func canary([]string) error {
	signals := make(chan os.Signal, 100)
	signal.Notify(signals)
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // an end or a byte: both mean to end
		os.Exit(0)
	}()
	fmt.Println("up")
	for s := range signals {
		if s != unix.SIGURG { // Go's own
			fmt.Println(s)
		}
	}
	return nil
}

// fork starts processes that wait, each in a session of its own.
func fork(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := again(&syscall.SysProcAttr{Setsid: true}, "wait"); err != nil {
			return fmt.Errorf("after %d processes: %w", i, err)
		}
	}
	return nil
}

// hop is a process that is never the same for long: it starts the next and ends.
func hop(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if n > 0 {
		time.Sleep(2 * time.Millisecond) // long enough for whoever looks to see it
		if _, err := again(&syscall.SysProcAttr{Setsid: true}, "hop", strconv.Itoa(n-1)); err != nil {
			return err
		}
	}
	os.Exit(0)
	return nil
}

// leaderless ends its first thread and goes on in another: such a process looks like one that has ended.
func leaderless([]string) error {
	go func() { time.Sleep(24 * time.Hour) }()
	time.Sleep(10 * time.Millisecond) // let that have a thread
	_, _, errno := syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// orphans leaves processes that have ended, for somebody else to collect.
func orphans(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		pid, err := again(nil, "wait", "0s")
		if err == nil {
			err = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		}
		if err != nil {
			return err
		}
	}
	os.Exit(0)
	return errors.New("still here")
}

func inUserNamespace() *os.ProcAttr {
	return &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}}
}
