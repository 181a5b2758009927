//go:build linux

package chaos_test

import (
	"testing"
	"time"
)

// takeoverMost is the longest time from the kill of an executor until another one has started what it ran, where there are
// slots free: a heartbeat's time and the tick, and a second for a busy machine.
const takeoverMost = ackWait + 2*time.Second

// testTakeover measures it: two executors with little to do, a few runs each, a kill. The one that is left has to notice by itself.
func testTakeover(t *testing.T) {
	f := newFleet(t, options{servers: 1, executors: 2})
	rounds := max(4, asked.requests/30)
	var requests []*request
	for range rounds {
		l := f.ask(10, 50*time.Millisecond, "long nap")
		stored := l.stored()
		requests = append(requests, stored...)
		for _, r := range stored {
			eventually(t, "it runs", 10*time.Second, func() bool { return f.wasStarted(r.id) })
		}
		time.Sleep(f.between(0, ackWait)) // at any time between two heartbeats
		f.holder(stored[0].id).crash()
		eventually(t, "all have ended", 30*time.Second, func() bool { ok, _ := f.settled(len(requests)); return ok })
	}
	v := f.close(requests)
	if len(v.takeover) == 0 {
		t.Error("nothing was taken over: nobody was killed who ran something")
	}
	for _, took := range v.takeover {
		if took > takeoverMost {
			t.Errorf("taken over after %s, more than %s", took, takeoverMost)
		}
	}
	t.Logf("taken over %d times, the slowest after %s of ack_wait %s", len(v.takeover), most(v.takeover), ackWait)
}

// holder is the executor that has claimed a run.
func (f *fleet) holder(id string) *seat {
	f.t.Helper()
	stream, err := f.js.Stream(f.t.Context(), "TOOLS_REPLY")
	if err != nil {
		f.t.Fatal(err)
	}
	last, err := stream.GetLastMsgForSubject(f.t.Context(), "tools.reply."+id+".status")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range f.seats {
		if s.name == last.Header.Get("Tools-Executor") {
			return s
		}
	}
	f.t.Fatalf("%s has nobody", id)
	return nil
}
