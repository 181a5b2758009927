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
	code int
	text string
}

func (e exitCode) Error() string { return e.text }

func usage(format string, a ...any) error {
	return exitCode{exitUsage, fmt.Sprintf(format, a...)}
}

// program is what all commands share.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// execute runs a command line and returns the code to exit with.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin, stdout, stderr}
	root := &cobra.Command{
		Use:           "executor",
		Short:         "Run tools for AI agents over NATS",
		Long:          "executor takes tool requests from NATS JetStream, runs each tool on an engine, streams its output and stores one result.",
		SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage("%s%s", err, flagHint(c, err)) })
	root.AddCommand(p.devCommand(), p.serveCommand(), p.runCommand(), p.validateCommand(), p.versionCommand())
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var code exitCode
	if !errors.As(err, &code) {
		code = exitCode{exitError, err.Error()}
		if strings.HasPrefix(err.Error(), "unknown command") || strings.Contains(err.Error(), "arg(s)") {
			code.code = exitUsage
		}
	}
	if code.text != "" {
		fmt.Fprintln(stderr, "executor:", strings.ReplaceAll(strings.TrimSpace(code.text), "\n", "\n  "))
	}
	if code.code == exitUsage && code.text != "" {
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
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "executor %s (%s, %s/%s)\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
