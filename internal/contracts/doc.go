// Package contracts holds the words that cross the bus and the checks on them: contracts, requests, events and
// results, the environment a tool gets from its arguments, and the subjects all of it travels on.
//
// In the order in which a reader meets them:
//
//	yaml.go         text to a tree that knows line and column; json.go: the same for JSON
//	decode.go       tree to Go values, strictly, with what to write instead
//	values.go       durations, sizes, cpu shares
//	contract.go     the contract of a tool; spec.go: what each engine needs to run it
//	check.go        what is wrong about a contract beyond its types
//	parameters.go   the arguments a tool takes: check and complete them
//	template.go     {{args.name}} in a command
//	environment.go  the environment variables of a run
//	request.go      one ask to run a contract; digest.go: what it asks for, as a hash
//	event.go        what an executor says about a run; result.go: how it ended
//	subjects.go     the subjects, stream and bucket names of one fleet
//
// The package imports nothing but the standard library and the YAML parser, so that everything may import it.
package contracts
