//go:build !linux

// Package container is the first program in a container of the test double, which is one of Linux.
package container

// Main does nothing here.
func Main() {}
