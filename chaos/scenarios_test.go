//go:build linux

package chaos_test

import (
	"slices"
	"testing"
	"time"
)

// scenario is one kind of fault. Its break is called while requests come in, again and again until all are handed in,
// and paces itself.
type scenario struct {
	name string
	options
	kinds  []string // of requests; nil: everyday
	calm   bool     // nothing of it is a reason to start a tool twice
	says   string   // what an executor must have said, or the fault was none
	break_ func(f *fleet)
}

func TestChaos(t *testing.T) {
	if !asked.run {
		t.Skip("SKIPPED: takes minutes and breaks things; `make chaos` runs it, or EXECUTOR_TEST_CHAOS=1")
	}
	// Some at a time (go test -parallel): most of it is waiting. What measures times is alone.
	t.Run("one-fault", func(t *testing.T) {
		for _, s := range scenarios() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.run(t)
			})
		}
	})
	t.Run("takeover", testTakeover)
	t.Run("slow-follower", testSlowFollower)
	t.Run("everything-at-once", testMixture)
}

func scenarios() []scenario {
	return []scenario{
		{name: "no-fault", options: options{servers: 1}, calm: true, break_: func(f *fleet) { time.Sleep(100 * time.Millisecond) }},

		// Without the lease that ends, or with one that is not kept: lost, or started twice while the first one lives.
		{name: "kill-executors", options: options{servers: 1}, kinds: append([]string{"long litter", "long litter"}, everyday...), break_: func(f *fleet) {
			f.any().crash()
			time.Sleep(f.between(300*time.Millisecond, 1200*time.Millisecond))
		}},

		// Without what the journal keeps until it is acknowledged: gaps. Without message ids: doubles.
		{name: "kill-server", options: options{servers: 1}, break_: func(f *fleet) {
			f.crashServer(f.servers[0], f.between(0, 1500*time.Millisecond))
			time.Sleep(f.between(500*time.Millisecond, 1500*time.Millisecond))
		}},

		{name: "kill-nodes", options: options{servers: 3}, break_: func(f *fleet) {
			for _, s := range f.servers {
				f.crashServer(s, f.between(0, 800*time.Millisecond))
				time.Sleep(f.between(300*time.Millisecond, 800*time.Millisecond))
			}
		}},

		{name: "kill-stream-leader", options: options{servers: 3}, break_: func(f *fleet) {
			if s := f.leader("TOOLS_EXEC"); s != nil {
				f.fault("kill leader")
				s.restart(f.between(0, 800*time.Millisecond))
				s.ready()
			}
			time.Sleep(f.between(300*time.Millisecond, 800*time.Millisecond))
		}},

		{name: "step-down", options: options{servers: 3}, break_: func(f *fleet) {
			for _, stream := range []string{"", "TOOLS_EXEC", "TOOLS_REPLY", "TOOLS_RESULT"} {
				if f.stepDown(stream) {
					f.fault("step down")
				}
				time.Sleep(f.between(200*time.Millisecond, 500*time.Millisecond))
			}
		}},

		// Without the claim two executors run the same attempt; without the fence of the result both store theirs.
		{name: "pause-executors", options: options{servers: 1}, kinds: long, break_: func(f *fleet) {
			f.any().pause(ackWait + f.between(500*time.Millisecond, 1500*time.Millisecond))
			time.Sleep(f.between(200*time.Millisecond, 800*time.Millisecond))
		}},

		{name: "cut-links", options: options{servers: 1}, break_: func(f *fleet) {
			f.fault("cut link")
			f.any().link.cut()
			time.Sleep(f.between(50*time.Millisecond, 500*time.Millisecond))
		}},

		// What was asked is done, and nobody hears of it. Without message ids: doubles. Without a look at what is stored: claims
		// and results of one's own that are taken for another's.
		{name: "lose-answers", options: options{servers: 1}, break_: func(f *fleet) {
			f.fault("lose answers")
			f.any().link.loseAnswers(f.between(100*time.Millisecond, 700*time.Millisecond))
			time.Sleep(f.between(100*time.Millisecond, 500*time.Millisecond))
		}},

		{name: "stall-links", options: options{servers: 1}, kinds: long, break_: func(f *fleet) {
			f.fault("stall link")
			l := f.any().link
			l.stall(true)
			time.Sleep(f.between(300*time.Millisecond, ackWait+1500*time.Millisecond))
			l.stall(false)
			time.Sleep(f.between(100*time.Millisecond, 500*time.Millisecond))
		}},

		{name: "refuse-links", options: options{servers: 1}, kinds: long, break_: func(f *fleet) {
			f.fault("refuse link")
			l := f.any().link
			l.refuse(true)
			time.Sleep(f.between(300*time.Millisecond, ackWait+1500*time.Millisecond))
			l.refuse(false)
			time.Sleep(f.between(100*time.Millisecond, 500*time.Millisecond))
		}},

		// The spool of an executor holds less than its tools print while the server is away.
		{name: "full-spill", options: options{servers: 1, spill: "2Mi"}, says: "no more output of a run can be kept on disk", kinds: []string{"big flood", "touch", "long print", "touch", "touch", "touch", "touch", "touch", "touch", "touch"}, break_: func(f *fleet) {
			f.crashServer(f.servers[0], f.between(1500*time.Millisecond, 3000*time.Millisecond))
			time.Sleep(f.between(700*time.Millisecond, 1500*time.Millisecond))
		}},

		{name: "rolling-restart", options: options{servers: 1}, break_: func(f *fleet) {
			f.any().roll()
			time.Sleep(f.between(100*time.Millisecond, 500*time.Millisecond))
		}},

		{name: "at-most-once", options: options{servers: 1}, kinds: []string{"once", "once", "once", "touch", "print"}, break_: breakExecutors},

		{name: "retry", options: options{servers: 1}, kinds: []string{"flaky", "flaky", "touch", "print"}, break_: breakExecutors},
	}
}

// breakExecutors kills, pauses or cuts off one of the executors.
func breakExecutors(f *fleet) {
	switch f.random.IntN(3) {
	case 0:
		f.any().crash()
	case 1:
		f.any().pause(ackWait + f.between(500*time.Millisecond, 1500*time.Millisecond))
	case 2:
		f.fault("refuse link")
		l := f.any().link
		l.refuse(true)
		time.Sleep(ackWait + f.between(0, time.Second))
		l.refuse(false)
	}
	time.Sleep(f.between(200*time.Millisecond, 800*time.Millisecond))
}

// run asks, breaks, heals, and judges.
func (s scenario) run(t *testing.T) {
	f := newFleet(t, s.options)
	kinds := s.kinds
	if kinds == nil {
		kinds = everyday
	}
	l := f.ask(asked.requests, time.Duration(asked.requests)*loadPace, kinds...)
	f.breakWhile(l, s.break_)
	f.heal()
	if v := f.close(l.stored()); s.calm && v.again > 0 {
		t.Errorf("%d runs were started again, for no reason", v.again)
	}
	if s.says != "" && !slices.ContainsFunc(f.seats, func(seat *seat) bool { return seat.said(s.says, 0) }) {
		t.Errorf("no executor said %q: it did not come to that", s.says)
	}
}

// loadPace is the time between two requests: what two processors can run, with a fault now and then.
const loadPace = 40 * time.Millisecond

// breakWhile breaks things until all requests are handed in.
func (f *fleet) breakWhile(l *load, break_ func(*fleet)) {
	done := make(chan struct{})
	go func() {
		l.sent.Wait()
		close(done)
	}()
	for {
		break_(f)
		select {
		case <-done:
			return
		default:
		}
	}
}

// settleWait is how long everything may take to come to its end after the last fault.
const settleWait = 60 * time.Second

// close waits until all requests have come to their end, judges, ends the executors, and looks for what is left.
func (f *fleet) close(requests []*request) *verdict {
	f.t.Helper()
	state := ""
	if !poll(settleWait, func() bool {
		var ok bool
		ok, state = f.settled(len(requests))
		return ok
	}) {
		f.t.Errorf("not at an end within %s after the last fault: %s", settleWait, state)
	}
	var v *verdict
	poll(10*time.Second, func() bool {
		e, err := f.collect()
		if err != nil {
			f.t.Log(err)
			return false
		}
		v = judge(requests, e, f.deaths)
		return !v.waits
	})
	if v == nil {
		f.t.Fatal("the streams could not be read")
	}
	for i, p := range v.problems {
		if i == 20 {
			f.t.Errorf("and %d more", len(v.problems)-i)
			break
		}
		f.t.Error(p)
	}
	for _, text := range v.slow {
		f.t.Log(text)
	}
	left := f.left + f.leftBehind()
	table.Lock()
	table.rows = append(table.rows, row{scenario: f.name, faults: f.faultsText(), verdict: v, left: left, duration: time.Since(f.begun), failed: f.t.Failed()})
	table.Unlock()
	return v
}

// leftBehind ends the executors and counts what is left then, and what is left of tools before: executors that have
// nothing to do hold nothing.
func (f *fleet) leftBehind() int {
	f.t.Helper()
	left := 0
	look := func(what string, within time.Duration, look func() []string) {
		var found []string
		if poll(within, func() bool { found = look(); return len(found) == 0 }) {
			return
		}
		left += len(found)
		f.t.Errorf("left behind: %d %s: %.200q", len(found), what, found)
	}
	look("processes of tools", 5*time.Second, func() []string { return f.processes("") })
	// The server takes consumers away by itself whose connection has gone, a little after it is whole again; where the
	// leader of the cluster went in the middle of that, it tries again after up to a minute.
	look("consumers", 2*time.Minute, f.strangers)
	f.stop()
	look("processes of tools after the executors' end", 10*time.Second, func() []string { return f.processes("") })
	look("files and directories", 10*time.Second, f.directories)
	return left
}
