//go:build linux

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	atCwd     = -100 // AT_FDCWD
	emptyPath = unix.AT_EMPTY_PATH

	lastDescriptor = uintptr(math.MaxUint32)
)

// devices are the nodes of /dev. They are those of the host: a user namespace cannot make any.
var devices = []string{"null", "zero", "full", "random", "urandom"}

// hidden are files of /proc that Docker covers as well and that anybody could read else. All of /proc is read-only, and most
// of what tells about the machine is for its root, whom nobody is in here.
var hidden = []string{"keys"}

// cloneFlags are the namespaces of a plan.
func (p *Plan) cloneFlags() uintptr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	if !p.HostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// ends are the descriptors that the process of a sandbox has.
type ends struct {
	sync   int // a message comes when it may begin, and when it has its tool; its end is that of the starter
	status int // where reports go
}

// enters is what the process of a sandbox has when it waits for its tool.
type enters struct {
	streams [3]any  // places of descriptors of the tool's stdin, stdout and stderr
	args    kept    // the file of its arguments, open for writing
	limits  []limit // of the tool alone
}

// setUp lists what makes the sandbox. The process begins as whoever starts it, whose files it can reach, with all
// capabilities in its own user namespace; from setresuid on it is the tool's user, and only then can it make files.
//
// Last it waits for its tool. So far nothing of a run is in it: one sandbox is like any other of the same plan.
func (p *Plan) setUp(e ends) (c *calls, has enters, err error) {
	c = &calls{}
	closeOthers(c, []int{e.sync, e.status})
	if p.User < 0 {
		c.add("open this process to itself", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	}
	c.add("wait for the starter", unix.SYS_READ, e.sync, make([]byte, 1), 1).mode = mustNotBeZero
	if p.User < 0 {
		// Without rights one may map oneself alone, and only with the rights of the groups given up (user_namespaces(7)).
		c.write("/proc/self/setgroups", "deny")
		c.write("/proc/self/uid_map", fmt.Sprintf("%d %d 1", ID, os.Geteuid()))
		c.write("/proc/self/gid_map", fmt.Sprintf("%d %d 1", ID, os.Getegid()))
	}
	defaultSignals(c)
	c.add("set the umask", unix.SYS_UMASK, 0)

	// What is mounted or unmounted on the host later is not seen here, nor the other way round.
	c.add("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	binds := p.Sorted()
	var trees []kept
	for _, b := range binds {
		open := c.tree
		if b.Exact {
			open = c.exactTree
		}
		tree, err := open(b.Source)
		if err != nil {
			return nil, has, err
		}
		set := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
		if !b.Write {
			set |= unix.MOUNT_ATTR_RDONLY
		}
		c.attributes(b.Source, tree, emptyPath|unix.AT_RECURSIVE, set)
		trees = append(trees, tree)
	}
	var nodes []kept
	for _, name := range devices {
		node, err := c.tree("/dev/" + name)
		if err != nil {
			return nil, has, err
		}
		nodes = append(nodes, node)
	}
	var covers []kept
	for range hidden {
		cover, err := c.tree("/dev/null")
		if err != nil {
			return nil, has, err
		}
		covers = append(covers, cover)
	}
	ours := fmt.Sprintf(",uid=%d,gid=%d", ID, ID)
	c.add("mount the root", unix.SYS_MOUNT, "tmpfs", p.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1g,nr_inodes=4096"+ours) // read-only for tools; arguments may be large
	c.add("enter the root", unix.SYS_CHDIR, p.Root)
	if !p.HostNetwork {
		c.loopback()
	}
	name := "sandbox"
	c.add("set the name of the host", unix.SYS_SETHOSTNAME, name, len(name))

	if p.User >= 0 {
		c.add("leave all groups", unix.SYS_SETGROUPS, 0, 0)
	}
	c.add("become the group of the tool", unix.SYS_SETRESGID, ID, ID, ID)
	c.add("become the user of the tool", unix.SYS_SETRESUID, ID, ID, ID)
	// Who changes its user loses this, so it cannot come earlier; whether the starter died before is seen by its end of the
	// pipe. In a pid namespace of its own no process can ask for its parent.
	c.endWithStarter(e)
	// The tool has the same user: it may not look into this process, which has the memory of the starter.
	c.add("close this process to others", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)

	// As long as the host's is there: the kernel shows only who can see all of /proc another one.
	c.add("make /proc", unix.SYS_MKDIRAT, atCwd, "proc", 0o755)
	c.add("mount /proc", unix.SYS_MOUNT, "proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, 0)
	for i, name := range hidden {
		c.place("/proc/"+name, "proc/"+name, covers[i]).mode = mayFail // this kernel has no such file
	}
	c.add("change the root", unix.SYS_PIVOT_ROOT, ".", ".")
	c.add("leave the old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	c.add("enter the new root", unix.SYS_CHDIR, "/")

	made := map[string]bool{"/": true, "/proc": true}
	c.directory(made, "/dev/shm")
	for i, name := range devices {
		at := "/dev/" + name
		c.add("make "+at, unix.SYS_MKNODAT, atCwd, at, unix.S_IFREG|0o666, 0)
		c.place(at, at, nodes[i])
	}
	for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}} {
		c.add("make "+l[1], unix.SYS_SYMLINKAT, l[0], atCwd, l[1])
	}
	for _, t := range []struct {
		at    string
		size  int64
		mode  string
		flags int
	}{{Home, p.WorkSize, "700", 0}, {Temp, p.TempSize, "1777", 0}, {"/dev/shm", p.SharedSize, "1777", unix.MS_NOEXEC}} {
		if t.size == 0 {
			continue
		}
		c.directory(made, t.at)
		// As many files as there would be room for at a page each, with one for the directory.
		options := fmt.Sprintf("mode=%s,size=%d,nr_inodes=%d%s", t.mode, t.size, t.size/4096+16, ours)
		c.add("mount "+t.at, unix.SYS_MOUNT, "tmpfs", t.at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|t.flags, options)
	}
	has.args = c.argsFile(made)
	for _, f := range p.Files {
		c.directory(made, path.Dir(f.Path))
		c.write(f.Path, f.Text)
	}
	for _, l := range p.Links {
		c.directory(made, path.Dir(l.Path))
		c.add("make "+l.Path, unix.SYS_SYMLINKAT, l.Text, atCwd, l.Path)
	}
	for i, b := range binds {
		c.put(made, b, trees[i])
	}
	c.attributes("/", 0, 0, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	c.add("set the umask", unix.SYS_UMASK, 0o022)

	has.limits = p.limits(c)
	c.giveUpRights()
	has.streams = c.receive(e.sync)
	return c, has, nil
}

// argsFile makes the file of arguments, to be written when they are known. Its directory is read-only by then, so it is opened
// by another way, which ends as soon as it has served.
func (c *calls) argsFile(made map[string]bool) kept {
	c.directory(made, path.Dir(ArgsFile))
	c.add("open the root", unix.SYS_OPEN_TREE, atCwd, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	root := c.keep()
	c.add("make "+ArgsFile, unix.SYS_OPENAT, root, ArgsFile[1:], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	file := c.keep()
	c.add("close the root", unix.SYS_CLOSE, root)
	return file
}

// receive waits for the three streams of the tool. They come when everything else is there.
func (c *calls) receive(sync int) (streams [3]any) {
	const size = 4 // of a descriptor in a message
	iov := []unix.Iovec{{Base: &make([]byte, 1)[0], Len: 1}}
	control := bytes.Repeat([]byte{0xff}, unix.CmsgSpace(len(streams)*size)) // what does not come is no descriptor
	message := []unix.Msghdr{{Iov: &iov[0], Iovlen: 1, Control: &control[0], Controllen: uint64(len(control))}}
	c.pins = append(c.pins, iov, control, message)
	c.add("wait for the tool", unix.SYS_RECVMSG, sync, uintptr(unsafe.Pointer(&message[0])), unix.MSG_CMSG_CLOEXEC).mode = mustNotBeZero
	for i := range streams {
		streams[i] = place(unsafe.Pointer(&control[unix.CmsgLen(0)+i*size]))
	}
	return streams
}

// closeOthers closes all descriptors but some. What the starter holds must end when it does: pipes, sockets.
func closeOthers(c *calls, but []int) {
	slices.Sort(but)
	next := 3
	for _, fd := range but {
		if fd > next {
			c.add("close descriptors", unix.SYS_CLOSE_RANGE, next, fd-1, 0)
		}
		next = max(next, fd+1)
	}
	c.add("close descriptors", unix.SYS_CLOSE_RANGE, next, lastDescriptor, 0)
}

// defaultSignals gives all signals their default effect: the handlers are those of Go's runtime, which is not here.
func defaultSignals(c *calls) {
	byDefault := make([]byte, 32)
	for s := 1; s <= 64; s++ {
		if s != int(unix.SIGKILL) && s != int(unix.SIGSTOP) {
			c.add("reset signals", unix.SYS_RT_SIGACTION, s, byDefault, 0, 8)
		}
	}
}

// write makes a file, or writes to one of /proc.
func (c *calls) write(file, text string) {
	flags := unix.O_WRONLY | unix.O_CLOEXEC
	if !strings.HasPrefix(file, "/proc/") {
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	c.add("open "+file, unix.SYS_OPENAT, atCwd, file, flags, 0o644)
	fd := c.keep()
	if text != "" {
		c.add("write "+file, unix.SYS_WRITE, fd, []byte(text), len(text))
	}
	c.add("close "+file, unix.SYS_CLOSE, fd)
	c.kept-- // its number serves the next
}

// tree takes a file or directory of the host as something that can be mounted.
func (c *calls) tree(source string) (kept, error) {
	c.add("open "+source, unix.SYS_OPEN_TREE, atCwd, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	return c.keepTree()
}

// exactTree is tree for a path without symbolic links.
func (c *calls) exactTree(source string) (kept, error) {
	c.openExact("open "+source, source)
	place, err := c.keepTree()
	if err != nil {
		return 0, err
	}
	c.add("open "+source, unix.SYS_OPEN_TREE, place, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|emptyPath)
	return c.keepTree()
}

var errTooMany = errors.New("there are too many mounts in it")

// place mounts it.
func (c *calls) place(what, at string, tree kept) *call {
	return c.add("mount "+what, unix.SYS_MOVE_MOUNT, tree, "", atCwd, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// put mounts it where a bind says. The place may be in what tools write to: links that they left there are not followed, because
// something else would be where it leads than everybody reckons with who knows the plan.
func (c *calls) put(made map[string]bool, b Bind, tree kept) {
	at := b.At()
	if info, err := os.Stat(b.Source); err == nil && !info.IsDir() {
		c.directory(made, path.Dir(at))
		c.add("make "+at, unix.SYS_MKNODAT, atCwd, at, unix.S_IFREG|0o644, 0).mode = mayFail // there already; else the next fails
	} else {
		c.directory(made, at)
	}
	c.openExact("mount "+at, at)
	place := c.keep()
	c.add("mount "+at, unix.SYS_MOVE_MOUNT, tree, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	c.add("close "+at, unix.SYS_CLOSE, place)
	c.kept-- // its number serves the next
}

// openExact opens a path without symbolic links.
func (c *calls) openExact(what, file string) {
	how := []unix.OpenHow{{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}}
	c.pins = append(c.pins, how)
	c.add(what, unix.SYS_OPENAT2, atCwd, file, uintptr(unsafe.Pointer(&how[0])), unsafe.Sizeof(how[0]))
}

// attributes sets flags of a mount.
func (c *calls) attributes(what string, tree kept, flags int, set uint64) {
	attributes := []unix.MountAttr{{Attr_set: set}}
	c.pins = append(c.pins, attributes)
	var of any = tree
	name := ""
	if tree == 0 {
		of, name = atCwd, what
	}
	c.add("protect "+what, unix.SYS_MOUNT_SETATTR, of, name, flags, uintptr(unsafe.Pointer(&attributes[0])), unsafe.Sizeof(attributes[0]))
}

// directory makes a directory with those above it, once.
func (c *calls) directory(made map[string]bool, dir string) {
	if made[dir] {
		return
	}
	c.directory(made, path.Dir(dir))
	made[dir] = true
	// It may be in a mount, where it is there already or cannot be made; what is put into it says so.
	c.add("make "+dir, unix.SYS_MKDIRAT, atCwd, dir, 0o755).mode = mayFail
}

// loopback switches lo on, so that a tool can talk to itself.
func (c *calls) loopback() {
	request := make([]byte, 40) // struct ifreq
	copy(request, "lo")
	request[16] = unix.IFF_UP
	c.add("open a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	socket := c.keep()
	c.add("switch lo on", unix.SYS_IOCTL, socket, unix.SIOCSIFFLAGS, request)
	c.add("close a socket", unix.SYS_CLOSE, socket)
	c.kept--
}

// giveUpRights takes away all that could give a right back, from this process and so from all that it starts.
func (c *calls) giveUpRights() {
	for capability := range lastCapability() + 1 {
		c.add("give up a capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability)
	}
	const locked = 0xef // SECBIT_NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, and the locks of all four
	c.add("give up the rights of root", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, locked)
	header := []uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
	c.pins = append(c.pins, header)
	c.add("give up capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header[0])), make([]byte, 24))
	c.add("forbid new rights", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	c.filter(judge)
}

func lastCapability() int {
	if text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	return unix.CAP_LAST_CAP
}

// enter lists what the first process does for the tool.
func (h enters) enter(what Tool, in *room) *calls {
	c := &calls{room: in}
	c.add("write "+ArgsFile, unix.SYS_WRITE, h.args, what.Args, len(what.Args)).mode = mustBeAll
	c.add("close "+ArgsFile, unix.SYS_CLOSE, h.args)
	return c
}

// start lists what starts a tool, in the process that becomes it. Its streams are descriptors, or where they will be.
func (c *calls) start(what Tool, streams [3]any, limits []limit) {
	c.add("begin a session", unix.SYS_SETSID)
	for i, fd := range streams {
		c.add("place the streams", unix.SYS_DUP3, fd, i, 0)
	}
	for _, l := range limits {
		c.limit(l)
	}
	c.add("enter "+what.Dir, unix.SYS_CHDIR, what.Dir)
	c.add("close descriptors", unix.SYS_CLOSE_RANGE, 3, lastDescriptor, unix.CLOSE_RANGE_CLOEXEC)
	c.add("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, 8), 0, 8)
	c.add("", unix.SYS_EXECVE, what.Path, c.texts(what.Argv), c.texts(what.Env))
}

// rest lists what the first process does once the tool runs: it holds nothing of it.
func (e ends) rest() *calls {
	c := &calls{}
	if e.status > 0 {
		c.add("", unix.SYS_CLOSE_RANGE, 0, e.status-1, 0)
	}
	c.add("", unix.SYS_CLOSE_RANGE, e.status+1, lastDescriptor, 0)
	return c
}
