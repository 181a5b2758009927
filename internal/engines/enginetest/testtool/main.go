// Command testtool is the tool that tests of engines run: on the local engine as a file of this machine, on others from
// an image that holds nothing else. It is static and needs nothing of the system it runs on.
//
// Its arguments are a script of verbs, run in order; after the last one it exits with 0. A verb may have operands behind
// colons; names of files may hold $VARIABLES. A verb that is not known exits with 64, one that fails with 65, and both
// say why on stderr.
//
// Output:
//
//	out:TEXT err:TEXT            prints the text as it is, without a newline
//	outhex:HEX errhex:HEX        prints bytes
//	lines:N:INTERVAL             prints "line 1" to "line N", with a pause after each
//	flood:SIZE flooderr:SIZE     prints lines of 16 bytes that count, see enginetest.Flood; a size may end in K, M or G
//	closeout closeerr            closes the stream
//	choke                        makes stdout and stderr such that writing does not wait, and fills them until nobody has read for a second
//	pipesize:BYTES               makes the pipe behind stdout that large
//
// What it was given:
//
//	argv                         prints all its arguments as JSON; the rest of the script is not run
//	env                          prints its environment, sorted, as JSON
//	var:NAME                     prints one variable as it is
//	cwd                          prints the working directory
//	cat                          copies stdin to stdout
//	pid                          prints its process id
//	tty                          prints whether there is a controlling terminal
//	mark:TEXT                    does nothing: tests find processes by it. Processes that it starts get it too.
//
// Files:
//
//	write:FILE:TEXT read:FILE stat:FILE ls:DIR mkdir:DIR rm:FILE chmod:MODE:FILE rename:OLD:NEW link:OLD:NEW
//	symlink:TARGET:NAME fifo:NAME
//	xattr:FILE:NAME:VALUE        sets an extended attribute
//	xattrs:FILE                  prints the names of those that it has
//	sparse:FILE                  makes a file as large as the file system takes, with nothing in it
//	deep:N:MODE                  makes a chain of N directories, the mode from the innermost to the outermost
//	many:N                       makes N empty files
//	await:FILE                   waits until the file is there
//
// Its end:
//
//	exit:N                       exits
//	signal:NAME                  sends itself a signal, with its default effect; a number serves too
//	kill:group:NAME              sends a signal to its process group
//	kill:parent:NAME             sends a signal to its parent
//	sleep:DURATION block         waits; for ever
//	ignore-term                  ignores SIGTERM
//	on-term:VERB                 runs one verb when SIGTERM comes, and exits with 0 after it
//
// Processes. N is how many of the following arguments are the script of the new process, which has the same streams:
//
//	child:N                      runs it and waits; one that fails ends this process as well
//	background:N                 starts it and goes on
//	wait                         waits for those in the background
//	daemon:N                     starts it in a session of its own, with no parent left that is this tool's
//	daemon-quiet:N               the same, with nothing of the streams
//	orphans:N                    leaves N processes without a parent that have ended
//	forkbomb:N[:setsid]          makes at least N processes as fast as it can, which then wait for ever
//	hop:N[:setsid]               a process that forks and ends, N times, so that its id is never the same for long; one that
//	                             gets to the end prints so
//	eat:SIZE                     uses memory
//	burn:DURATION                uses processor time
//
// To start another program with attributes that are not usual:
//
//	ignore:NAME mask:NAME        ignores, blocks a signal
//	leak:FD                      opens that descriptor so that programs inherit it
//	exec                         becomes the program that the following arguments are
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var (
	marks    []string    // what processes started by this one are marked with
	children []*exec.Cmd // in the background
)

func main() {
	runtime.LockOSThread() // masks of signals, and forks, belong to threads
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	run(os.Args[1:])
}

func run(script []string) {
	for len(script) > 0 {
		used, err := step(script)
		if err != nil {
			fmt.Fprintf(os.Stderr, "testtool: %s: %v\n", script[0], err)
			if errors.Is(err, errUnknown) {
				os.Exit(64)
			}
			os.Exit(65)
		}
		script = script[used:]
	}
}

var errUnknown = errors.New("there is no such verb")

// step runs the first verb and says how many arguments that took.
func step(script []string) (int, error) {
	verb, rest, _ := strings.Cut(script[0], ":")
	first, second, _ := strings.Cut(rest, ":")
	var err error
	switch verb {
	case "out", "err":
		_, err = stream(verb).WriteString(rest)
	case "outhex", "errhex":
		var b []byte
		if b, err = hex.DecodeString(rest); err == nil {
			_, err = stream(verb[:3]).Write(b)
		}
	case "lines":
		err = lines(first, second)
	case "flood":
		err = flood(os.Stdout, rest)
	case "flooderr":
		err = flood(os.Stderr, rest)
	case "closeout":
		err = os.Stdout.Close()
	case "closeerr":
		err = os.Stderr.Close()
	case "choke":
		err = choke()
	case "pipesize":
		err = pipeSize(rest)

	case "argv":
		return len(script), printJSON(os.Args[1:])
	case "env":
		list := os.Environ()
		sort.Strings(list)
		err = printJSON(list)
	case "var":
		_, err = os.Stdout.WriteString(os.Getenv(rest))
	case "cwd":
		var dir string
		if dir, err = os.Getwd(); err == nil {
			fmt.Print(dir)
		}
	case "cat":
		_, err = io.Copy(os.Stdout, os.Stdin)
	case "pid":
		fmt.Print(os.Getpid())
	case "tty":
		if _, failed := os.OpenFile("/dev/tty", os.O_RDWR, 0); failed != nil {
			fmt.Print("none")
		} else {
			fmt.Print("there")
		}
	case "mark":
		marks = append(marks, script[0])

	case "write", "read", "stat", "ls", "mkdir", "rm", "chmod", "rename", "link", "symlink", "xattr", "xattrs", "fifo", "sparse", "deep", "many", "await":
		err = file(verb, strings.Split(rest, ":"))

	case "exit":
		var code int
		if code, err = strconv.Atoi(rest); err == nil {
			os.Exit(code)
		}
	case "signal":
		err = die(rest)
	case "kill":
		err = kill(first, second)
	case "sleep":
		var d time.Duration
		d, err = time.ParseDuration(rest)
		time.Sleep(d)
	case "block":
		block()
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
	case "on-term":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		go func() {
			<-signals
			run([]string{rest})
			os.Exit(0)
		}()

	case "child", "background", "daemon", "daemon-quiet":
		n, failed := strconv.Atoi(rest)
		if failed != nil || n < 0 || n >= len(script) {
			return 0, fmt.Errorf("%q is not a number of arguments that follow", rest)
		}
		return 1 + n, spawn(verb, script[1:1+n])
	case "wait":
		for _, c := range children {
			if err = c.Wait(); err != nil {
				break
			}
		}
		children = nil
	case "orphans":
		err = orphans(rest)
	case "forkbomb":
		err = forkbomb(first, second == "setsid")
	case "hop":
		err = hop(first, second == "setsid")
	case "eat":
		err = eat(rest)
	case "burn":
		err = burn(rest)

	case "ignore":
		var s syscall.Signal
		if s, err = signalOf(rest); err == nil {
			signal.Ignore(s)
			// Go leaves 32 to 34 alone.
			ignored := [4]uintptr{1} // SIG_IGN, as the kernel's struct sigaction begins
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&ignored)), 0, 8, 0, 0)
		}
	case "mask":
		err = mask(rest)
	case "leak":
		err = leak(rest)
	case "exec":
		if len(script) < 2 {
			return 0, errors.New("needs a program")
		}
		return 0, syscall.Exec(script[1], script[1:], os.Environ())
	default:
		return 0, errUnknown
	}
	return 1, err
}

func stream(name string) *os.File {
	if name == "err" {
		return os.Stderr
	}
	return os.Stdout
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func block() {
	for {
		time.Sleep(time.Hour)
	}
}

func lines(number, interval string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(interval)
	for i := 1; i <= n && err == nil; i++ {
		_, err = fmt.Printf("line %d\n", i)
		time.Sleep(d)
	}
	return err
}

func sizeOf(text string) (int64, error) {
	shift := 0
	if i := strings.IndexByte("KMG", text[max(0, len(text)-1)]); i >= 0 {
		shift = 10 * (i + 1)
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n << shift, err
}

// flood prints size bytes of lines that count: 15 hexadecimal digits and a newline. It must be faster than what reads it,
// so only the upper digits are made anew for each block.
func flood(to *os.File, text string) error {
	if text == "" {
		return errors.New("needs a size")
	}
	size, err := sizeOf(text)
	if err != nil {
		return err
	}
	const perBlock = 4096 // lines; three digits
	block := make([]byte, 16*perBlock)
	for i := range perBlock {
		copy(block[16*i:], fmt.Sprintf("%015x\n", i))
	}
	for number := int64(0); size > 0; number++ {
		upper := fmt.Sprintf("%012x", number)
		for i := range perBlock {
			copy(block[16*i:], upper)
		}
		n := min(size, int64(len(block)))
		if _, err := to.Write(block[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

func choke() error {
	block := make([]byte, 4096) // whole pages: nothing fits behind the last one
	for _, fd := range []int{1, 2} {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return err
		}
	}
	for last := time.Now(); time.Since(last) < time.Second; {
		full := true
		for _, fd := range []int{1, 2} {
			switch _, err := syscall.Write(fd, block); err {
			case nil:
				full = false
			case syscall.EAGAIN, syscall.EINTR:
			default:
				return err
			}
		}
		if full {
			time.Sleep(time.Millisecond)
		} else {
			last = time.Now()
		}
	}
	return nil
}

func pipeSize(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	const setPipeSize = 1031 // F_SETPIPE_SZ
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, 1, setPipeSize, uintptr(n)); errno != 0 {
		return errno
	}
	return nil
}

// file does the verbs about files.
func file(verb string, operands []string) error {
	for i := range operands {
		operands[i] = os.ExpandEnv(operands[i])
	}
	for len(operands) < 3 {
		operands = append(operands, "")
	}
	a, b, c := operands[0], operands[1], operands[2]
	switch verb {
	case "write":
		return os.WriteFile(a, []byte(strings.Join(operands[1:], "")), 0o600)
	case "read":
		text, err := os.ReadFile(a)
		os.Stdout.Write(text)
		return err
	case "stat":
		info, err := os.Lstat(a)
		if err == nil {
			fmt.Printf("%s %d\n", info.Mode(), info.Size())
		}
		return err
	case "ls":
		entries, err := os.ReadDir(a)
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	case "mkdir":
		return os.Mkdir(a, 0o700)
	case "rm":
		return os.Remove(a)
	case "chmod":
		mode, err := strconv.ParseUint(a, 8, 32)
		if err != nil {
			return err
		}
		return os.Chmod(b, os.FileMode(mode))
	case "rename":
		return os.Rename(a, b)
	case "link":
		return os.Link(a, b)
	case "symlink":
		return os.Symlink(a, b)
	case "xattr":
		return syscall.Setxattr(a, b, []byte(c), 0)
	case "xattrs":
		names := make([]byte, 1<<16)
		n, err := syscall.Listxattr(a, names)
		if err == nil {
			fmt.Printf("%q\n", names[:n])
		}
		return err
	case "fifo":
		return syscall.Mkfifo(a, 0o600)
	case "sparse":
		f, err := os.Create(a)
		if err != nil {
			return err
		}
		for size := int64(1) << 50; size > 0; size >>= 1 {
			if f.Truncate(size) == nil {
				return f.Close()
			}
		}
		return errors.New("no size is taken")
	case "deep":
		n, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		return deep(n, b)
	case "many":
		n, err := strconv.Atoi(a)
		for i := 0; i < n && err == nil; i++ {
			err = os.WriteFile("file-"+strconv.Itoa(i), nil, 0o600)
		}
		return err
	case "await":
		for {
			if _, err := os.Stat(a); err == nil || !os.IsNotExist(err) {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	return errUnknown
}

// deep goes down step by step, because the whole path would be longer than any that the system takes.
func deep(n int, octal string) error {
	mode, err := strconv.ParseUint(octal, 8, 32)
	if err != nil {
		return err
	}
	home, err := os.Open(".")
	if err != nil {
		return err
	}
	defer home.Close()
	const name = "a-directory-in-a-directory"
	for range n {
		if err := syscall.Mkdir(name, 0o700); err != nil {
			return err
		}
		if err := syscall.Chdir(name); err != nil {
			return err
		}
	}
	if err := syscall.Mkdir("end", 0o700); err != nil {
		return err
	}
	for range n { // from above: no right on a directory, no way out of it
		if err := syscall.Chdir(".."); err != nil {
			return err
		}
		if err := syscall.Chmod(name, uint32(mode)); err != nil {
			return err
		}
	}
	return home.Chdir()
}

var signalNames = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "BUS": syscall.SIGBUS, "CONT": syscall.SIGCONT, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV,
	"STOP": syscall.SIGSTOP, "SYS": syscall.SIGSYS, "TERM": syscall.SIGTERM, "TRAP": syscall.SIGTRAP, "TSTP": syscall.SIGTSTP, "TTIN": syscall.SIGTTIN,
	"TTOU": syscall.SIGTTOU, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "XCPU": syscall.SIGXCPU, "XFSZ": syscall.SIGXFSZ,
}

func signalOf(name string) (syscall.Signal, error) {
	if s, ok := signalNames[strings.TrimPrefix(name, "SIG")]; ok {
		return s, nil
	}
	n, err := strconv.Atoi(name)
	if err != nil || n < 1 || n > 64 {
		return 0, fmt.Errorf("%q is not a signal", name)
	}
	return syscall.Signal(n), nil
}

// die has a signal end this process as it ends a program that does nothing about it: the handlers of Go's runtime are
// taken away first.
func die(name string) error {
	s, err := signalOf(name)
	if err != nil {
		return err
	}
	var byDefault [8]uintptr // struct sigaction, SIG_DFL
	if s != syscall.SIGKILL && s != syscall.SIGSTOP {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0); errno != 0 {
			return errno
		}
	}
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		return err
	}
	block()
	return nil
}

func kill(whom, name string) error {
	s, err := signalOf(name)
	if err != nil {
		return err
	}
	switch whom {
	case "group":
		return syscall.Kill(0, s)
	case "parent":
		return syscall.Kill(os.Getppid(), s)
	}
	return fmt.Errorf("%q is neither group nor parent", whom)
}

// spawn starts this program again.
func spawn(how string, script []string) error {
	c := exec.Command("/proc/self/exe")
	c.Args = append(append([]string{os.Args[0]}, marks...), script...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	switch how {
	case "daemon", "daemon-quiet":
		// The one in between leads the new session, starts the daemon and ends.
		c.Args = append(append([]string{os.Args[0]}, marks...), fmt.Sprintf("background:%d", len(script)))
		c.Args = append(c.Args, script...)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if how == "daemon-quiet" {
			c.Stdin, c.Stdout, c.Stderr = nil, nil, nil
		}
		return c.Run()
	case "background":
		children = append(children, c)
		return c.Start()
	}
	err := c.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		if status := failed.Sys().(syscall.WaitStatus); status.Signaled() {
			return die(strconv.Itoa(int(status.Signal())))
		}
		os.Exit(failed.ExitCode())
	}
	return err
}

// What follows forks without exec, which Go's runtime does not know of. The new process has this thread alone, so it makes
// nothing but system calls, in functions that never ask for more stack.

//go:nosplit
func fork() uintptr {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return ^uintptr(0)
	}
	return pid
}

//go:nosplit
func leave() {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

func orphans(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	for range n {
		child := fork()
		if child == 0 {
			fork()
			leave()
		}
		if child == ^uintptr(0) {
			return errors.New("no process can be made")
		}
		if _, err := syscall.Wait4(int(child), nil, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

func forkbomb(number string, setsid bool) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	rounds := 0
	for 1<<rounds < n {
		rounds++
	}
	switch fork() {
	case 0:
		explode(rounds, setsid)
	case ^uintptr(0):
		return errors.New("no process can be made")
	}
	return nil
}

//go:nosplit
func explode(rounds int, setsid bool) {
	for range rounds {
		if fork() == 0 && setsid {
			syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		}
	}
	for {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func hop(number string, setsid bool) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	switch fork() {
	case 0:
		wander(n, setsid)
	case ^uintptr(0):
		return errors.New("no process can be made")
	}
	return nil
}

var escaped = []byte("escaped")

//go:nosplit
func wander(n int, setsid bool) {
	for range n {
		if fork() != 0 {
			leave()
		}
		if setsid {
			syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&escaped[0])), uintptr(len(escaped)))
	leave()
}

var eaten [][]byte

func eat(text string) error {
	if text == "" {
		return errors.New("needs a size")
	}
	size, err := sizeOf(text)
	if err != nil {
		return err
	}
	b := make([]byte, size)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	eaten = append(eaten, b)
	return nil
}

func burn(duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	for {
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			return err
		}
		if time.Duration(used.Utime.Nano()+used.Stime.Nano()) >= d {
			return nil
		}
		for i := range 1 << 16 {
			_ = slices.Max([]int{i, 1})
		}
	}
}

func mask(name string) error {
	s, err := signalOf(name)
	if err != nil {
		return err
	}
	set := uint64(1) << (s - 1)
	const blockThem = 0 // SIG_BLOCK
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, blockThem, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func leak(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR, 0)
	if err != nil {
		return err
	}
	return syscall.Dup3(null, n, 0)
}
