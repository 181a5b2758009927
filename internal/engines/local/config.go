package local

import "time"

// Config is what an operator decides about the local engine.
type Config struct {
	// DataDir holds the directories of runs and the named caches.
	DataDir string
	// Path is the PATH of tools, and where their commands are looked up.
	Path string
	// Env is added to the base environment of every tool, as proxy settings.
	Env map[string]string
	// KillGrace is how long a tool may go on after it was asked to stop (SIGTERM).
	KillGrace time.Duration
	// Commands are what may be executed: files, and directories, which end in a slash, with all that is in them. Links are
	// followed. Empty: all that the tool's sandbox shows.
	Commands []string
	// Sandboxing asks for isolation from the host (execution.enable_sandboxing).
	Sandboxing bool
	// Sandbox says of what kind; without Sandboxing it says nothing.
	Sandbox Sandbox
	// KeepFiles leaves the directories of runs in place, for debugging (cleanup_temp_files: false).
	KeepFiles bool
}

// DefaultPath is where programs are on a usual Linux system.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// The tiers of isolation, the strongest first.
const (
	TierNamespaces = "namespaces" // a root, processes, users and network of its own, and a filter of system calls
	TierBubblewrap = "bubblewrap" // the same, made by the program bwrap
	TierLandlock   = "landlock"   // a process of the host with fewer rights to files, by Landlock, and the filter
	TierNone       = "none"       // an ordinary process of the executor's user
)

// Tiers are all of them, the strongest first.
var Tiers = []string{TierNamespaces, TierBubblewrap, TierLandlock, TierNone}

// ModeAuto is the mode that takes the strongest tier that works here.
const ModeAuto = "auto"

// Sandbox is what an operator decides about the isolation of tools.
type Sandbox struct {
	// Mode is ModeAuto, or the one tier to use.
	Mode string
	// MinTier is the weakest tier that ModeAuto may take.
	MinTier string
	// Paths are files and directories that tools see, read-only, beside those that SystemPaths lists.
	Paths []string
	// MountRoots are where contracts may have mounts (policy.mounts). What a contract that came over the bus wants to see lies
	// below one of them, when it is looked up as when it was checked.
	MountRoots []string
	// Secrets are files and directories that no tool sees, even where they lie in a directory that it does.
	Secrets []string
	// User is whom tools are, user and group, where the executor is root.
	User int
	// WorkSize bounds the HOME of a tool, where it also works if its contract names no other directory, in bytes. It is memory.
	// 0: it is a directory in DataDir, without a bound.
	WorkSize int64
	// TempSize and SharedSize bound /tmp and /dev/shm, in bytes. They are memory.
	TempSize, SharedSize int64
	// FileSize bounds a single file that a tool writes, in bytes; 0: no bound.
	FileSize int64
	// OpenFiles bounds the descriptors of a process.
	OpenFiles int64
	// PidsLimit and MemoryLimit, in bytes, hold for runs whose contract has no pids_limit or memory_limit; 0: none. They are
	// enforced as those of contracts are; where nothing can enforce them, New logs a warning.
	PidsLimit, MemoryLimit int64

	noGroups, oldKernel bool // for tests: as where no cgroups can be made, and as on a kernel before 5.14
}

// DefaultSandbox is what holds where an operator decides nothing.
func DefaultSandbox() Sandbox {
	return Sandbox{Mode: ModeAuto, MinTier: TierNamespaces, User: 65534, WorkSize: 1 << 30, TempSize: 256 << 20, SharedSize: 64 << 20, OpenFiles: 4096, PidsLimit: 1024}
}

// SystemPaths are what tools see of the host, read-only, as far as it is there: programs, libraries, and what of /etc these
// need. A link stays a link. Nothing of it may hold secrets.
var SystemPaths = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/ca-trust", "/etc/pki/tls/certs",
	"/etc/fonts", "/etc/java-*",
}
