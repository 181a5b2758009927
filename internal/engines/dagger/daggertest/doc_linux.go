// Package daggertest has a session of Dagger for tests that runs commands without an engine: GraphQL over HTTP with basic auth, and
// the log stream. Containers are namespaces of this machine with directories for their file systems, so exit codes, output and
// cancels are real. Where engines are peculiar it is as they are: pieces of output that are not UTF-8 are missing in the log
// stream, exit codes of 128 to 191 are errors, what is in memory is mounted over what lies below it, what is mounted later takes
// away what was mounted below its place, a stopped command says nothing of its end, and values of secrets are *** in output.
//
//	engine_linux.go    the HTTP side: queries, the log stream, and what can go wrong with them
//	query_linux.go     what is asked for, field by field
//	exec_linux.go      a command is run
//	files_linux.go     copies and differences of directories
//	cli_linux.go       the dagger program that holds a session
//	build.go           the program in the containers
//	container/         the first program in a container
//	beside/            the main function of both
package daggertest
