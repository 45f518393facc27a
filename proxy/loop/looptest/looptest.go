// Package looptest is what every loop.Loop has to do, as tests: the real loop and the simulator's run the same
// suite, so that one is the twin of the other. Start reading at Run.
package looptest

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// World is where the suite runs: two loops and a network between them.
type World interface {
	Loop(i int) loop.Loop
	// Listen accepts on l and answers the address.
	Listen(l loop.Loop, accept func(loop.Incoming)) netip.AddrPort
	// Nobody answers an address where nothing listens.
	Nobody() netip.AddrPort
	// Do runs f on l and returns when it has run.
	Do(l loop.Loop, f func())
	// Until waits until cond, called without a promise of where, holds; false if it takes too long.
	Until(cond func() bool) bool
}

// Run runs the suite; fresh makes a world and has it ended with the test.
func Run(t *testing.T, fresh func(t *testing.T) World) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, w World)
	}{
		{"echo", echo}, {"half-close", halfClose}, {"close flushes", closeFlushes}, {"close with unread input", closeUnread},
		{"reset", reset}, {"refused", refused}, {"another address", another}, {"incoming refused", incomingRefused}, {"pause", pause},
		{"watermarks", watermarks}, {"partial consumption", partial}, {"nothing consumed", nothingConsumed},
		{"new handler", newHandler}, {"new handler after the end", newHandlerEOF}, {"timers", timers}, {"posts in order", posts},
		{"turn's end", turnEnd}, {"written before opened", writtenBeforeOpened}, {"closed methods", closedMethods},
		{"many", many},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fresh(t)) })
	}
}

// Peer is a handler that notes what it is told. Its On functions may replace parts of it.
type Peer struct {
	mu       sync.Mutex
	conn     loop.Conn
	opened   int
	got      []byte
	eof      int
	writable int
	closed   int
	err      error
	inside   int // depth of our own calls of Conn methods
	wrong    string

	OnOpened   func()
	OnData     func(p []byte) int
	OnEOF      func()
	OnWritable func()
}

func (p *Peer) Opened() {
	p.note(func() { p.opened++ }, "Opened")
	if p.OnOpened != nil {
		p.OnOpened()
	}
}

func (p *Peer) Data(b []byte) int {
	p.note(nil, "Data")
	if len(b) == 0 || len(b) > loop.ScratchSize {
		p.note(func() { p.wrong = "Data with a wrong length" }, "Data")
	}
	if p.OnData != nil {
		return p.OnData(b)
	}
	p.note(func() { p.got = append(p.got, b...) }, "Data")
	return len(b)
}

func (p *Peer) EOF() {
	p.note(func() { p.eof++ }, "EOF")
	if p.OnEOF != nil {
		p.OnEOF()
	}
}

func (p *Peer) Writable() {
	p.note(func() { p.writable++ }, "Writable")
	if p.OnWritable != nil {
		p.OnWritable()
	}
}

func (p *Peer) Closed(err error) {
	p.note(func() { p.closed++; p.err = err }, "Closed")
}

// note records a call and whether it was allowed to happen.
func (p *Peer) note(f func(), name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside > 0 {
		p.wrong = name + " was called from inside a method of Conn"
	}
	if p.closed > 0 {
		p.wrong = name + " was called after Closed"
	}
	if f != nil {
		f()
	}
}

// Call runs f, which calls methods of Conn; a call back from inside is noted as wrong.
func (p *Peer) Call(f func(c loop.Conn)) {
	p.mu.Lock()
	p.inside++
	c := p.conn
	p.mu.Unlock()
	f(c)
	p.mu.Lock()
	p.inside--
	p.mu.Unlock()
}

func (p *Peer) state(f func() bool) func() bool {
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return f()
	}
}

func (p *Peer) isClosed() bool { return p.state(func() bool { return p.closed > 0 })() }
func (p *Peer) isOpen() bool   { return p.state(func() bool { return p.opened > 0 })() }
func (p *Peer) sawEOF() bool   { return p.state(func() bool { return p.eof > 0 })() }
func (p *Peer) has(n int) func() bool {
	return p.state(func() bool { return len(p.got) >= n })
}

func (p *Peer) check(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wrong != "" {
		t.Error(p.wrong)
	}
	if p.closed > 1 {
		t.Error("Closed was called", p.closed, "times")
	}
}

// pair connects a client on loop 0 to a server on loop 1.
func pair(t *testing.T, w World) (client, server *Peer) {
	t.Helper()
	client, server = &Peer{}, &Peer{}
	connect(t, w, client, server)
	return client, server
}

func connect(t *testing.T, w World, client, server *Peer) {
	t.Helper()
	addr := w.Listen(w.Loop(0), func(in loop.Incoming) {
		in.Adopt(w.Loop(1), func(c loop.Conn) loop.Handler {
			server.mu.Lock()
			defer server.mu.Unlock()
			server.conn = c
			return server
		})
	})
	dial(w, addr, client)
	until(t, w, "both ends open", func() bool { return client.isOpen() && server.isOpen() })
	t.Cleanup(func() { client.check(t); server.check(t) })
}

func dial(w World, addr netip.AddrPort, p *Peer) {
	w.Do(w.Loop(0), func() {
		p.mu.Lock()
		p.inside++
		p.mu.Unlock()
		c := w.Loop(0).Dial(loop.Dial{Address: addr}, p)
		p.mu.Lock()
		p.inside--
		p.conn = c
		p.mu.Unlock()
	})
}

func until(t *testing.T, w World, what string, cond func() bool) {
	t.Helper()
	if !w.Until(cond) {
		t.Fatalf("waited in vain: %s", what)
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func echo(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnData = func(p []byte) int {
		server.Call(func(c loop.Conn) {
			c.Write(p)
			if c.Buffered() > loop.HighWater {
				c.Pause()
			}
		})
		return len(p)
	}
	server.OnWritable = func() { server.conn.Resume() }
	server.OnEOF = func() { server.Call(func(c loop.Conn) { c.CloseWrite() }) }
	data := pattern(3 << 20)
	rest := data
	feed := func() {
		client.Call(func(c loop.Conn) {
			for len(rest) > 0 && c.Buffered() <= loop.HighWater {
				n := min(len(rest), 100_000)
				c.Write(rest[:n])
				rest = rest[n:]
			}
			if len(rest) == 0 {
				c.CloseWrite()
			}
		})
	}
	client.OnWritable = feed
	connect(t, w, client, server)
	w.Do(w.Loop(0), feed)
	until(t, w, "the end of the echo", func() bool { return client.isClosed() && server.isClosed() })
	if !bytes.Equal(client.got, data) {
		t.Errorf("%d bytes came back, and not the %d that were sent", len(client.got), len(data))
	}
	if client.err != nil || server.err != nil || client.eof != 1 {
		t.Errorf("ended with %v and %v, EOF %d times", client.err, server.err, client.eof)
	}
	if w.Loop(0).Load() != 0 || w.Loop(1).Load() != 0 {
		t.Errorf("load after the end: %d and %d", w.Loop(0).Load(), w.Loop(1).Load())
	}
}

func halfClose(t *testing.T, w World) {
	client, server := pair(t, w)
	w.Do(w.Loop(0), func() {
		client.Call(func(c loop.Conn) { c.Write([]byte("question")); c.CloseWrite(); c.Write([]byte("lost")) })
	})
	until(t, w, "EOF at the server", server.sawEOF)
	if string(server.got) != "question" || server.isClosed() || client.sawEOF() {
		t.Errorf("server got %q, closed %v; client EOF %v", server.got, server.isClosed(), client.sawEOF())
	}
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Write([]byte("answer")); c.CloseWrite() }) })
	until(t, w, "both ends closed", func() bool { return client.isClosed() && server.isClosed() })
	if string(client.got) != "answer" || client.err != nil || server.err != nil {
		t.Errorf("client got %q; ends: %v, %v", client.got, client.err, server.err)
	}
}

func closeFlushes(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	client.OnEOF = func() { client.Call(func(c loop.Conn) { c.Close() }) }
	connect(t, w, client, server)
	data := pattern(2 << 20)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Write(data); c.Close(); c.Close() }) })
	until(t, w, "EOF at the client", client.sawEOF)
	until(t, w, "the server's Closed", server.isClosed)
	if !bytes.Equal(client.got, data) || server.err != nil {
		t.Errorf("client got %d of %d bytes; server ended with %v", len(client.got), len(data), server.err)
	}
}

// closeUnread: whoever closes with input unread must not take its own output away by a RST.
func closeUnread(t *testing.T, w World) {
	client, server := pair(t, w)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Pause() }) })
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write(pattern(40_000)) }) })
	data := pattern(30_000)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Write(data); c.Close() }) })
	until(t, w, "EOF at the client", client.sawEOF)
	if !bytes.Equal(client.got, data) {
		t.Errorf("client got %d of %d bytes", len(client.got), len(data))
	}
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Close() }) })
	until(t, w, "the server's Closed", server.isClosed)
	if server.err != nil {
		t.Errorf("server ended with %v", server.err)
	}
}

func reset(t *testing.T, w World) {
	client, server := pair(t, w)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Reset() }) })
	until(t, w, "both ends closed", func() bool { return client.isClosed() && server.isClosed() })
	if client.err == nil || server.err != nil || client.eof > 0 {
		t.Errorf("ended with %v and %v, EOF %d times; want an error at the client only", client.err, server.err, client.eof)
	}
}

func refused(t *testing.T, w World) {
	client := &Peer{}
	dial(w, w.Nobody(), client)
	until(t, w, "the client's Closed", client.isClosed)
	if client.err == nil || client.opened > 0 {
		t.Errorf("ended with %v, opened %d times", client.err, client.opened)
	}
	client.check(t)
}

func another(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	addr := w.Listen(w.Loop(1), func(in loop.Incoming) { in.Adopt(w.Loop(1), func(loop.Conn) loop.Handler { return server }) })
	refuses := netip.MustParseAddr("127.0.0.9") // nobody listens there
	w.Do(w.Loop(0), func() {
		c := w.Loop(0).Dial(loop.Dial{Address: netip.AddrPortFrom(refuses, addr.Port()), Also: []netip.Addr{refuses, addr.Addr()}}, client)
		c.Write([]byte("found"))
	})
	until(t, w, "what was written", server.has(len("found")))
	until(t, w, "Opened", client.isOpen)
	nobody := &Peer{}
	w.Do(w.Loop(0), func() {
		w.Loop(0).Dial(loop.Dial{Address: w.Nobody(), Also: []netip.Addr{refuses}}, nobody)
	})
	until(t, w, "the failure", nobody.isClosed)
	if nobody.err == nil || nobody.opened > 0 {
		t.Errorf("ended with %v, opened %d times", nobody.err, nobody.opened)
	}
}

func incomingRefused(t *testing.T, w World) {
	client := &Peer{}
	dial(w, w.Listen(w.Loop(1), func(in loop.Incoming) { in.Refuse() }), client)
	until(t, w, "the client's Closed", client.isClosed)
	if client.err == nil {
		t.Error("ended without an error")
	}
	client.check(t)
}

func pause(t *testing.T, w World) {
	client, server := pair(t, w)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Pause() }) })
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write([]byte("waiting")); c.CloseWrite() }) })
	var timer loop.Timer
	var mu sync.Mutex
	expired := false
	timer.Expired = func() { mu.Lock(); expired = true; mu.Unlock() }
	w.Do(w.Loop(1), func() { w.Loop(1).Arm(&timer, 50*time.Millisecond) })
	until(t, w, "the timer", func() bool { mu.Lock(); defer mu.Unlock(); return expired })
	if server.has(1)() || server.sawEOF() {
		t.Errorf("got %q, EOF %v while paused", server.got, server.sawEOF())
	}
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Resume() }) })
	until(t, w, "EOF at the server", server.sawEOF)
	if string(server.got) != "waiting" {
		t.Errorf("got %q", server.got)
	}
}

func watermarks(t *testing.T, w World) {
	client, server := pair(t, w)
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Pause() }) })
	total := 0
	chunk := pattern(64 << 10)
	w.Do(w.Loop(0), func() {
		client.Call(func(c loop.Conn) {
			for c.Buffered() <= loop.HighWater {
				c.Write(chunk)
				total += len(chunk)
				if total > 64<<20 {
					t.Error("64 MiB written and never above HighWater")
					return
				}
			}
		})
	})
	if client.state(func() bool { return client.writable > 0 })() {
		t.Error("Writable before anything was read")
	}
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.Resume() }) })
	until(t, w, "all to arrive", server.has(total))
	until(t, w, "Writable", client.state(func() bool { return client.writable > 0 }))
	if client.writable != 1 {
		t.Errorf("Writable was called %d times", client.writable)
	}
}

// partial: a handler that takes bytes three at a time, and only when seven are there, sees every byte once.
func partial(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnData = func(p []byte) int {
		n := 0
		for len(p)-n >= 7 {
			server.got = append(server.got, p[n:n+3]...)
			n += 3
		}
		return n
	}
	connect(t, w, client, server)
	data := pattern(100_000)
	for i := 0; i < len(data); i += 10_000 {
		w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write(data[i : i+10_000]) }) })
	}
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.CloseWrite() }) })
	until(t, w, "EOF at the server", server.sawEOF)
	if !bytes.Equal(server.got, data[:len(server.got)]) || len(data)-len(server.got) >= 7 {
		t.Errorf("%d bytes taken of %d, or not the right ones", len(server.got), len(data))
	}
}

func nothingConsumed(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnData = func(p []byte) int { return 0 }
	connect(t, w, client, server)
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write(pattern(3 * loop.ScratchSize)) }) })
	until(t, w, "both ends closed", func() bool { return client.isClosed() && server.isClosed() })
	if server.err != loop.ErrNotConsumed || client.err == nil {
		t.Errorf("ended with %v at the server and %v at the client", server.err, client.err)
	}
}

func newHandler(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	client.OnEOF = func() { client.Call(func(c loop.Conn) { c.Close() }) }
	second := &Peer{}
	server.OnData = func(p []byte) int {
		if len(p) < 4 {
			return 0
		}
		server.got = append(server.got, p[:4]...)
		second.conn = server.conn
		server.Call(func(c loop.Conn) { c.SetHandler(second) })
		return 4
	}
	connect(t, w, client, server)
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write([]byte("headbody")) }) })
	until(t, w, "what was left to reach the new handler", second.has(4))
	if string(server.got) != "head" || string(second.got) != "body" {
		t.Errorf("handlers got %q and %q", server.got, second.got)
	}
	w.Do(w.Loop(1), func() { second.Call(func(c loop.Conn) { c.Close() }) })
	until(t, w, "the new handler's Closed", second.isClosed)
	if server.closed > 0 || second.opened > 0 {
		t.Errorf("old handler closed %d times, new one opened %d times", server.closed, second.opened)
	}
	second.check(t)
}

func newHandlerEOF(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnData = func(p []byte) int { return 0 }
	connect(t, w, client, server)
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Write([]byte("undecided")); c.CloseWrite() }) })
	until(t, w, "EOF at the server", server.sawEOF)
	second := &Peer{conn: server.conn}
	w.Do(w.Loop(1), func() { server.Call(func(c loop.Conn) { c.SetHandler(second) }) })
	until(t, w, "EOF at the new handler", second.sawEOF)
	if string(second.got) != "undecided" {
		t.Errorf("new handler got %q", second.got)
	}
	second.check(t)
}

func timers(t *testing.T, w World) {
	l := w.Loop(0)
	var mu sync.Mutex
	var order []int
	var early []time.Duration
	done := false
	list := make([]loop.Timer, 6)
	arm := func(i int, d time.Duration) {
		at := l.Now() + d
		list[i].Expired = func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
			if l.Now() < at {
				early = append(early, at-l.Now())
			}
			done = done || i == 5
		}
		l.Arm(&list[i], d)
	}
	w.Do(l, func() {
		arm(5, 150*time.Millisecond)
		arm(1, 20*time.Millisecond)
		arm(0, 0)
		arm(2, 10*time.Millisecond)
		arm(2, 70*time.Millisecond) // moved
		arm(3, 30*time.Millisecond)
		l.Disarm(&list[3])
		l.Disarm(&list[3])
		if !list[1].Armed() || list[3].Armed() || list[4].Armed() {
			t.Error("Armed is wrong")
		}
	})
	until(t, w, "the timers", func() bool { mu.Lock(); defer mu.Unlock(); return done })
	if len(order) != 4 || order[0] != 0 || order[1] != 1 || order[2] != 2 || order[3] != 5 || len(early) > 0 {
		t.Errorf("expired in order %v, early by %v", order, early)
	}
}

func posts(t *testing.T, w World) {
	l := w.Loop(0)
	var mu sync.Mutex
	var order []int
	w.Do(l, func() {
		for i := range 100 {
			l.Post(func() { mu.Lock(); order = append(order, i); mu.Unlock() })
		}
		if len(order) > 0 {
			t.Error("a post ran inside Post")
		}
	})
	until(t, w, "the posts", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) == 100 })
	for i, n := range order {
		if i != n {
			t.Fatalf("order: %v", order)
		}
	}
}

type flusher func()

func (f flusher) Flush() { f() }

func turnEnd(t *testing.T, w World) {
	client, server := pair(t, w)
	ender, ok := w.Loop(0).(loop.Ender)
	if !ok {
		t.Fatal("not an Ender")
	}
	flushed := 0
	w.Do(w.Loop(0), func() {
		ender.AtEnd(flusher(func() { flushed++; client.Call(func(c loop.Conn) { c.Write([]byte("collected")) }) }))
		if flushed > 0 {
			t.Error("Flush inside AtEnd")
		}
		b := ender.Buffers().Get(100)
		ender.Buffers().Put(b)
	})
	until(t, w, "what was written at the turn's end", server.has(9))
	if flushed != 1 {
		t.Errorf("flushed %d times", flushed)
	}
}

func writtenBeforeOpened(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnEOF = func() { server.Call(func(c loop.Conn) { c.Close() }) }
	addr := w.Listen(w.Loop(0), func(in loop.Incoming) {
		if !in.Remote().IsValid() || !in.Local().IsValid() || in.Wanted() != in.Local() {
			t.Errorf("remote %v, local %v, wanted %v", in.Remote(), in.Local(), in.Wanted())
		}
		in.Adopt(w.Loop(1), func(c loop.Conn) loop.Handler { server.conn = c; c.SetHandler(server); return nil })
	})
	w.Do(w.Loop(0), func() {
		c := w.Loop(0).Dial(loop.Dial{Address: addr}, client)
		client.conn = c
		c.Write([]byte("early"))
		c.Close()
	})
	until(t, w, "EOF at the server", server.sawEOF)
	until(t, w, "the client's Closed", client.isClosed)
	if string(server.got) != "early" || client.err != nil || client.opened > 0 {
		t.Errorf("server got %q; client ended with %v, opened %d times after Close", server.got, client.err, client.opened)
	}
}

func closedMethods(t *testing.T, w World) {
	client, server := &Peer{}, &Peer{}
	server.OnEOF = func() { server.Call(func(c loop.Conn) { c.Close() }) }
	connect(t, w, client, server)
	w.Do(w.Loop(0), func() { client.Call(func(c loop.Conn) { c.Close() }) })
	until(t, w, "both told", func() bool { return client.isClosed() && server.isClosed() })
	w.Do(w.Loop(0), func() {
		client.Call(func(c loop.Conn) {
			c.Write([]byte("x"))
			c.Pause()
			c.Resume()
			c.CloseWrite()
			c.Close()
			c.Reset()
			c.SetHandler(client)
			if c.Buffered() != 0 || !c.Remote().IsValid() || c.Loop() == nil {
				t.Error("a closed connection answers nonsense")
			}
		})
	})
}

func many(t *testing.T, w World) {
	var mu sync.Mutex
	var servers []*Peer
	addr := w.Listen(w.Loop(1), func(in loop.Incoming) {
		s := &Peer{}
		mu.Lock()
		servers = append(servers, s)
		mu.Unlock()
		s.OnData = func(p []byte) int { s.conn.Write(p); return len(p) }
		s.OnEOF = func() { s.conn.CloseWrite() }
		in.Adopt(w.Loop(len(servers)%2), func(c loop.Conn) loop.Handler { s.conn = c; return s })
	})
	const n = 100
	var clients []*Peer
	for range n {
		c := &Peer{}
		clients = append(clients, c)
		dial(w, addr, c)
		w.Do(w.Loop(0), func() { c.conn.Write(pattern(5000)); c.conn.CloseWrite() })
	}
	for _, c := range clients {
		until(t, w, "every client's end", c.isClosed)
		if !bytes.Equal(c.got, pattern(5000)) || c.err != nil {
			t.Fatalf("got %d bytes, ended with %v", len(c.got), c.err)
		}
		c.check(t)
	}
	until(t, w, "no load", func() bool { return w.Loop(0).Load() == 0 && w.Loop(1).Load() == 0 })
}
