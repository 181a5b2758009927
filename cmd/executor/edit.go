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
// a mistake can be mended in the editor; elsewhere it ends the edit. Of an edit that ends so the file is kept.
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
	for {
		if err := p.openEditor(ctx, file); err != nil {
			os.RemoveAll(dir)
			return err
		}
		after, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read what was edited: %w", err)
		}
		if len(bytes.TrimSpace(after)) == 0 || bytes.Equal(after, before) {
			os.RemoveAll(dir)
			return errUnchanged
		}
		wrong := check(after)
		if wrong == nil {
			os.RemoveAll(dir)
			return nil
		}
		before = after
		if p.interactive() {
			fmt.Fprintln(p.stderr, "executor:", wrong)
			again, err := p.ask(ctx, "Edit again?", true)
			if err != nil {
				return err
			}
			if again {
				continue
			}
		}
		return fmt.Errorf("%w (what was edited is in %s)", wrong, file)
	}
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
