// Package abuse holds the public abuse suite: attempts to get out of a run, or to leave something of it behind, each a small
// script that says what comes of it in every tier. `make abuse` makes them and prints a table.
//
//	attempts/<area>/<name>.sh  what is tried; the header says what is expected
//	attacker/                  a helper for what a shell cannot do
//	target/, internal/target/  the executor that is attacked, and its tiers
//	abuse_test.go              every attempt in every tier, and what is to come of it
//	attempt_test.go            the headers
//	execute_test.go            one attempt: an executor of its own, and what is found after it
//	world_test.go              what is put in the way of attempts: secrets, a process, listeners
//	left_test.go               what may be left: processes, files, objects of the kernel
//	table_test.go              the table
//
// What came of an attempt is judged from outside: by secrets that turn up in its output, files that are not as they were,
// listeners that were reached, processes that were disturbed or are still there. Its own word counts where nothing is to be
// seen outside, as when the kernel gives it a descriptor.
package abuse
