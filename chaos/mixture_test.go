//go:build linux

package chaos_test

import (
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testMixture has all faults at once on a cluster, in any order, for as long as it is asked.
func testMixture(t *testing.T) {
	f := newFleet(t, options{servers: 3, executors: 4, spill: "8Mi"})
	kinds := append(slices.Clone(everyday), "once", "once", "flaky", "flaky")
	n := max(int(asked.mixture/mixturePace), 1)
	l := f.ask(n, asked.mixture, kinds...)
	f.breakWhile(l, breakAnything)
	f.heal()
	f.close(l.stored())
}

// mixturePace is the time between two requests of the mixture.
const mixturePace = 80 * time.Millisecond

// breakAnything does something to one executor and to one server at the same time. One node of the three at a time: two
// gone are no cluster any more, and everything waits.
func breakAnything(f *fleet) {
	executor := []func(*seat){
		func(s *seat) { s.crash() },
		func(s *seat) { s.pause(ackWait + time.Second) },
		func(s *seat) { f.fault("cut link"); s.link.cut() },
		func(s *seat) { f.fault("lose answers"); s.link.loseAnswers(500 * time.Millisecond) },
		func(s *seat) { s.roll() },
		func(s *seat) {
			f.fault("stall link")
			s.link.stall(true)
			time.Sleep(ackWait + time.Second)
			s.link.stall(false)
		},
		func(s *seat) {
			f.fault("refuse link")
			s.link.refuse(true)
			time.Sleep(ackWait + time.Second)
			s.link.refuse(false)
		},
	}[f.random.IntN(7)]
	server := []func(*server){
		func(s *server) { f.crashServer(s, time.Second) },
		func(*server) {
			if s := f.leader("TOOLS_EXEC"); s != nil {
				f.fault("kill leader")
				s.restart(500 * time.Millisecond)
				s.ready()
			}
		},
		func(*server) {
			for _, stream := range []string{"", "TOOLS_EXEC", "TOOLS_REPLY"} {
				if f.stepDown(stream) {
					f.fault("step down")
				}
			}
		},
		func(s *server) {
			f.fault("stop server")
			s.signal(syscall.SIGSTOP)
			time.Sleep(2 * time.Second)
			s.resume()
		},
		func(*server) {}, // let it be
	}[f.random.IntN(5)]
	seat, node, pause := f.any(), f.servers[f.random.IntN(3)], f.between(100*time.Millisecond, 700*time.Millisecond)
	var both sync.WaitGroup
	both.Go(func() { executor(seat) })
	both.Go(func() { server(node) })
	both.Wait()
	time.Sleep(pause)
}
