package examples_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// proxy stands between a client and the NATS server. It reads what both say message by message, and can change it, leave
// it out, and cut the connections.
type proxy struct {
	url    string                    // for the client
	ask    func(m []byte) []byte     // what the server gets instead of a message
	answer func(m message) []message // what the client gets instead of a message

	editing sync.Mutex
	mu      sync.Mutex
	server  string
	conns   map[net.Conn]bool
	asked   int
}

// message is one to the client, with all headers; chunk is its Tools-Seq, 0 where it has none.
type message struct {
	text  []byte
	chunk int
}

func (m message) has(text string) bool { return bytes.Contains(m.text, []byte(text)) }

// startProxy starts one on the way to a server. set may set ask and answer.
func startProxy(t *testing.T, server string, set func(p *proxy)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: host(t, server), conns: map[net.Conn]bool{}}
	p.url = strings.Replace(server, p.server, l.Addr().String(), 1)
	set(p)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		served.Wait()
	})
	return p
}

// to makes another server the one behind it.
func (p *proxy) to(server string) {
	_, address, _ := strings.Cut(server, "@")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = address
}

// cut ends all connections at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

// follows is how often the client asked tools.follow.
func (p *proxy) follows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer server.Close()

	var both sync.WaitGroup
	both.Go(func() {
		defer server.Close()
		pass(client, server, func(m []byte) [][]byte {
			if bytes.HasPrefix(m, []byte("PUB tools.follow ")) {
				p.mu.Lock()
				p.asked++
				p.mu.Unlock()
			}
			if p.ask != nil {
				m = p.ask(m)
			}
			return [][]byte{m}
		})
	})
	both.Go(func() {
		defer client.Close()
		pass(server, client, func(m []byte) [][]byte {
			if p.answer == nil || !bytes.HasPrefix(m, []byte("MSG ")) && !bytes.HasPrefix(m, []byte("HMSG ")) {
				return [][]byte{m}
			}
			one := message{text: m}
			if found := toolsSeq.FindSubmatch(m); found != nil {
				one.chunk, _ = strconv.Atoi(string(found[1]))
			}
			p.editing.Lock()
			defer p.editing.Unlock()
			var out [][]byte
			for _, m := range p.answer(one) {
				out = append(out, m.text)
			}
			return out
		})
	})
	both.Wait()
}

var toolsSeq = regexp.MustCompile(`\r\nTools-Seq: (\d+)\r\n`)

// pass reads messages of the NATS protocol and writes what edit makes of them, until one side has gone.
func pass(from io.Reader, to io.Writer, edit func(m []byte) [][]byte) {
	in := bufio.NewReader(from)
	for {
		m, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		fields := bytes.Fields(m)
		if len(fields) == 0 {
			continue
		}
		switch string(fields[0]) {
		case "MSG", "HMSG", "PUB", "HPUB": // the last field is the number of bytes that follow
			n, err := strconv.Atoi(string(fields[len(fields)-1]))
			if err != nil {
				return
			}
			body := make([]byte, n+len("\r\n"))
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			m = append(m, body...)
		}
		for _, m := range edit(m) {
			if _, err := to.Write(m); err != nil {
				return
			}
		}
	}
}
