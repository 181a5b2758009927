// Package executor is the core: one delivery in, exactly one result out.
//
// A delivery goes through the files in this order:
//
//	executor.go  Handle: the way of one delivery, and the runs under way
//	decode.go    bytes to a request with an id, and where its answers go
//	admit.go     is it new, still wanted, allowed, right? policy.go: what is allowed; registry.go: which tools there are
//	run.go       the claim, the engine, the clock
//	output.go    what the tool prints, in chunks; capture.go: its first and last part for the result
//	report.go    the result: stored once, copied, done
//
// It knows nothing of NATS: ports.go says what it needs of a bus.
package executor
