package pool_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/pool"
)

// tracked is a listener that can hang up on everybody.
type tracked struct {
	net.Listener
	mu     sync.Mutex
	conns  []net.Conn
	opened int
}

func (l *tracked) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.opened++
		l.mu.Unlock()
	}
	return c, err
}

func (l *tracked) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *tracked) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}

func serve(t *testing.T, s *http.Server) (*tracked, *pool.Target) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &tracked{Listener: ln}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l, &pool.Target{Kind: pool.HTTP1, Address: address(t, ln.Addr().String())}
}

// rest lets some time pass.
func (b *bench) rest(d time.Duration) {
	var at time.Duration
	b.do(func() { at = b.loop.Now() })
	b.until("some time", func() bool { return b.loop.Now() > at+d })
}

// once makes a request and answers when it is done.
func (b *bench) once(t *pool.Target, careful bool) {
	b.t.Helper()
	u := newUser()
	u.wait.Careful = careful
	b.do(func() { u.get(b.pool, t) })
	b.until("the response", func() bool { return u.ended })
	if u.status != 200 {
		b.t.Errorf("%+v", u)
	}
}

// TestHangingUp: an HTTP/2 server that was seen to hang up without GOAWAY gets no request on a connection that has rested for
// as long.
func TestHangingUp(t *testing.T) {
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Protocols: &http.Protocols{}}
	s.Protocols.SetUnencryptedHTTP2(true)
	l, target := serve(t, s)
	target.Kind = pool.H2C
	b := newBench(t, pool.Config{})
	b.once(target, true)
	b.rest(300 * time.Millisecond)
	b.once(target, true)
	if n := l.count(); n != 1 {
		t.Fatalf("%d connections before it has hung up", n)
	}
	b.rest(100 * time.Millisecond)
	l.hangUp()
	b.until("the connection gone", func() bool { return b.pool.Conns() == 0 })
	b.once(target, true)
	b.rest(600 * time.Millisecond)
	b.once(target, true)
	if n := l.count(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// TestCareful: a request that cannot be sent again gets no connection that has rested for half a second, another does; and
// what the server says in Keep-Alive is believed.
func TestCareful(t *testing.T) {
	l, target := serve(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	b := newBench(t, pool.Config{})
	opened := func(want int, careful bool) {
		t.Helper()
		b.once(target, careful)
		if n := l.count(); n != want {
			t.Errorf("%d connections, want %d", n, want)
		}
	}
	opened(1, true)
	b.rest(20 * time.Millisecond)
	opened(1, true)
	b.rest(600 * time.Millisecond)
	opened(1, false)
	b.rest(600 * time.Millisecond)
	opened(2, true)
	l, target = serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Keep-Alive", "timeout=2") })})
	opened(1, true)
	b.rest(700 * time.Millisecond)
	opened(1, true)
	b.rest(1700 * time.Millisecond)
	opened(2, false)
}

// TestRoomForTheCareful: where a cluster may have no more connections, an old one makes room for who can use none of them.
func TestRoomForTheCareful(t *testing.T) {
	l, target := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})})
	b := newBench(t, pool.Config{MaxConns: 1})
	b.once(target, true)
	b.rest(600 * time.Millisecond)
	b.once(target, true)
	if n := l.count(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestServedOut: a server that hangs up after every third response is not asked a fourth time on one connection.
func TestServedOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1000)
			for range 3 {
				if _, err := c.Read(buf); err != nil {
					break
				}
				_, _ = io.Copy(c, strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			}
			c.Close()
		}
	}()
	target := &pool.Target{Kind: pool.HTTP1, Address: address(t, ln.Addr().String())}
	b := newBench(t, pool.Config{})
	for range 3 {
		for range 3 {
			b.once(target, true)
		}
		b.until("the end", func() bool { return b.pool.Conns() == 0 })
		b.rest(60 * time.Millisecond)
	}
	for range 3 {
		b.once(target, true)
	}
	b.do(func() {
		u := newUser()
		if c, f := b.pool.Get(target, 0, &u.wait); c != nil || f != nil {
			t.Errorf("a connection at once, which has had three: %v %v", c, f)
		}
		b.pool.Leave(&u.wait)
	})
}

// TestUnneeded: a connection that was made for somebody who has left, and that had no request, is ended when asked; one that
// had one stays.
func TestUnneeded(t *testing.T) {
	_, target := serve(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	b := newBench(t, pool.Config{})
	u := newUser()
	b.do(func() {
		u.get(b.pool, target)
		b.pool.Leave(&u.wait)
	})
	b.until("a connection that waits", func() bool {
		c, _ := b.pool.Get(target, 0, &u.wait)
		b.pool.Leave(&u.wait)
		if c != nil {
			b.pool.Unused(target, c)
		}
		return c != nil
	})
	b.do(func() { b.pool.Unneeded() })
	b.until("nothing left", func() bool { return b.pool.Conns() == 0 })
	b.once(target, true)
	b.do(func() {
		b.pool.Unneeded()
		if n := b.pool.Conns(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}
