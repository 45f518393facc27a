package pool_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// bench is a pool on a real loop.
type bench struct {
	t    *testing.T
	loop *loop.Epoll
	pool *pool.Pool
}

func newBench(t *testing.T, cfg pool.Config) *bench {
	l, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	t.Cleanup(l.Close)
	cfg.Loop = l
	cfg.Mesh = func(d *pool.Target, timeout time.Duration, h loop.Handler) loop.Conn {
		return l.Dial(loop.Dial{Address: d.Address, Timeout: timeout}, h)
	}
	b := &bench{t: t, loop: l}
	b.do(func() { b.pool = pool.New(cfg) })
	return b
}

func (b *bench) do(f func()) {
	done := make(chan struct{})
	if b.loop.Post(func() { f(); close(done) }) {
		<-done
	}
}

func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for met := false; !met; {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited 10 s for: %s", what)
		}
		b.do(func() { met = cond() })
	}
}

// user asks for a connection and opens a GET on it.
type user struct {
	wait   pool.Waiter
	stream upstream.Stream
	status int
	ended  bool
	failed failure.Reason
}

func newUser() *user {
	u := &user{}
	u.wait.Owner = u
	return u
}

func (u *user) get(p *pool.Pool, t *pool.Target) {
	c, f := p.Get(t, 0, &u.wait)
	switch {
	case f != nil:
		u.failed = f.Reason
	case c != nil:
		u.Connected(c)
	}
}

func (u *user) Connected(c upstream.Conn) {
	h := &message.Head{Method: []byte("GET"), Target: []byte("/"), Authority: []byte("a"), Scheme: []byte("http"), ContentLength: message.NoLength}
	s, err := c.Open(h, true, u)
	if err != nil {
		u.failed = failure.Internal
		return
	}
	u.stream = s
}

func (u *user) Unconnected(f *failure.Failure) { u.failed = f.Reason }

func (u *user) Head(h *message.Head, end bool) {
	u.status = h.Status
	u.end(end)
}
func (u *user) Data(p []byte, end bool)          { u.end(end) }
func (u *user) Trailers(*message.Head)           { u.end(true) }
func (u *user) Failed(r failure.Reason, _ error) { u.failed = r; u.end(true) }
func (u *user) Writable()                        {}
func (u *user) end(end bool) {
	if end && !u.ended {
		u.ended = true
		u.stream.Done()
	}
}

func address(t *testing.T, s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestReuse(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer srv.Close()
	b := newBench(t, pool.Config{})
	target := pool.Target{Kind: pool.HTTP1, Address: address(t, srv.Listener.Addr().String())}
	for range 10 {
		u := newUser()
		b.do(func() { u.get(b.pool, &target) })
		b.until("the response", func() bool { return u.ended })
		if u.status != 200 {
			t.Fatalf("%+v", u)
		}
	}
	b.do(func() {
		if n := b.pool.Conns(); n != 1 {
			t.Errorf("%d connections for requests one after another", n)
		}
	})
	srv.CloseClientConnections()
	b.until("the idle connection gone", func() bool { return b.pool.Conns() == 0 })
}

// TestPatience: a connection that the program may be about to close is not used again, but watched.
func TestPatience(t *testing.T) {
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	b := newBench(t, pool.Config{Shared: upstream.Shared{Patience: time.Second}})
	target := pool.Target{Kind: pool.HTTP1, Address: address(t, srv.Listener.Addr().String())}
	for _, wait := range []time.Duration{0, 20 * time.Millisecond, 1100 * time.Millisecond} {
		var at time.Duration
		b.do(func() { at = b.loop.Now() })
		b.until("some time", func() bool { return b.loop.Now() > at+wait })
		u := newUser()
		b.do(func() { u.get(b.pool, &target) })
		b.until("the response", func() bool { return u.ended })
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	b.do(func() {
		if n := b.pool.Conns(); n != 2 {
			t.Errorf("%d connections stand", n)
		}
	})
	srv.CloseClientConnections()
	b.until("both gone", func() bool { return b.pool.Conns() == 0 })
}

func TestBounds(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer srv.Close()
	b := newBench(t, pool.Config{MaxConns: 2, MaxWaiters: 3, MaxIdle: 1})
	target := pool.Target{Kind: pool.HTTP1, Address: address(t, srv.Listener.Addr().String())}
	users := make([]*user, 6)
	for i := range users {
		users[i] = newUser()
		b.do(func() { users[i].get(b.pool, &target) })
		if i < 2 {
			b.until("a request on its way", func() bool { return users[i].stream != nil })
		}
	}
	if users[5].failed != failure.Overload {
		t.Errorf("the sixth: %+v", users[5])
	}
	b.do(func() {
		if n := b.pool.Conns(); n != 2 {
			t.Errorf("%d connections", n)
		}
		b.pool.Leave(&users[3].wait)
	})
	close(release)
	for _, i := range []int{0, 1, 2, 4} {
		b.until("a response", func() bool { return users[i].ended })
	}
	if users[3].stream != nil {
		t.Error("who left was served")
	}
	b.until("one idle connection", func() bool { return b.pool.Conns() == 1 })
}

func TestIdleTimeout(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer srv.Close()
	b := newBench(t, pool.Config{IdleTimeout: 50 * time.Millisecond})
	target := pool.Target{Kind: pool.HTTP1, Address: address(t, srv.Listener.Addr().String())}
	u := newUser()
	b.do(func() { u.get(b.pool, &target) })
	b.until("the response", func() bool { return u.ended })
	b.until("the end of the idle connection", func() bool { return b.pool.Conns() == 0 })
}

func TestUnconnected(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := address(t, ln.Addr().String())
	ln.Close()
	for _, kind := range []pool.Kind{pool.HTTP1, pool.H2C, pool.Mesh} {
		b := newBench(t, pool.Config{})
		target := pool.Target{Kind: kind, Address: a}
		one, two := newUser(), newUser()
		b.do(func() { one.get(b.pool, &target); two.get(b.pool, &target) })
		b.until("both failures", func() bool {
			return one.failed == failure.ConnectFailed && two.failed == failure.ConnectFailed
		})
		b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
	}
}

// taker is the handler of a blank connection that somebody took.
type taker struct {
	c      loop.Conn
	closed bool
}

func (t *taker) Opened()           {}
func (t *taker) Data(p []byte) int { return len(p) }
func (t *taker) EOF()              {}
func (t *taker) Writable()         {}
func (t *taker) Closed(error)      { t.closed = true }

func TestBlank(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	b := newBench(t, pool.Config{SpareTimeout: 100 * time.Millisecond})
	target := pool.Target{Kind: pool.Mesh, Address: address(t, ln.Addr().String())}
	var k taker
	ready := func(c loop.Conn, f *failure.Failure) {
		if f != nil {
			t.Error(f)
			return
		}
		k.c = c
		c.SetHandler(&k)
	}
	b.do(func() { b.pool.Blank(&target, time.Second, ready) })
	b.until("a blank", func() bool { return k.c != nil })
	first := k.c
	b.do(func() {
		k.c = nil
		b.pool.Return(&target, first)
		b.pool.Blank(&target, time.Second, ready) // the spare, at once
		if k.c != first {
			t.Error("the spare was not taken")
		}
		if n := b.pool.Conns(); n != 0 {
			t.Errorf("%d connections after the last was taken", n)
		}
		b.pool.Return(&target, first)
	})
	peer := <-accepted
	_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the spare did not end by itself: %d %v", n, err)
	}
	b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
	// One that is not wanted any more becomes the spare.
	called := false
	b.do(func() { b.pool.Blank(&target, time.Second, func(loop.Conn, *failure.Failure) { called = true })() })
	b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
	if called {
		t.Error("ready was called after cancel")
	}
}

// A target that is given up while a connection to it is being made still serves who waits for that.
func TestRetireWhileDialing(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer srv.Close()
	b := newBench(t, pool.Config{})
	target := pool.Target{Kind: pool.HTTP1, Address: address(t, srv.Listener.Addr().String())}
	u := newUser()
	b.do(func() {
		u.get(b.pool, &target)
		b.pool.Retire(func(*pool.Target) bool { return true })
	})
	b.until("an answer", func() bool { return u.ended || u.failed != failure.None })
	if u.status != 200 {
		t.Errorf("%+v", u)
	}
	b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
}

// A kernel accepts connections for a program that hangs: who waits for HTTP/2 with it is told in time.
func TestSilentH2C(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b := newBench(t, pool.Config{ConnectTimeout: 100 * time.Millisecond})
	target := pool.Target{Kind: pool.H2C, Address: address(t, ln.Addr().String())}
	u := newUser()
	b.do(func() { u.get(b.pool, &target) })
	b.until("a failure", func() bool { return u.failed == failure.ConnectTimeout })
	b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
}
