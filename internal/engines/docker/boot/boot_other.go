//go:build !linux

package boot

// Invoked is false: containers run Linux.
func Invoked() bool { return false }

// Main does nothing: see Invoked.
func Main() {}
