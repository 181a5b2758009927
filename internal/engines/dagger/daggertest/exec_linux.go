package daggertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest/container"
)

// execution is a command in a container. It is run when something about it is asked for, and once for all who ask for the same.
type execution struct {
	engine   *Engine
	from     *ctr
	argv     []string
	stdin    string
	redirect string
	anyCode  bool
	insecure bool

	mu      sync.Mutex
	started bool
	waiting int
	cancel  context.CancelFunc
	done    chan struct{}

	dir            string // upper: what was written; m<i>: the mounts
	code           int
	stdout, stderr []byte
	err            error
}

// run returns when the command has ended. Where nobody waits for it any more it is killed.
func (x *execution) run(ctx context.Context, trace string) error {
	x.mu.Lock()
	if !x.started || errors.Is(x.err, context.Canceled) {
		x.started, x.err, x.done = true, nil, make(chan struct{})
		running, cancel := context.WithCancel(x.engine.ctx)
		x.cancel = cancel
		x.engine.running.Go(func() {
			err := x.command(running, trace)
			cancel()
			x.mu.Lock()
			x.err = err
			close(x.done)
			x.mu.Unlock()
		})
	}
	x.waiting++
	done, cancel := x.done, x.cancel
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		if x.waiting--; x.waiting == 0 {
			cancel()
		}
		x.mu.Unlock()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	if x.code != 0 && !x.anyCode || x.code >= 128 && x.code <= 191 {
		// Nothing of the container can be read then.
		return &queryError{fmt.Sprintf("exit code: %d", x.code), map[string]any{
			"_type": "EXEC_ERROR", "cmd": x.argv, "exitCode": x.code, "stdout": trimmed(x.stdout), "stderr": trimmed(x.stderr),
		}}
	}
	return nil
}

func trimmed(text []byte) string {
	const most = 100 << 10
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

func (x *execution) command(ctx context.Context, trace string) (err error) {
	e, c := x.engine, x.from
	if x.insecure && e.options.ForbidInsecure {
		return &queryError{message: "InsecureRootCapabilities: security.insecure is not allowed"}
	}
	if x.dir, err = os.MkdirTemp(e.dir, "exec-"); err != nil {
		return err
	}
	plan := container.Plan{
		Layers: c.layers, Upper: filepath.Join(x.dir, "upper"), Work: filepath.Join(x.dir, "work"), Root: filepath.Join(x.dir, "root"),
		Env: slices.Clone(c.env), Argv: x.argv, Dir: c.workdir, Mounts: slices.Clone(c.image.binds()),
	}
	if plan.Dir == "" {
		plan.Dir = "/"
	}
	if plan.User, err = userOf(c.user); err != nil {
		return err
	}
	if len(plan.Layers) == 0 { // of no image
		plan.Layers = []string{filepath.Join(x.dir, "nothing")}
	}
	for _, dir := range append([]string{plan.Upper, plan.Work, plan.Root}, plan.Layers[0]) {
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for name, secret := range c.secrets {
		plan.Env = append(plan.Env, name+"="+secret.value)
	}
	var memory []container.Mount // last, as an engine does
	for i, m := range c.mounts {
		at := container.Mount{Source: m.path, Target: m.target, ReadOnly: m.kind == "file" && m.path == e.beside}
		switch m.kind {
		case "temp":
			memory = append(memory, container.Mount{Target: m.target})
			continue
		case "directory", "file":
			if !at.ReadOnly {
				at.Source = filepath.Join(x.dir, fmt.Sprintf("m%d", i))
				if err := copyTree(m.path, at.Source); err != nil {
					return err
				}
				if err := own(at.Source, m.owner); err != nil {
					return err
				}
			}
		case "cache":
			if m.owner != "" { // of the directory alone: what lies in it, others may just be changing
				id, err := userOf(m.owner)
				if err := errors.Join(err, os.Chown(m.path, id, id)); err != nil {
					return err
				}
			}
		}
		plan.Mounts = append(plan.Mounts, at)
	}
	slices.SortStableFunc(plan.Mounts, func(a, b container.Mount) int { return strings.Compare(a.Target, b.Target) })
	plan.Mounts = append(plan.Mounts, memory...)
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	file := filepath.Join(x.dir, "plan.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}

	command := exec.Command(e.program)
	command.Args = []string{container.Name, file}
	command.Env = []string{}
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC}
	if x.stdin != "" {
		command.Stdin = strings.NewReader(x.stdin)
	}
	span := make([]byte, 8)
	rand.Read(span)
	pipes := [2]io.ReadCloser{}
	if pipes[0], err = command.StdoutPipe(); err == nil {
		pipes[1], err = command.StderrPipe()
	}
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = command.Process.Kill() }) // the first program: all of the container ends with it
	defer stop()
	redirected := io.Discard
	if x.redirect != "" {
		file, err := os.Create(filepath.Join(plan.Upper, x.redirect))
		if err != nil {
			return err
		}
		defer file.Close()
		redirected = file
	}
	var reading sync.WaitGroup
	for i, pipe := range pipes {
		reading.Go(func() {
			buffer := make([]byte, 32<<10)
			for {
				n, err := pipe.Read(buffer)
				if n > 0 {
					piece := c.masked(buffer[:n])
					switch {
					case i == 0:
						x.stdout = append(x.stdout, piece...)
					case x.redirect != "": // an engine keeps it as well
						_, _ = redirected.Write(piece)
					default:
						x.stderr = append(x.stderr, piece...)
					}
					e.record(trace, span, i+1, string(piece), false)
				}
				if err != nil {
					return
				}
			}
		})
	}
	reading.Wait()
	err = command.Wait()
	if ctx.Err() != nil {
		return context.Canceled // and nothing says that its streams have ended
	}
	for i := range pipes {
		e.record(trace, span, i+1, "", true)
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	if x.code = command.ProcessState.ExitCode(); x.code < 0 {
		x.code = 137
	}
	return nil
}

// userOf is the number of a user.
func userOf(name string) (int, error) {
	switch name {
	case "", "root", "0", "0:0", "toor":
		return 0, nil
	case "nobody", "65534", "65534:65534":
		return 65534, nil
	}
	return 0, &queryError{message: "unable to find user " + name + ": no matching entries in passwd file"}
}

// own gives all of a tree to a user; "" leaves it as it is, root's.
func own(tree, user string) error {
	if user == "" {
		return nil
	}
	id, err := userOf(user)
	if err != nil {
		return err
	}
	return filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Lchown(path, id, id)) })
}

// masked is output as an engine keeps it: without the values of secrets.
func (c *ctr) masked(piece []byte) []byte {
	for _, secret := range c.secrets {
		if secret.value != "" {
			piece = bytes.ReplaceAll(piece, []byte(secret.value), []byte("***"))
		}
	}
	return piece
}

// record adds to the log stream. What is not UTF-8 gets lost there.
func (e *Engine) record(trace string, span []byte, stream int, text string, eof bool) {
	if !utf8.ValidString(text) || e.options.Lose != nil && e.options.Lose(text) {
		return
	}
	id, err := hex.DecodeString(trace)
	if err != nil || len(id) != 16 {
		return
	}
	attributes := []any{map[string]any{"key": "stdio.stream", "value": map[string]any{"intValue": fmt.Sprint(stream)}}}
	if eof {
		attributes = append(attributes, map[string]any{"key": "stdio.eof", "value": map[string]any{"boolValue": true}})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.records = append(e.records, map[string]any{
		"body": map[string]any{"stringValue": text}, "attributes": attributes,
		"traceId": base64.StdEncoding.EncodeToString(id), "spanId": base64.StdEncoding.EncodeToString(span),
	})
}
