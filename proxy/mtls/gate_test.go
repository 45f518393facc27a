package mtls_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// gated is a server behind gate; what becomes of its connections is told to opened and closed.
type gated struct {
	loop   *loop.Epoll
	addr   string
	opened chan struct{}
	closed chan error
}

func serveGated(t testing.TB, gate *mtls.Handshakes, cfg *tls.Config) *gated {
	t.Helper()
	g := &gated{loop: start(t), opened: make(chan struct{}, 20_000), closed: make(chan error, 20_000)}
	g.addr = listen(t, g.loop, func(in loop.Incoming) {
		in.Adopt(g.loop, func(raw loop.Conn) loop.Handler {
			s := &gatedSide{g: g}
			s.conn = gate.Server(raw, cfg, s)
			return nil
		})
	}).String()
	return g
}

type gatedSide struct {
	g    *gated
	conn *mtls.Conn
}

func (s *gatedSide) Opened()           { s.g.opened <- struct{}{} }
func (s *gatedSide) Data(p []byte) int { s.conn.Write(p); return len(p) }
func (s *gatedSide) EOF()              { s.conn.CloseWrite() }
func (s *gatedSide) Writable()         {}
func (s *gatedSide) Closed(err error)  { s.g.closed <- err }

// hello makes a ClientHello that cfg would send.
func hello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, cfg).Handshake()
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func dialed(t testing.TB, addr string, say []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(say); err != nil {
		t.Fatal(err)
	}
	return c
}

// poll waits until cond holds.
func poll(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); { // poll
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
		runtime.Gosched()
	}
}

// TestSilence: a client that says nothing, or not enough, has no goroutine and no place, and is given up in time.
func TestSilence(t *testing.T) {
	ca := newAuthority(t)
	gate := &mtls.Handshakes{Max: 1, Open: 1, Queue: 1, Timeout: 300 * time.Millisecond}
	g := serveGated(t, gate, mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{}))
	cfg := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	before := runtime.NumGoroutine()
	part := hello(t, cfg)
	for i := range 50 {
		dialed(t, g.addr, part[:(len(part)-1)*i/49])
	}
	poll(t, "50 connections", func() bool { return g.loop.Load() == 50 })
	if n := runtime.NumGoroutine() - before; n > 5 {
		t.Errorf("%d goroutines for 50 silent clients", n)
	}
	c, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		t.Fatalf("silent clients keep another out: %v", err)
	}
	c.Close()
	late := 0
	for range 51 {
		if err := <-g.closed; errors.Is(err, mtls.ErrHandshakeTimeout) {
			late++
		}
	}
	if late != 50 || gate.Stats().Late != 50 {
		t.Errorf("%d of 50 silent clients were given up at their timeout, %d counted", late, gate.Stats().Late)
	}
}

// TestBounds: of clients that send a ClientHello and nothing more, Open begin, Queue wait, and the others are refused.
func TestBounds(t *testing.T) {
	ca := newAuthority(t)
	gate := &mtls.Handshakes{Max: 1, Open: 3, Queue: 2, Timeout: time.Second, Patience: time.Hour}
	g := serveGated(t, gate, mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{}))
	cfg := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	say := hello(t, cfg)
	for range 3 {
		dialed(t, g.addr, say)
	}
	poll(t, "three that have begun", func() bool { s := gate.Stats(); return s.Open == 3 && s.Computing == 0 })
	for range 9 {
		dialed(t, g.addr, say)
	}
	busy, late := 0, 0
	for range 12 {
		switch err := <-g.closed; {
		case errors.Is(err, mtls.ErrBusy):
			busy++
		case errors.Is(err, mtls.ErrHandshakeTimeout):
			late++
		default:
			t.Errorf("ended with %v", err)
		}
	}
	if busy != 7 || late != 5 { // three began, two waited
		t.Errorf("%d refused, %d given up in time", busy, late)
	}
	if s := gate.Stats(); s.Refused != 7 {
		t.Errorf("%+v", s)
	}
	poll(t, "all to leave", func() bool { return gate.Stats().Open == 0 })
	s := newSide("")
	do(g.loop, func() { // both ends with room for one to compute: each makes room while it waits for the other
		s.conn = gate.Dial(g.loop, loop.Dial{Address: ap(t, g.addr)}, cfg, s)
	})
	select {
	case <-s.opened:
	case err := <-s.closed:
		t.Error(err)
	}
}

// TestEviction: a client that stalls for a while gives its place to one that does not.
func TestEviction(t *testing.T) {
	ca := newAuthority(t)
	gate := &mtls.Handshakes{Open: 2, Timeout: time.Minute}
	g := serveGated(t, gate, mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{}))
	cfg := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	say := hello(t, cfg)
	for range 2 {
		dialed(t, g.addr, say)
	}
	poll(t, "two that stall", func() bool { s := gate.Stats(); return s.Open == 2 && s.Computing == 0 })
	c, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if s := gate.Stats(); s.Evicted != 1 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

// TestGateIsEmptyAgain: whatever clients do, places come back.
func TestGateIsEmptyAgain(t *testing.T) {
	ca := newAuthority(t)
	gate := &mtls.Handshakes{Max: 2, Open: 4, Queue: 8, Patience: time.Millisecond, Timeout: 50 * time.Millisecond}
	g := serveGated(t, gate, mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{}))
	cfg := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	say := hello(t, cfg)
	const n = 400
	done := make(chan struct{}, n)
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			switch i % 4 {
			case 0:
				if c, err := tls.Dial("tcp", g.addr, cfg); err == nil {
					c.Close()
				}
			case 1:
				if c, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{mtls.ALPN}}); err == nil {
					_, _ = c.Read(make([]byte, 1)) // refused: it has no certificate
					c.Close()
				}
			default:
				c, err := net.Dial("tcp", g.addr)
				if err != nil {
					return
				}
				if i%8 == 2 {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				_, _ = c.Write(say[:len(say)*(i%3+1)/3])
				if i%16 == 3 {
					_, _ = c.Read(make([]byte, 1)) // until the server has had enough
				}
				c.Close()
			}
		}()
	}
	for range n {
		<-done
	}
	poll(t, "an empty gate", func() bool {
		s := gate.Stats()
		return s.Computing == 0 && s.Open == 0 && s.Queued == 0
	})
	poll(t, "one that is served in time", func() bool {
		c, err := tls.Dial("tcp", g.addr, cfg)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	t.Logf("%+v", gate.Stats())
}

// TestFlood: thousands that stall with and without a ClientHello, and others that complete, at once. Memory and
// goroutines are bounded, and a connection that stands is served all the while.
func TestFlood(t *testing.T) {
	const stalling, complete = 5000, 600
	ca := newAuthority(t)
	gate := &mtls.Handshakes{Timeout: 15 * time.Second}
	g := serveGated(t, gate, mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{}))
	cfg := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	old, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	ping := func() {
		_ = old.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := old.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(old, make([]byte, 4)); err != nil {
			t.Fatalf("the connection that stands is not served: %v", err)
		}
	}
	ping()
	say := hello(t, cfg)
	goroutines, used := runtime.NumGoroutine(), heap()
	for i := range stalling {
		c := dialed(t, g.addr, say[:len(say)*(i%2)])
		if i%100 == 0 {
			ping()
		}
		_ = c
	}
	if n := runtime.NumGoroutine() - goroutines; n > 1024+50 {
		t.Errorf("%d goroutines", n)
	}
	per := (heap() - used) / stalling
	t.Logf("%d KB per stalling client, %d goroutines, %+v", per>>10, runtime.NumGoroutine()-goroutines, gate.Stats())
	if per > 40<<10 {
		t.Errorf("%d bytes per stalling client, both ends", per)
	}
	done := make(chan int, complete)
	for range 8 {
		go func() {
			for range complete / 8 {
				tries := 1
				for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); tries++ { // poll
					if c, err := tls.Dial("tcp", g.addr, cfg); err == nil {
						c.Close()
						break
					}
				}
				done <- tries
			}
		}()
	}
	refused, worst := 0, time.Duration(0)
	for range complete {
		refused += <-done - 1
		at := time.Now()
		ping()
		worst = max(worst, time.Since(at))
	}
	t.Logf("%d clients were served after %d refusals; the slowest answer on the old connection took %v; %+v", complete, refused, worst, gate.Stats())
	poll(t, "all that complete", func() bool { return len(g.opened) == complete+1 })
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

func ap(t testing.TB, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
