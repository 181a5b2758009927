// Package bus is all that the executor does on NATS. Nobody else inside of this module speaks to it.
//
//	config.go    what an operator decides
//	connect.go   the connection, and what is said when it fails
//	declare.go   streams, buckets and consumers: made if missing, else checked
//	consume.go   a slot, then a request: the loop over the queues of an engine; bell.go: what wakes it
//	lease.go     the right to a request, kept alive while it is handled
//	record.go    what is stored about a run: read, claim, result
//	dead.go      what is given up on: the dead letter, and what led to it
//	journal.go   events and output of an attempt: published in order, kept until stored
//	spill.go     what of that is kept on disk while NATS is away; spillrecord.go: as which bytes
//	copies.go    what goes to reply_to
//	cancel.go    the asks to stop a run
//	presence.go  who is there, and what they serve
//	registry.go  contracts that all executors know, as they change; registrar.go: for those who write them
//	frontdoor.go tools.run and tools.stream; follow.go: tools.follow
//	server.go    the NATS server inside of executor dev, and of tests
//
// Names, subjects and headers are those of package contracts.
package bus
