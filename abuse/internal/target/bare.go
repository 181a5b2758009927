//go:build linux

package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// bare runs tools as the first version of such a program does: a process with the executor's environment, its arguments as
// variables, a directory that is removed at the end. What an attempt cannot do there shows nothing about other tiers.
type bare struct{ dir string }

func newBare(dataDir string) (*bare, error) {
	b := &bare{filepath.Join(dataDir, "runs")}
	return b, os.MkdirAll(b.dir, 0o700)
}

// Check takes everything and enforces nothing.
func (b *bare) Check(*contracts.Contract) error { return nil }

// Ready is always.
func (b *bare) Ready(context.Context) error { return nil }

// Run implements engines.Engine, badly.
func (b *bare) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	var exit engines.Exit
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return exit, err
	}
	defer os.RemoveAll(dir)
	spec := job.Spec.Common()
	for _, cache := range spec.CacheMounts {
		store := filepath.Join(filepath.Dir(b.dir), cache.Name)
		if err := os.MkdirAll(store, 0o700); err != nil {
			return exit, err
		}
		if err := os.Symlink(store, filepath.Join(dir, filepath.Base(cache.Path))); err != nil {
			return exit, err
		}
	}
	c := exec.CommandContext(ctx, spec.Command.Argv[0], spec.Command.Argv[1:]...)
	c.Dir, c.Stdin, c.Stdout, c.Stderr = dir, bytes.NewReader(job.Stdin), stdout, stderr
	c.WaitDelay = 100 * time.Millisecond
	c.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	for name, value := range job.Args {
		c.Env = append(c.Env, "ARG_"+contracts.VariableName(name)+"="+contracts.Text(value))
		if job.Contract.ArgsEnv == contracts.ArgsRaw {
			c.Env = append(c.Env, name+"="+contracts.Text(value))
		}
	}
	if err := c.Start(); err != nil {
		return exit, err
	}
	if err := job.Starting(); err != nil {
		return exit, err
	}
	err = c.Wait()
	exit.Code = c.ProcessState.ExitCode()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return exit, context.Cause(ctx)
	case err == nil, errors.Is(err, exec.ErrWaitDelay), errors.As(err, &failed):
		return exit, nil
	}
	return exit, fmt.Errorf("wait: %w", err)
}
