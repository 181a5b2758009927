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
	// Sandboxing asks for isolation from the host (execution.enable_sandboxing).
	Sandboxing bool
	// KeepFiles leaves the directories of runs in place, for debugging (cleanup_temp_files: false).
	KeepFiles bool
}

// DefaultPath is where programs are on a usual Linux system.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
