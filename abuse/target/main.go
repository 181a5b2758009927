//go:build linux

// Command target is the executor that the attempts of the abuse suite attack; see the package of that name.
package main

import (
	"fmt"
	"os"

	"github.com/praxis-sdk/executor/abuse/internal/target"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

func main() {
	if boot.Invoked() {
		boot.Main()
	}
	if local.ShimInvoked() {
		local.ShimMain()
	}
	if err := target.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "target:", err)
		os.Exit(1)
	}
}
