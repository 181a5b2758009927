// Beside is the program that stands beside tools in containers, without all else that the executor has: tests build it.
package main

import "github.com/praxis-sdk/executor/internal/engines/dagger/inside"

func main() { inside.Main() }
