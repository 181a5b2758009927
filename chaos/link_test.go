//go:build linux

package chaos_test

import (
	"net"
	"sync"
	"testing"
	"time"
)

// link is the connection of one process with the servers: a proxy for each of them that can be cut, stalled and refused.
type link struct {
	urls []string
	all  sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	stalled bool // nothing goes through, either way, and nobody is told
	muted   bool // what the servers say does not come through
	refused bool // who connects is sent away
	closed  bool
	conns   map[net.Conn]struct{}
}

func newLink(tb testing.TB, servers []*server) *link {
	tb.Helper()
	l := &link{conns: map[net.Conn]struct{}{}}
	l.changed.L = &l.mu
	var listeners []net.Listener
	for _, s := range servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		listeners = append(listeners, listener)
		l.urls = append(l.urls, "nats://"+listener.Addr().String())
		l.all.Go(func() { l.accept(listener, s.address()) })
	}
	tb.Cleanup(func() {
		for _, listener := range listeners {
			listener.Close()
		}
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.cut()
		l.all.Wait()
	})
	return l
}

func (l *link) accept(listener net.Listener, to string) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			near.Close()
			continue
		}
		if !l.add(near, far) {
			near.Close()
			far.Close()
			continue
		}
		l.all.Go(func() { l.pass(near, far, func() bool { return l.stalled }) })
		l.all.Go(func() { l.pass(far, near, func() bool { return l.stalled || l.muted }) })
	}
}

func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused || l.closed {
		return false
	}
	for _, c := range conns {
		l.conns[c] = struct{}{}
	}
	return true
}

// pass carries one direction. What was read when the link stalls is passed on when it goes on.
func (l *link) pass(from, to net.Conn, held func() bool) {
	defer func() {
		from.Close()
		to.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, from)
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		for held() && !l.closed && l.has(from) {
			l.changed.Wait()
		}
		l.mu.Unlock()
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections; new ones can be made at once.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) // what is under way is lost, as with a cable
		}
		c.Close()
		delete(l.conns, c)
	}
	l.changed.Broadcast()
}

// has reports whether a connection was not cut.
func (l *link) has(c net.Conn) bool {
	_, ok := l.conns[c]
	return ok
}

// mute keeps back what the servers say, so that all is done that they are told and nobody knows; until it is taken back, or
// for ever where the connection is cut before.
func (l *link) mute(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.muted = on
	l.changed.Broadcast()
}

// loseAnswers has what the servers say in that time never arrive.
func (l *link) loseAnswers(in time.Duration) {
	l.mute(true)
	time.Sleep(in)
	l.cut()
	l.mute(false)
}

// stall stops what goes through, or lets it go on.
func (l *link) stall(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = on
	l.changed.Broadcast()
}

// refuse ends all connections and sends new ones away, until it is taken back.
func (l *link) refuse(on bool) {
	l.mu.Lock()
	l.refused = on
	l.mu.Unlock()
	if on {
		l.cut()
	}
}

// heal lets everything through again.
func (l *link) heal() {
	l.stall(false)
	l.mute(false)
	l.refuse(false)
}
