//go:build linux && !amd64 && !arm64

package sandbox

// There is no sandbox on other architectures: Start says so before it looks at any of these.
const (
	arch    = 0
	foreign = 0
)

var deniedHere, lasting []uint32

var holdCode []byte
