package loop_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// carrier is one end of a relay that splices after its first bytes.
type carrier struct {
	conn   loop.Conn
	other  *carrier
	world  *carried
	asked  bool
	eof    bool
	closed bool
}

// carried counts what a relay of carriers has seen.
type carried struct {
	splice        bool
	copied, moved atomic.Int64
	over          chan struct{}
}

func (c *carrier) Opened() {}
func (c *carrier) Data(p []byte) int {
	c.world.copied.Add(int64(len(p)))
	c.other.conn.Write(p)
	if c.other.conn.Buffered() > loop.HighWater {
		c.conn.Pause()
	}
	if !c.asked && c.world.splice {
		c.asked = true
		c.conn.(loop.Splicer).SpliceTo(c.other.conn)
	}
	return len(p)
}
func (c *carrier) Moved(n int) { c.world.moved.Add(int64(n)) }
func (c *carrier) EOF()        { c.eof = true; c.other.conn.CloseWrite() }
func (c *carrier) Writable()   { c.other.conn.Resume() }
func (c *carrier) Closed(err error) {
	c.closed = true
	switch {
	case c.other.closed:
		c.world.over <- struct{}{}
	case err != nil:
		c.other.conn.Reset()
	case !c.eof || !c.other.eof:
		c.other.conn.Close()
	}
}

// carrying relays every connection to the answered address to backend.
func carrying(t testing.TB, e *loop.Epoll, backend netip.AddrPort, splice bool) (*carried, netip.AddrPort) {
	t.Helper()
	w := &carried{splice: splice, over: make(chan struct{}, 1000)}
	fd, addr := listen(t, "127.0.0.1:0")
	ln, err := e.Listen(fd, func(in loop.Incoming) {
		in.Adopt(e, func(c loop.Conn) loop.Handler {
			down := &carrier{conn: c, world: w}
			up := &carrier{other: down, world: w}
			down.other = up
			c.Pause()
			up.conn = e.Dial(loop.Dial{Address: backend}, &ready{carrier: up, down: c})
			return down
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ln.Close)
	return w, addr
}

// ready begins the relay when the backend is reached.
type ready struct {
	*carrier
	down loop.Conn
}

func (r *ready) Opened() {
	r.conn.SetHandler(r.carrier)
	r.down.Resume()
}

// tcpServer gives every connection to serve.
func tcpServer(t testing.TB, serve func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// digest reads r to its end, now and then slowly, and answers what it was.
func digest(r io.Reader) string {
	h, n := sha256.New(), 0
	buf := make([]byte, 300_000)
	for {
		k, err := r.Read(buf[:1+rand.IntN(len(buf))])
		h.Write(buf[:k])
		if n += k; err != nil {
			return fmt.Sprintf("%d %x %v", n, h.Sum(nil), errors.Is(err, io.EOF))
		}
	}
}

// pour writes n random bytes in random pieces, ends the direction, and answers what digest will see.
func pour(c *net.TCPConn, n int) string {
	var h hash.Hash = sha256.New()
	src := rand.NewChaCha8([32]byte{byte(n)})
	buf := make([]byte, 300_000)
	for left := n; left > 0; {
		k := min(left, 1+rand.IntN(len(buf)))
		_, _ = src.Read(buf[:k])
		h.Write(buf[:k])
		if _, err := c.Write(buf[:k]); err != nil {
			return err.Error()
		}
		left -= k
	}
	_ = c.CloseWrite()
	return fmt.Sprintf("%d %x true", n, h.Sum(nil))
}

func dialTCP(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// bothWays has n bytes go each way at once, and compares.
func bothWays(t *testing.T, e *loop.Epoll, splice bool, n int) *carried {
	t.Helper()
	type end struct{ sent, got string }
	server := make(chan end, 1)
	backend := tcpServer(t, func(c *net.TCPConn) {
		sent := make(chan string, 1)
		go func() { sent <- pour(c, n+1) }()
		got := digest(c)
		server <- end{<-sent, got}
		c.Close()
	})
	w, addr := carrying(t, e, backend, splice)
	c := dialTCP(t, addr)
	sent := make(chan string, 1)
	go func() { sent <- pour(c, n) }()
	got := digest(c)
	s := <-server
	if want := <-sent; s.got != want || got != s.sent {
		t.Errorf("the server got %s, want %s; the client got %s, want %s", s.got, want, got, s.sent)
	}
	<-w.over
	if sum := w.copied.Load() + w.moved.Load(); sum != int64(2*n+1) {
		t.Errorf("%d copied and %d moved of %d", w.copied.Load(), w.moved.Load(), 2*n+1)
	}
	return w
}

func TestSplice(t *testing.T) {
	for _, n := range []int{1, 1000, 100_000, 50 << 20} {
		e := start(t)
		w := bothWays(t, e, true, n)
		if n > 1<<20 && w.moved.Load() < int64(n) {
			t.Errorf("%d of %d bytes were carried", w.moved.Load(), 2*n)
		}
		noPipes(t, e)
	}
}

// noPipes: no pipe is in use, and few are kept.
func noPipes(t *testing.T, e *loop.Epoll) {
	t.Helper()
	made, free := 0, 0
	do(e, func() { made, free = e.Pipes() })
	if made != free || free > 16 {
		t.Errorf("%d pipes are open, %d of them free", made, free)
	}
}

// TestSpliceFails: where the kernel cannot, on either side of the pipe and at any time, bytes go the usual way.
func TestSpliceFails(t *testing.T) {
	for _, after := range []int64{0, 1, 2, 3, 10, 101} {
		e := start(t)
		var calls atomic.Int64
		e.SetSplice(func(from, to, n int, real func(from, to, n int) (int, syscall.Errno)) (int, syscall.Errno) {
			if calls.Add(1) > after {
				return 0, unix.EINVAL
			}
			return real(from, to, n)
		})
		bothWays(t, e, true, 5<<20)
		noPipes(t, e)
	}
}

// TestSpliceOdd: short moves and failures for want of pipes change nothing.
func TestSpliceOdd(t *testing.T) {
	e := start(t)
	var calls atomic.Int64
	e.SetSplice(func(from, to, n int, real func(from, to, n int) (int, syscall.Errno)) (int, syscall.Errno) {
		return real(from, to, min(n, 1+int(calls.Add(1)*7919%40_000)))
	})
	bothWays(t, e, true, 5<<20)
	noPipes(t, e)
	do(e, func() { e.UsePipes() })
	if w := bothWays(t, e, true, 5<<20); w.moved.Load() > 0 {
		t.Errorf("%d bytes were carried without a pipe", w.moved.Load())
	}
}

// TestSpliceBackPressure: a reader that does not read stops the writer after a bounded amount, and gets everything later.
func TestSpliceBackPressure(t *testing.T) {
	e := start(t)
	read := make(chan struct{})
	got := make(chan string, 1)
	backend := tcpServer(t, func(c *net.TCPConn) {
		_ = c.SetReadBuffer(64 << 10)
		<-read
		got <- digest(c)
		c.Close()
	})
	w, addr := carrying(t, e, backend, true)
	c := dialTCP(t, addr)
	_ = c.SetWriteBuffer(64 << 10)
	sent := make(chan string, 1)
	go func() { sent <- pour(c, 64<<20) }()
	last, since := int64(-1), time.Now()
	for time.Since(since) < 300*time.Millisecond { // poll: until nothing moves
		if now := w.copied.Load() + w.moved.Load(); now != last {
			last, since = now, time.Now()
		}
	}
	if last > 20<<20 {
		t.Errorf("%d bytes went to a reader that does not read", last)
	}
	close(read)
	if want, g := <-sent, <-got; g != want {
		t.Errorf("got %s, want %s", g, want)
	}
	noPipes(t, e)
}

// TestSpliceBreaks: ends and resets of either side at random moments leave no pipe in use and no connection behind.
func TestSpliceBreaks(t *testing.T) {
	e := start(t)
	backend := tcpServer(t, func(c *net.TCPConn) {
		defer c.Close()
		if rand.IntN(2) == 0 {
			_ = c.SetLinger(0)
		}
		go func() { pour(c, 1<<20) }()
		_, _ = io.CopyN(io.Discard, c, int64(rand.IntN(2<<20)))
	})
	w, addr := carrying(t, e, backend, true)
	const n = 200
	for range n {
		go func() {
			c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
			if err != nil {
				return
			}
			defer c.Close()
			if rand.IntN(2) == 0 {
				_ = c.SetLinger(0)
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			go func() { pour(c, 1<<20) }()
			_, _ = io.CopyN(io.Discard, c, int64(rand.IntN(2<<20)))
		}()
	}
	for range n {
		<-w.over
	}
	noPipes(t, e)
	if e.Load() != 0 {
		t.Errorf("%d connections are left", e.Load())
	}
}

// BenchmarkBulk measures the time that the loop's thread needs for a GB that it carries or copies.
func BenchmarkBulk(b *testing.B) {
	for _, splice := range []bool{false, true} {
		b.Run(fmt.Sprintf("splice=%t", splice), func(b *testing.B) {
			e := start(b)
			const chunk = 1 << 20
			backend := tcpServer(b, func(c *net.TCPConn) {
				buf := bytes.Repeat([]byte{7}, chunk)
				for {
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			})
			w, addr := carrying(b, e, backend, splice)
			c := dialTCP(b, addr)
			_ = c.SetDeadline(time.Time{})
			buf := make([]byte, chunk)
			if _, err := c.Write([]byte("go")); err != nil {
				b.Fatal(err)
			}
			_, _ = io.ReadFull(c, buf)
			b.SetBytes(chunk)
			before := e.CPU()
			b.ResetTimer()
			for b.Loop() {
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64((e.CPU()-before).Milliseconds())/float64(b.N)*1024, "loop-ms/GB")
			b.ReportMetric(float64(w.moved.Load())/float64(w.moved.Load()+w.copied.Load()), "carried")
		})
	}
}
