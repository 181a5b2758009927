//go:build !unix

package main

// signalNumber is not known here; tools run elsewhere.
func signalNumber(string) int { return 0 }
