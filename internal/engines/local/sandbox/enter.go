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
		// What is inside of another bind is in what tools write to, who leave links there. Here these lead to nowhere but into
		// the sandbox, and are not followed; the other program would follow them, and out of it, because it mounts from outside.
		made, next := map[string]bool{"/": true}, 0
		for _, b := range p.Sorted() {
			if p.Inside(b) {
				c.add("open "+Aside(next), unix.SYS_OPEN_TREE, atCwd, Aside(next), unix.OPEN_TREE_CLOEXEC)
				tree := c.keep()
				c.put(made, b, tree)
				c.add("close "+Aside(next), unix.SYS_CLOSE, tree)
				c.kept--
				next++
			}
		}
		for _, l := range p.limits(c) {
			c.limit(l)
		}
		c.giveUpRights()
		return c, nil
	})
}
