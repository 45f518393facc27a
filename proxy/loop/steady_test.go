package loop_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/steady"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// twin is one end of a relay: what it gets, the other end writes.
type twin struct {
	conn  loop.Conn
	other *twin
}

func (r *twin) Opened() {}
func (r *twin) Data(p []byte) int {
	r.other.conn.Write(p)
	if r.other.conn.Buffered() > loop.HighWater {
		r.conn.Pause()
	}
	return len(p)
}
func (r *twin) EOF()         { r.other.conn.CloseWrite() }
func (r *twin) Writable()    { r.other.conn.Resume() }
func (r *twin) Closed(error) { r.other.conn.Close() }

// relay relays every connection to its own address to backend, and answers that address.
func relay(t testing.TB, e *loop.Epoll, backend netip.AddrPort) netip.AddrPort {
	t.Helper()
	fd, addr := listen(t, "127.0.0.1:0")
	ln, err := e.Listen(fd, func(in loop.Incoming) {
		in.Adopt(e, func(c loop.Conn) loop.Handler {
			down := &twin{conn: c}
			up := &twin{other: down}
			down.other = up
			up.conn = e.Dial(loop.Dial{Address: backend}, up)
			return down
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ln.Close)
	return addr
}

// echoes is a handler that writes what it gets.
type echoes struct {
	loop.Handler
	conn loop.Conn
}

func (e *echoes) Opened()           {}
func (e *echoes) Data(p []byte) int { e.conn.Write(p); return len(p) }
func (e *echoes) EOF()              { e.conn.CloseWrite() }
func (e *echoes) Writable()         {}
func (e *echoes) Closed(error)      {}

func echoServer(t testing.TB, e *loop.Epoll) netip.AddrPort {
	t.Helper()
	fd, addr := listen(t, "127.0.0.1:0")
	ln, err := e.Listen(fd, func(in loop.Incoming) {
		in.Adopt(e, func(c loop.Conn) loop.Handler { return &echoes{conn: c} })
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ln.Close)
	return addr
}

// TestSteadyStateAllocatesNothing: requests through two loops, one relaying to the other.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	addr := relay(t, start(t), echoServer(t, start(t)))
	for _, size := range []int{100, 5000, 100_000} {
		fd := blockingSocket(t, addr)
		msg, buf := bytes.Repeat([]byte{7}, size), make([]byte, size)
		round := func() {
			if _, err := unix.Write(fd, msg); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < size; {
				k, err := unix.Read(fd, buf[n:])
				if err != nil || k == 0 {
					t.Fatal("read", k, err)
				}
				n += k
			}
		}
		for range 200 {
			round()
		}
		const enough = 20
		if n := steady.Allocations(enough, func() {
			for range 1000 {
				round()
			}
		}); n > enough {
			t.Errorf("%d bytes: %d allocations in 1000 rounds", size, n)
		}
		unix.Close(fd)
	}
}

func blockingSocket(t testing.TB, addr netip.AddrPort) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestFair: a connection that never stops sending does not keep another from being served.
func TestFair(t *testing.T) {
	e := start(t)
	addr := echoServer(t, e)
	greedy, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	go func() { _, _ = io.Copy(io.Discard, greedy) }()
	go func() {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := greedy.Write(chunk); err != nil {
				return
			}
		}
	}()
	other, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_ = other.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4)
	for range 200 {
		if _, err := other.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(other, buf); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkRelay measures one relayed request of 100 bytes and its answer over 32 connections. The loops of the
// relay and of the backend and the clients are one process here: compare its cpu-µs with the same run's
// BenchmarkDirect, which has no relay in between.
func BenchmarkRelay(b *testing.B) {
	benchmark(b, relay(b, start(b), echoServer(b, start(b))))
}

func BenchmarkDirect(b *testing.B) { benchmark(b, echoServer(b, start(b))) }

func benchmark(b *testing.B, addr netip.AddrPort) {
	const conns = 32
	load := start(b)
	done := make(chan struct{})
	left := b.N
	before := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	load.Post(func() {
		for range conns {
			c := &asker{left: &left, done: done, msg: make([]byte, 100)}
			c.conn = load.Dial(loop.Dial{Address: addr}, c)
		}
	})
	<-done
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// asker sends, waits for the same amount, and sends again.
type asker struct {
	loop.Handler
	conn loop.Conn
	left *int
	done chan struct{}
	msg  []byte
	got  int
}

func (a *asker) Opened() { a.conn.Write(a.msg) }
func (a *asker) Data(p []byte) int {
	for a.got += len(p); a.got >= len(a.msg); a.got -= len(a.msg) {
		if *a.left--; *a.left == 0 {
			close(a.done)
		}
		if *a.left > 0 {
			a.conn.Write(a.msg)
		}
	}
	return len(p)
}
func (a *asker) EOF()         {}
func (a *asker) Writable()    {}
func (a *asker) Closed(error) {}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestIdleHoldsNothing: connections that have carried much and are idle hold no buffers.
func TestIdleHoldsNothing(t *testing.T) {
	e := start(t)
	addr := echoServer(t, e)
	const n = 200
	for range n {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { _, _ = c.Write(make([]byte, 300_000)) }()
		if _, err := io.ReadFull(c, make([]byte, 300_000)); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	do(e, func() { e.Buffers().Trim(); kept = e.Buffers().Kept() })
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if per := int(m.HeapAlloc) / n; per > 16<<10 {
		t.Errorf("%d bytes of heap per idle connection, both ends; %d kept", per, kept)
	}
}
