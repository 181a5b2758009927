// Command executor runs tools for AI agents: it takes requests from NATS JetStream, runs each tool on an engine, streams
// its output and stores one result.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/praxis-sdk/executor/internal/engines/local"
)

func main() {
	if local.ShimInvoked() { // this process is a helper of the local engine
		local.ShimMain()
	}
	signals := make(chan os.Signal, 2)
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
