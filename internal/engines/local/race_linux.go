//go:build linux && race

package local

import "os"

// A shim is this program: what is said to the race detector of one is said to that of the other. By itself each waits a second at its end.
func init() {
	if options, set := os.LookupEnv("GORACE"); set {
		shimEnv = append(shimEnv, "GORACE="+options)
	}
}
