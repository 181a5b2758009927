//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// Enter starts a tool in the namespaces that another program has made: those of the first process in its pid namespace, whose
// descriptor room is. What the tool sees is there already, and who collects orphans. Only who made the user namespace may
// enter it. The tool is a child of this process. All in the namespaces end with that first process.
func Enter(p *Plan, room int, tool Tool) (*Process, error) {
	return startTool(tool, true, func(e ends) (*calls, error) {
		c := &calls{}
		closeOthers(c, append(tool.Streams[:], e.sync, e.status, room))
		c.wait(e)
		defaultSignals(c)
		c.add("set the umask", unix.SYS_UMASK, 0o022)
		if p.User >= 0 {
			c.become(p.User)
		}
		// The tool's processes have the same user: they may not look into this one, which has the memory of the starter.
		c.add("close this process to others", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
		c.add("enter the namespaces", unix.SYS_SETNS, room, p.cloneFlags())
		for _, l := range p.limits(c) {
			c.limit(l)
		}
		c.giveUpRights()
		return c, nil
	})
}
