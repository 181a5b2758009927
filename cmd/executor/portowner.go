package main

import (
	"fmt"

	gopsnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// portOwner says which process listens on a TCP port of this machine, as " by nats-server (pid 42)"; "" where that
// cannot be known, as for the process of another user.
func portOwner(port int) string {
	connections, err := gopsnet.Connections("tcp")
	if err != nil {
		return ""
	}
	for _, c := range connections {
		if c.Status != "LISTEN" || c.Laddr.Port != uint32(port) || c.Pid == 0 {
			continue
		}
		name := "a process"
		if p, err := process.NewProcess(c.Pid); err == nil {
			if n, err := p.Name(); err == nil {
				name = n
			}
		}
		return fmt.Sprintf(" by %s (pid %d)", name, c.Pid)
	}
	return ""
}
