package loop_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/loop/looptest"
)

// real is looptest.World on two Epolls and the loopback interface.
type real struct {
	t     *testing.T
	loops [2]*loop.Epoll
}

func newReal(t *testing.T) *real {
	w := &real{t: t}
	for i := range w.loops {
		w.loops[i] = start(t)
	}
	return w
}

func start(t testing.TB) *loop.Epoll {
	t.Helper()
	e, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go e.Run()
	t.Cleanup(e.Close)
	return e
}

func (w *real) Loop(i int) loop.Loop { return w.loops[i] }

func (w *real) Listen(l loop.Loop, accept func(loop.Incoming)) netip.AddrPort {
	fd, addr := listen(w.t, "127.0.0.1:0")
	ln, err := l.(*loop.Epoll).Listen(fd, accept)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(ln.Close)
	return addr
}

func (w *real) Nobody() netip.AddrPort {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func (w *real) Do(l loop.Loop, f func()) { do(l, f) }

func do(l loop.Loop, f func()) {
	done := make(chan struct{})
	if l.Post(func() { f(); close(done) }) {
		<-done
	}
}

func (w *real) Until(cond func() bool) bool {
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		met := false
		do(w.loops[0], func() { do(w.loops[1], func() { met = cond() }) })
		if met {
			return true
		}
	}
	return false
}

// listen answers a listening socket that stays open until the test ends.
func listen(t testing.TB, addr string) (int, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() { f.Close() })
	a := ln.Addr().(*net.TCPAddr).AddrPort()
	return int(f.Fd()), netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func TestContract(t *testing.T) {
	looptest.Run(t, func(t *testing.T) looptest.World { return newReal(t) })
}

// ends is a handler with nothing but Closed.
type ends struct {
	loop.Handler
	opened chan struct{}
	closed chan error
}

func newEnds() *ends { return &ends{opened: make(chan struct{}, 1), closed: make(chan error, 1)} }

func (e *ends) Opened()           { e.opened <- struct{}{} }
func (e *ends) Data(p []byte) int { return len(p) }
func (e *ends) EOF()              {}
func (e *ends) Writable()         {}
func (e *ends) Closed(err error)  { e.closed <- err }

func TestConnectTimeout(t *testing.T) {
	e := start(t)
	fd, addr := listen(t, "127.0.0.1:0")
	if err := unix.Listen(fd, 0); err != nil { // shrinks the queue to one
		t.Fatal(err)
	}
	var timedOut error
	for range 8 { // the first fill the queue, one after them gets no answer
		h := newEnds()
		do(e, func() { e.Dial(loop.Dial{Address: addr, Timeout: 100 * time.Millisecond}, h) })
		select {
		case timedOut = <-h.closed:
		case <-h.opened:
			continue
		}
		break
	}
	if timedOut != loop.ErrConnectTimeout {
		t.Errorf("ended with %v", timedOut)
	}
}

func TestSource(t *testing.T) {
	w := newReal(t)
	for _, c := range []struct{ source, want string }{{"127.0.0.77", "127.0.0.77"}, {"203.0.113.9", "127.0.0.1"}} {
		remote := make(chan netip.AddrPort, 1)
		addr := w.Listen(w.loops[0], func(in loop.Incoming) { remote <- in.Remote(); in.Refuse() })
		h := newEnds()
		do(w.loops[0], func() {
			w.loops[0].Dial(loop.Dial{Address: addr, Source: netip.MustParseAddr(c.source)}, h)
		})
		<-h.closed
		if got := <-remote; got.Addr().String() != c.want {
			t.Errorf("source %s: connection came from %v", c.source, got)
		}
	}
}

func TestIPv6AndMapped(t *testing.T) {
	e := start(t)
	fd, addr := listen(t, "[::]:0")
	remotes := make(chan netip.AddrPort, 2)
	ln, err := e.Listen(fd, func(in loop.Incoming) {
		if in.Wanted() != in.Local() {
			t.Errorf("wanted %v, local %v", in.Wanted(), in.Local())
		}
		remotes <- in.Remote()
		in.Refuse()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, a := range []string{"::1", "127.0.0.1", "::ffff:127.0.0.1"} {
		h := newEnds()
		do(e, func() { e.Dial(loop.Dial{Address: netip.AddrPortFrom(netip.MustParseAddr(a), addr.Port())}, h) })
		<-h.closed
		if got, want := (<-remotes).Addr(), netip.MustParseAddr(a).Unmap(); got != want {
			t.Errorf("%s: connection came from %v", a, got)
		}
	}
}

func TestAdoptUnixSocket(t *testing.T) {
	e := start(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := newEnds()
	do(e, func() {
		e.Adopt(fds[0], func(c loop.Conn) loop.Handler { c.Write([]byte("hello")); c.Close(); return h })
	})
	buf := make([]byte, 10)
	n, err := unix.Read(fds[1], buf)
	if err != nil || string(buf[:n]) != "hello" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if err := <-h.closed; err != nil {
		t.Error(err)
	}
	unix.Close(fds[1])
}

// TestCloseTellsEveryone: the loop's end is told to every handler, and nothing is accepted after it.
func TestCloseTellsEveryone(t *testing.T) {
	e := start(t)
	fd, addr := listen(t, "127.0.0.1:0")
	server := newEnds()
	if _, err := e.Listen(fd, func(in loop.Incoming) {
		in.Adopt(e, func(loop.Conn) loop.Handler { return server })
	}); err != nil {
		t.Fatal(err)
	}
	client := newEnds()
	do(e, func() { e.Dial(loop.Dial{Address: addr}, client) })
	<-client.opened
	<-server.opened
	e.Close()
	if a, b := <-client.closed, <-server.closed; a != loop.ErrLoopEnded || b != loop.ErrLoopEnded {
		t.Errorf("ended with %v and %v", a, b)
	}
	if e.Post(func() {}) {
		t.Error("Post after the end says true")
	}
	e.Close()
}

// TestListenerHandedOver: connections that wait in the queue while nobody accepts are not lost.
func TestListenerHandedOver(t *testing.T) {
	a, b := start(t), start(t)
	fd, addr := listen(t, "127.0.0.1:0")
	accepted := make(chan string, 10)
	on := func(name string) func(loop.Incoming) {
		return func(in loop.Incoming) {
			t.Cleanup(in.Refuse) // at once, a quick RST would fail the Dial
			accepted <- name
		}
	}
	first, err := a.Listen(fd, on("a"))
	if err != nil {
		t.Fatal(err)
	}
	dial := func() {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	dial()
	if got := <-accepted; got != "a" {
		t.Fatal(got)
	}
	first.Close()
	dial() // stays in the queue
	second, err := b.Listen(fd, on("b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-accepted; got != "b" {
		t.Errorf("accepted by %s", got)
	}
	do(b, second.Pause)
	dial()
	do(b, func() {})
	if len(accepted) > 0 {
		t.Error("accepted while paused")
	}
	do(b, second.Resume)
	if got := <-accepted; got != "b" {
		t.Errorf("accepted by %s", got)
	}
	second.Close()
	if _, err := a.Listen(0, on("x")); err == nil {
		t.Error("listening on something that does not listen")
	}
}

// TestEnded: the kernel knows of the peer's end while the loop is busy with something else.
func TestEnded(t *testing.T) {
	e := start(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := &looptest.Peer{}
	var c loop.Conn
	do(e, func() { c = e.Dial(loop.Dial{Address: ln.Addr().(*net.TCPAddr).AddrPort()}, p) })
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for open := false; !open; {
		do(e, func() { open = c.Local().IsValid() })
	}
	ended := func() bool { return c.(interface{ Ended() bool }).Ended() }
	do(e, func() {
		if ended() {
			t.Error("a connection at rest has ended")
		}
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
		for deadline := time.Now().Add(5 * time.Second); !ended(); { // the loop stands still
			if time.Now().After(deadline) {
				t.Error("the end is not seen")
				return
			}
		}
	})
}
