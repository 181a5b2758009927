//go:build unix

package dagger

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup gives a program a process group, so that all it starts can be killed, and no Ctrl-C of ours reaches it.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) } // gone already, or it will be
