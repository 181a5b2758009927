//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// status is a line of /proc/self/status.
func status(name string) (string, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, name+":"); is {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no %s in /proc/self/status", name)
}

// capabilities looks for any, also for those that a program could be given by its file.
func capabilities([]string) error {
	for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"} {
		value, err := status(set)
		if err != nil {
			return err
		}
		fmt.Println(set, value)
		if strings.Trim(value, "0") != "" {
			return nil
		}
	}
	return fmt.Errorf("all sets are empty")
}

// nice asks for more processor time than others get.
func nice([]string) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }

// noNewPrivs looks whether a setuid program could give rights.
func noNewPrivs([]string) error {
	value, err := status("NoNewPrivs")
	if err == nil && value != "0" {
		err = fmt.Errorf("NoNewPrivs is %s", value)
	}
	return err
}

// oomAdjust asks that others be killed when memory is short.
func oomAdjust([]string) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}

// realtime asks to run before all others.
func realtime([]string) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: 1 /* SCHED_FIFO */, Priority: 1}, 0)
}

// uid0 looks whether this user is root on the host, under whatever name.
func uid0([]string) error {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return err
		}
		if uid := os.Getuid(); uid >= inside && uid-inside < count {
			if outside += uid - inside; outside != 0 {
				return fmt.Errorf("uid %d is %d on the host", uid, outside)
			}
			return nil
		}
	}
	return fmt.Errorf("uid %d is nobody on the host", os.Getuid())
}
