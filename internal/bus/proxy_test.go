package bus

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between an instance and its server, and lets through as much as it is told.
type proxy struct {
	listener net.Listener
	to       string
	slow     atomic.Int64 // nanoseconds for each piece to the server
	all      sync.WaitGroup

	mu    sync.Mutex
	held  bool // what is for the server is kept
	away  bool // who connects is sent away
	conns []net.Conn
}

func newProxy(t *testing.T, port int) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: "127.0.0.1:" + strconv.Itoa(port)}
	p.all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.join(client)
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut(true)
		p.all.Wait()
	})
	return p
}

// join connects a client with the server.
func (p *proxy) join(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	server, err := net.Dial("tcp", p.to)
	if err != nil || p.away {
		client.Close()
		if err == nil {
			server.Close()
		}
		return
	}
	p.conns = append(p.conns, client, server)
	p.all.Go(func() { p.pass(server, client) })
	p.all.Go(func() {
		defer client.Close()
		io.Copy(client, server)
	})
}

func (p *proxy) pass(server, client net.Conn) {
	defer server.Close()
	buffer := make([]byte, 16<<10)
	var kept []byte
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if pause := p.slow.Load(); pause > 0 {
			<-time.After(time.Duration(pause))
		}
		kept = append(kept, buffer[:n]...)
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held {
			continue
		}
		if _, err = server.Write(kept); err != nil {
			return
		}
		kept = kept[:0]
	}
}

// hold keeps what is for the server; the client sees nothing of it. What was kept goes on with what comes after release.
func (p *proxy) hold() (release func()) {
	set := func(held bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held = held
	}
	set(true)
	return func() { set(false) }
}

// cut ends all connections, and refuses new ones until it is taken back.
func (p *proxy) cut(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }
