//go:build unix

package main

import "golang.org/x/sys/unix"

// signalNumber is the number of a signal, as 9 for SIGKILL.
func signalNumber(name string) int { return int(unix.SignalNum(name)) }
