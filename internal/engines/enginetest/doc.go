// Package enginetest has what tests of engines need:
//
//	testtool/    the tool that they run: Build
//	suite.go     the conformance suite that every engine passes: Run and Suite; the parts are in the other suite_ files
//	harness.go   one run of the testtool, and what is true of each run whatever it does
//	processes.go finds what a run left behind
//	fake.go      an engine without processes, for tests of what uses engines: Fake
package enginetest
