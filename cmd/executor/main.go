// Command executor runs tools for AI agents: it takes requests from NATS JetStream, runs each tool on an engine, streams
// its output and stores one result.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// signals are those that end a command.
var signals = make(chan os.Signal, 2)

func main() {
	if inside.Invoked() { // this process stands beside a tool in a container of Dagger
		inside.Main()
	}
	if boot.Invoked() { // this process is the first one of a container of the Docker engine
		boot.Main()
	}
	if local.ShimInvoked() { // this process is a helper of the local engine
		local.ShimMain()
	}
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	// A reader that goes away (| head) is an error of the write, not the end of the program. Being caught, and not ignored,
	// the signal is as usual in tools.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-signals
		cancel() // every command ends in order …
		<-signals
		os.Exit(exitInterrupted) // … or at once
	}()
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// leaveInterrupts leaves Ctrl-C to another program while do runs, as to an editor, which has the terminal with us.
func leaveInterrupts(do func() error) error {
	// Being caught, and not ignored, it is as usual in the other program.
	caught, barrier := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT)
	signal.Notify(barrier, syscall.SIGINT)
	signal.Stop(signals)
	signal.Notify(signals, syscall.SIGTERM)
	defer func() {
		signal.Stop(barrier) // returns when what has come until now is dealt with
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		signal.Stop(caught)
	}()
	return do()
}
