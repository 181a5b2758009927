package local

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// workingDirectory is the contract's cwd, relative to its base directory; without one, the run's own directory.
func workingDirectory(c *contracts.Contract, spec *contracts.LocalSpec, see *view, own string) (string, error) {
	if spec.Cwd == "" {
		return own, nil
	}
	dir := spec.Cwd
	if !filepath.IsAbs(dir) {
		if c.BaseDir == "" {
			return "", contracts.Errorf(contracts.SpawnFailed, "cwd: %q is relative, but the contract has no base_dir to be relative to; write an absolute path or add base_dir", dir)
		}
		dir = filepath.Join(c.BaseDir, dir)
	}
	info, outside, err := see.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", contracts.Errorf(contracts.SpawnFailed, "cwd: there is no directory %s on this executor", dir)
	case err != nil:
		return "", contracts.Errorf(contracts.SpawnFailed, "cwd: %s", err)
	case !info.IsDir():
		return "", contracts.Errorf(contracts.SpawnFailed, "cwd: %s is not a directory", dir)
	case unix.Access(outside, unix.X_OK) != nil:
		return "", contracts.Errorf(contracts.SpawnFailed, "cwd: the user of the executor may not enter %s", dir)
	}
	return dir, nil
}

// command is what is executed: the file and its argv.
func command(job *engines.Job, spec *contracts.LocalSpec, see *view, dir string, env []string) (file string, argv []string, err error) {
	if spec.Shell {
		return "/bin/sh", []string{"/bin/sh", "-c", spec.Command.Text()}, nil
	}
	if argv, err = job.Argv(); err != nil {
		return "", nil, err
	}
	base := dir
	if spec.Cwd == "" && job.Contract.BaseDir != "" {
		base = job.Contract.BaseDir
	}
	if file, err = lookUp(see, argv[0], base, pathOf(env)); err != nil {
		return "", nil, contracts.Errorf(contracts.SpawnFailed, "command: %s", err)
	}
	return file, argv, nil
}

func pathOf(env []string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			return value
		}
	}
	return ""
}

// lookUp finds a program as the tool would: a name in the PATH it gets, never in the executor's; a path as it is, where
// a relative one begins at base.
func lookUp(see *view, name, base, path string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			file = filepath.Join(base, file)
		}
		return file, executable(see, file)
	}
	var found error
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue // "" and "." in PATH: whatever lies about would be run
		}
		file := filepath.Join(dir, name)
		err := executable(see, file)
		if err == nil {
			return file, nil
		}
		if found == nil && !errors.Is(err, fs.ErrNotExist) {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", fmt.Errorf("there is no program %q in the PATH of tools (%s); install it, write its absolute path, or have the operator change execution.local.path", name, path)
}

func executable(see *view, file string) error {
	info, outside, err := see.stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s on this executor (%w)", file, fs.ErrNotExist)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory, not a program", file)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	case !see.mayExecute(outside, info):
		return fmt.Errorf("%s is not executable for the user of tools; run chmod +x on it, or name its interpreter first", file)
	}
	return nil
}

const (
	maxElement   = 128 << 10 // bytes of an argument or variable with its NUL, as Linux has them
	maxArguments = 6 << 20   // bytes of all, however large the stack may be
)

// fits reports an error where Linux would not start a program for the size of its arguments and environment: better
// before the run is claimed than after.
func fits(argv, env []string) error {
	most := uint64(maxArguments)
	var stack unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &stack) == nil {
		most = min(most, max(stack.Cur/4, maxElement))
	}
	size := uint64(0)
	for _, list := range [][]string{argv, env} {
		for _, s := range list {
			if len(s) >= maxElement {
				return contracts.Errorf(contracts.SpawnFailed, "an element of the command or a variable has %d bytes, and Linux takes at most 128 KiB: %s…", len(s), s[:40])
			}
			size += uint64(len(s)) + 1 + 8 // NUL, pointer
		}
	}
	if size > most {
		return contracts.Errorf(contracts.SpawnFailed, "%s; they have %d bytes and Linux takes %d", tooLarge, size, most)
	}
	return nil
}

const tooLarge = "the command and its environment are too large together; let the tool read ARGS_FILE or its stdin"
