package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Exit codes beside those of tools. docs/cli.md lists them.
const (
	exitOK          = 0
	exitError       = 1   // something did not work
	exitUsage       = 2   // the command line or a file is wrong
	exitTimeout     = 124 // the tool ran longer than it may
	exitNotRun      = 125 // the tool was not run to an end: rejected, unavailable, expired, lost, unknown
	exitInterrupted = 130 // cancelled, as by Ctrl-C
	exitSignal      = 128 // and the number of the signal that ended the tool
)

// exitCode is an error that carries the code to exit with. Its text has been said already if it is empty.
type exitCode struct {
	code  int
	text  string
	usage bool // the command line is wrong: its help helps
}

func (e exitCode) Error() string { return e.text }

func usage(format string, a ...any) error {
	return exitCode{exitUsage, fmt.Sprintf(format, a...), true}
}

// wrongFile is an error about what a file holds.
func wrongFile(err error) error { return exitCode{code: exitUsage, text: err.Error()} }

// unknownCommand names the command that was probably meant.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			known = append(known, sub.Name())
		}
	}
	if near := contracts.Closest(args[0], known); near != "" {
		return usage("there is no command %q; did you mean %q?", args[0], near)
	}
	return usage("there is no command %q; there are %s", args[0], strings.Join(known, ", "))
}

// one wants a single argument, what.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usage("name %s", what)
		case 1:
			return nil
		}
		return usage("name only one: %s; %q is too much", what, args[1])
	}
}

// some wants at least one argument, what.
func some(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("name %s", what)
		}
		return nil
	}
}

// none wants no argument.
func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q is too much; this command takes only flags", args[0])
	}
	return nil
}

// program is what all commands share.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// rootCommand is the tree of all commands.
func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "executor",
		Short:         "Run tools for AI agents over NATS",
		Long:          "executor takes tool requests from NATS JetStream, runs each tool on an engine, streams its output and stores one result.",
		SilenceErrors: true, SilenceUsage: true,
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage("%s%s", err, flagHint(c, err)) })
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"use", "Run tools:", []*cobra.Command{p.runCommand(), p.submitCommand(), p.logsCommand(), p.resultCommand(), p.cancelCommand(), p.toolsCommand()}},
		{"serve", "Run executors:", []*cobra.Command{p.devCommand(), p.serveCommand(), p.psCommand(), p.deadCommand(), p.doctorCommand(), p.provisionCommand(), p.healthcheckCommand()}},
		{"write", "Write contracts and clients:", []*cobra.Command{p.validateCommand(), p.schemaCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(p.versionCommand())
	return root
}

// execute runs a command line and returns the code to exit with.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := (&program{stdin, stdout, stderr}).rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var code exitCode
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if !errors.As(err, &code) {
		code = exitCode{exitError, err.Error(), false}
	}
	if code.text != "" {
		fmt.Fprintln(stderr, "executor:", strings.ReplaceAll(strings.TrimSpace(code.text), "\n", "\n  "))
	}
	if code.usage {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", command.CommandPath())
	}
	return code.code
}

// flagHint names the flag that was probably meant.
func flagHint(c *cobra.Command, err error) string {
	_, wrong, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return ""
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if near := contracts.Closest(wrong, known); near != "" {
		return fmt.Sprintf("; did you mean --%s?", near)
	}
	return ""
}

// version is set by the build (-ldflags "-X main.version=…"); a module build has it from the module.
var version = ""

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "0.1.0-dev"
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: none,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "executor %s (%s, %s/%s)\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
