package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// errUnchanged ends an edit that changed nothing.
var errUnchanged = errors.New("nothing was changed, so nothing is done")

// edit has a person change a text in the editor of $VISUAL or $EDITOR, until check finds nothing wrong with it. On a terminal
// a mistake can be mended in the editor; elsewhere it ends the edit. However an edit ends that came to nothing: where something
// was changed, the file is kept and the error names it.
func (p *program) edit(ctx context.Context, name string, text []byte, check func([]byte) error) error {
	dir, err := os.MkdirTemp("", "executor-edit-") // for its owner only: requests may hold secrets
	if err != nil {
		return err
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		os.RemoveAll(dir)
		return err
	}
	before := text
	var wrong error // about before
	for {
		failed := p.openEditor(ctx, file)
		after, err := os.ReadFile(file)
		nothing := err == nil && (len(bytes.TrimSpace(after)) == 0 || bytes.Equal(after, text))
		switch {
		case nothing:
			os.RemoveAll(dir)
			return cmp.Or(failed, errUnchanged)
		case failed != nil:
			return kept(failed, file)
		case err != nil:
			return fmt.Errorf("read what was edited: %w", err)
		case bytes.Equal(after, before): // with the mistake in it
			return kept(wrong, file)
		}
		if wrong = check(after); wrong == nil {
			os.RemoveAll(dir)
			return nil
		}
		before = after
		if p.interactive() {
			fmt.Fprintln(p.stderr, "executor:", wrong)
			again, err := p.ask(ctx, "Edit again?", true)
			if err != nil {
				fmt.Fprintln(p.stderr) // the question's line ends with ^C
				return kept(err, file)
			}
			if again {
				continue
			}
		}
		return kept(wrong, file)
	}
}

// kept is the error of an edit whose file is kept. The code to exit with stays.
func kept(err error, file string) error {
	where := "what was edited is in " + file
	if code := (exitCode{}); errors.As(err, &code) && code.text == "" {
		code.text = where
		return code
	}
	return fmt.Errorf("%w (%s)", err, where)
}

// openEditor runs the editor on a file until it ends. Its setting is a command for the shell, as everywhere; but where it has
// nothing for a shell to do there is none, which Ctrl-C would end under the editor.
func (p *program) openEditor(ctx context.Context, file string) error {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	words := append(strings.Fields(editor), file)
	if strings.ContainsAny(editor, "|&;<>()$`\\\"'*?[#~=%") || len(words) == 1 {
		words = []string{"sh", "-c", editor + ` "$1"`, "sh", file}
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout, p.stderr
	if err := leaveInterrupts(cmd.Run); err != nil {
		if ctx.Err() != nil {
			return exitCode130
		}
		return fmt.Errorf("the editor %q failed: %w; set $VISUAL or $EDITOR to another", editor, err)
	}
	return nil
}

// interactive reports whether there is somebody to ask.
func (p *program) interactive() bool { return isTerminal(p.stdin) && isTerminal(p.stderr) }

// ask asks a question on the terminal. The end of the input is a no.
func (p *program) ask(ctx context.Context, question string, yes bool) (bool, error) {
	choice := "[y/N]"
	if yes {
		choice = "[Y/n]"
	}
	fmt.Fprintf(p.stderr, "%s %s ", question, choice)
	answer := make(chan string, 1)
	go func() { // a read from a terminal cannot be interrupted; the program ends without it
		line, err := bufio.NewReader(p.stdin).ReadString('\n')
		if err != nil {
			line = "n"
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		return line == "y" || line == "yes" || line == "" && yes, nil
	case <-ctx.Done():
		return false, exitCode130
	}
}
