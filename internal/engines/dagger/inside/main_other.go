//go:build !linux

package inside

import "os"

// Main is the program in the container, which is one of Linux.
func Main() { os.Exit(1) }
