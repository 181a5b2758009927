package inside

import "os"

// Places in the container.
const (
	Program  = "/.executor"        // this program
	Dir      = "/.executor-run"    // in memory, of this run alone
	ArgsFile = Dir + "/args.json"  // ARGS_FILE
	Output   = "/.executor-output" // what Program printed on its standard error, for the end of the run
	Home     = "/work"             // HOME, and the working directory where neither contract nor image name one
	Temp     = "/tmp"              // TMPDIR
	maxPlan  = 64 << 20            // bytes
	argsMode = os.FileMode(0o400)  // nobody writes the file of arguments
	pathName = "PATH"              // where a command without a slash is looked up
)

// DefaultPath is PATH where neither contract nor image name one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// SecretPrefix stands before values that the engine keeps secret. Wherever such a value appears in output, an engine writes *** in its
// place, and a short one, as "1", appears in our own lines; with this before it, it does not.
const SecretPrefix = "executor-secret:"

// Plan is what is to be started; Program reads it, as JSON, from its standard input.
type Plan struct {
	Argv  []string `json:"argv"`
	Dir   string   `json:"dir"`
	Args  []byte   `json:"args"`  // for ArgsFile
	Stdin []byte   `json:"stdin"` // for the tool

	// Most is how many bytes of output are handed on, of both streams together; 0: all. The rest is read and dropped, so that a tool
	// cannot fill the disks of the engine and of the executor.
	Most int64 `json:"most,omitempty"`

	// Secrets are the variables whose values come behind SecretPrefix, which the tool does not see.
	Secrets []string `json:"secrets,omitempty"`

	// NoRoot has nothing started where the user, which may be a name in the image, is root, and the tool not become root.
	NoRoot bool `json:"no_root,omitempty"`
}

// Invoked reports whether this process was started as Program. The main function of a program that stands beside tools asks
// that first, and then calls Main.
func Invoked() bool { return len(os.Args) > 0 && os.Args[0] == Program }
