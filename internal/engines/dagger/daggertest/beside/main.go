// Beside is what runs in containers of the test double and of tests: as the first program there, and beside the tool. It is small
// and static, unlike a program of tests.
package main

import (
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest/container"
	"github.com/praxis-sdk/executor/internal/engines/dagger/inside"
)

func main() {
	container.Main()
	inside.Main()
}
