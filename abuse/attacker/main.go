//go:build linux

// Command attacker does for the attempts of the abuse suite what a shell cannot. Its first argument is a verb, the others
// are the verb's. It prints "OPEN: …" if it got what it wanted, and "stopped: …" with the reason if not.
//
// No verb does harm where it is not stopped: it goes as far as the check that should stop it, and uses arguments that have
// no effect after that.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// verbs are in the files named for what they are about.
var verbs = map[string]func(args []string) error{
	// kernel.go
	"adjtime":        adjtime,
	"bpf":            bpf,
	"chroot":         chroot,
	"immutable":      immutable,
	"io-uring":       ioURing,
	"kernel-log":     kernelLog,
	"kexec":          kexec,
	"key-add":        keyAdd,
	"key-find":       keyFind,
	"mknod":          mknod,
	"module":         module,
	"mount":          mount,
	"namespace":      namespace,
	"perf":           perf,
	"reboot":         reboot,
	"sethostname":    sethostname,
	"setns":          setns,
	"swap":           swap,
	"user-namespace": userNamespace,

	// rights.go
	"capabilities": capabilities,
	"nice":         nice,
	"no-new-privs": noNewPrivs,
	"oom-adjust":   oomAdjust,
	"realtime":     realtime,
	"uid0":         uid0,

	// reach.go
	"cat":         cat,
	"descriptors": descriptors,
	"dotdot":      dotdot,
	"fd-of":       fdOf,
	"by-handle":   byHandle,
	"memory-of":   memoryOf,
	"open":        open,
	"prlimit":     prlimit,
	"trace":       trace,
	"unnamed":     unnamed,

	// network.go
	"family":     family,
	"interfaces": interfaces,
	"raw":        raw,
	"packet":     packet,
	"route":      route,
	"tcp":        tcp,
	"udp":        udp,
	"unix":       unixSocket,
	"vsock":      vsock,

	// processes.go
	"canary":     canary,
	"fork":       fork,
	"hop":        hop,
	"leaderless": leaderless,
	"orphans":    orphans,
	"wait":       wait,

	// resources.go
	"deep":         deep,
	"eat":          eat,
	"eat-children": eatChildren,
	"fill":         fill,
	"files":        files,
	"flood":        flood,
	"hold":         hold,
	"memfd":        memfd,
	"message":      message,
	"queue":        queue,
	"semaphore":    semaphore,
	"shm":          shm,
	"sparse":       sparse,
}

func main() {
	runtime.LockOSThread() // namespaces, tracing and forks belong to threads
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "attacker: there is no such verb:", strings.Join(os.Args[1:], " "))
		os.Exit(64)
	}
	what := strings.Join(os.Args[1:], " ")
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Printf("stopped: %s: %s\n", what, err)
		os.Exit(1)
	}
	fmt.Println("OPEN:", what)
}
