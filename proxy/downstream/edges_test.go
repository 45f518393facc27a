package downstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/sim"
)

// What the proxy answers by itself is whole, also for a client that asks ahead and reads late: the next response would be read as
// the rest of a body otherwise.
func TestOwnAnswersAreWhole(t *testing.T) {
	p := plain(t, model.HTTP{}, nobody(t))
	p.log.forget()
	c := raw(t, p)
	const n = 40000
	go func() {
		some := strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 100)
		for range n / 100 {
			if _, err := io.WriteString(c.c, some); err != nil {
				return
			}
		}
	}()
	last, same := -1, 0
	for same < 10 {
		time.Sleep(20 * time.Millisecond) // poll
		if k := p.log.count(); k == last && k > 0 {
			same++
		} else {
			last, same = k, 0
		}
	}
	for i := range n {
		if _, body := c.response("GET"); !strings.HasPrefix(body, "tulle: ") || !strings.HasSuffix(body, "\n") {
			t.Fatalf("response %d: %q", i, body)
		}
	}
}

// A program that declines an upgrade and takes its time for the answer does not see our end: many take that for ours going away.
func TestDeclinedUpgradeTakesTime(t *testing.T) {
	prog := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first ")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-time.After(300 * time.Millisecond):
		}
		fmt.Fprint(w, "second")
	})
	p := plain(t, model.HTTP{Upgrades: []string{"websocket"}}, addrOf(t, prog))
	c := raw(t, p)
	c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if _, b := c.response("GET"); b != "first second" {
		t.Errorf("%q", b)
	}
}

// A program that sends interim responses without end, to a client that reads none, fills no memory.
func TestInterimFlood(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const all = 64 << 20
	sent := make(chan int, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = http.ReadRequest(bufio.NewReader(c))
		h := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("x", 4000)+"\r\n\r\n", 16)
		n := 0
		for n < all {
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			k, err := io.WriteString(c, h)
			n += k
			if err != nil {
				break
			}
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		sent <- n
	}()
	p := plain(t, model.HTTP{}, ln.Addr().(*net.TCPAddr).AddrPort())
	c := raw(t, p)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if n := <-sent; n < all {
		t.Fatalf("the proxy stopped after %d bytes", n)
	}
	n := 0
	for {
		line := c.line()
		if n += len(line); strings.HasPrefix(line, "HTTP/1.1 200") {
			break
		}
	}
	if n > all/2 {
		t.Errorf("%d of %d MB of interim responses were kept for a client that reads nothing", n>>20, all>>20)
	}
}

// A client that has ended its direction before its tunnel stands has ended it for the program, too.
func TestEndBeforeTunnel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ended, told := make(chan error, 1), make(chan struct{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		_, _ = http.ReadRequest(r)
		<-told
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		b, err := io.ReadAll(r)
		if string(b) != "" {
			err = fmt.Errorf("%q %v", b, err)
		}
		ended <- err
		fmt.Fprint(c, "bye")
	}()
	p := plain(t, model.HTTP{Upgrades: []string{"connect"}}, ln.Addr().(*net.TCPAddr).AddrPort())
	c := raw(t, p)
	c.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\n")
	_ = c.c.(*net.TCPConn).CloseWrite()
	time.AfterFunc(100*time.Millisecond, func() { close(told) }) // our end has come to the proxy
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// tunnelEnd is one end of a tunnel: it says say, then ends its direction if ends, and repeats more.
type tunnelEnd struct {
	c      loop.Conn
	say    string
	ends   bool
	got    string
	closed bool
	timer  loop.Timer
	every  time.Duration
	eof    bool
}

func (e *tunnelEnd) Opened() {
	if e.c != nil {
		e.begin()
	}
}

func (e *tunnelEnd) begin() {
	e.c.Write([]byte(e.say))
	if e.ends {
		e.c.CloseWrite()
	}
	if e.every > 0 {
		e.timer.Expired = func() {
			if !e.closed {
				e.c.Write([]byte("."))
				e.c.Loop().Arm(&e.timer, e.every)
			}
		}
		e.c.Loop().Arm(&e.timer, e.every)
	}
}

func (e *tunnelEnd) Data(p []byte) int {
	e.got += string(p)
	return len(p)
}
func (e *tunnelEnd) EOF()         { e.eof = true }
func (e *tunnelEnd) Writable()    {}
func (e *tunnelEnd) Closed(error) { e.closed = true }

// A tunnel one direction of which has ended lasts as long as bytes move in the other, and not much longer; whichever it was.
func TestTunnelLinger(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	for name, c := range map[string]struct {
		client, server bool          // which direction has ended
		every          time.Duration // the other one says something
	}{"client": {client: true}, "server": {server: true}, "client, moving": {client: true, every: time.Minute}, "server, moving": {server: true, every: time.Minute}} {
		t.Run(name, func(t *testing.T) {
			w := sim.New(sim.Config{Seed: 1})
			pl := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
			prog := &tunnelEnd{say: ok, ends: c.server}
			cli := &tunnelEnd{say: "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", ends: c.client}
			if c.client {
				prog.every = c.every
			} else {
				cli.every = c.every
			}
			program := w.Listen(pl, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
				in.Adopt(pl, func(k loop.Conn) loop.Handler { prog.c = k; return prog })
			})
			hop, addr := newSimHop(w, "10.0.0.2", inbound(program.Addr()), false)
			cl := w.NewLoop(netip.MustParseAddr("10.0.0.4"))
			cl.Post(func() { cli.c = cl.Dial(loop.Dial{Address: addr}, cli) })
			if !w.Until(time.Minute, func() bool { return strings.HasPrefix(cli.got, ok) }) {
				t.Fatalf("no tunnel: %q", cli.got)
			}
			over := w.Until(20*time.Minute, func() bool { return hop.worker.Open() == 0 })
			if over != (c.every == 0) {
				t.Errorf("over after 20 minutes: %v", over)
			}
		})
	}
}

// CONNECT has no content (RFC 9110 section 9.3.6).
func TestConnectWithLength(t *testing.T) {
	p := plain(t, model.HTTP{Upgrades: []string{"connect", "websocket"}, HTTP2: model.HTTP2Options{AllowConnect: true}}, mirror(t))
	for _, kv := range [][]string{
		{":method", "CONNECT", ":authority", "db.test:5432", "content-length", "4"},
		{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a", "content-length", "4"},
	} {
		f := newFrames(t, p)
		f.request(1, false, kv...)
		f.until("RST_STREAM", func(fr http2.Frame) bool { _, ok := fr.(*http2.RSTStreamFrame); return ok })
	}
}

// A client that ends its HTTP/2 connection is gone, or will be soon: the programs that it had asked are told.
func TestClientEnds2(t *testing.T) {
	for name, c := range map[string]struct {
		end    bool
		more   []string
		within time.Duration
	}{"body under way": {within: 2 * time.Second}, "long response": {end: true, within: 8 * time.Second},
		"gRPC": {end: true, more: []string{"content-type", "application/grpc"}, within: 2 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			started, gone := make(chan struct{}), make(chan struct{})
			program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
				close(started)
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				close(gone)
			})
			p := chain(t, model.HTTP{}, program)
			f := newFrames(t, p)
			f.request(1, c.end, append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}, c.more...)...)
			<-started
			_ = f.c.(*net.TCPConn).CloseWrite()
			select {
			case <-gone:
			case <-time.After(c.within):
				t.Error("the program does not know that its client is gone")
			}
		})
	}
}
