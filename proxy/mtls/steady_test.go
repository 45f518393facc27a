package mtls_test

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/steady"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// asker sends, waits for the same amount, and sends again, until left is 0.
type asker struct {
	conn loop.Conn
	left *int
	done chan struct{}
	msg  []byte
	got  int
}

func (a *asker) Opened() { a.ask() }
func (a *asker) ask() {
	if *a.left > 0 {
		a.conn.Write(a.msg)
	}
}
func (a *asker) Data(p []byte) int {
	for a.got += len(p); a.got >= len(a.msg); a.got -= len(a.msg) {
		if *a.left--; *a.left == 0 {
			close(a.done)
		}
		a.ask()
	}
	return len(p)
}
func (a *asker) EOF()         {}
func (a *asker) Writable()    {}
func (a *asker) Closed(error) {}

type fixture struct {
	load, served *loop.Epoll
	clients      []*asker
	left         int
}

// echoing opens n connections to an echo server on another loop.
func echoing(t testing.TB, n, size int) *fixture {
	t.Helper()
	ca := newAuthority(t)
	f := &fixture{load: start(t), served: start(t)}
	server := mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{})
	client := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
	addr := listen(t, f.served, func(in loop.Incoming) {
		in.Adopt(f.served, func(raw loop.Conn) loop.Handler {
			s := &echoSide{}
			s.conn = mtls.Server(raw, server, s)
			return nil
		})
	})
	opened := make(chan struct{}, n)
	do(f.load, func() {
		for range n {
			c := &asker{left: &f.left, msg: make([]byte, size)}
			c.conn = mtls.Dial(f.load, loop.Dial{Address: addr}, client, &opening{asker: c, opened: opened})
			f.clients = append(f.clients, c)
		}
	})
	for range n {
		<-opened
	}
	return f
}

type opening struct {
	*asker
	opened chan struct{}
}

func (o *opening) Opened() { o.opened <- struct{}{} }

// ask has n answers come, over all connections.
func (f *fixture) ask(n int) {
	done := make(chan struct{})
	f.load.Post(func() {
		f.left = n
		for _, c := range f.clients {
			c.done = done
			c.ask()
		}
	})
	<-done
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, size := range []int{100, 20_000} {
		f := echoing(t, 4, size)
		f.ask(500)
		const enough = 40 + 2000*allowed
		if n := steady.Allocations(enough, func() { f.ask(2000) }); n > enough {
			t.Errorf("%d bytes: %d allocations in 2000 rounds", size, n)
		}
	}
}

// TestIdleHoldsNoRecords: connections that have carried 64 KB each way and are idle.
func TestIdleHoldsNoRecords(t *testing.T) {
	const n = 100
	f := echoing(t, n, 64<<10)
	f.ask(5 * n)
	for _, l := range []*loop.Epoll{f.load, f.served} {
		do(l, func() { l.Buffers().Trim() })
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	// Both ends, their messages of 64 KB aside.
	if per := int(m.HeapAlloc)/n - 64<<10; per > 48<<10 {
		t.Errorf("%d bytes of heap per idle connection, both ends", per)
	} else {
		t.Logf("%d bytes of heap per idle connection, both ends", per)
	}
	runtime.KeepAlive(f)
}

// BenchmarkEcho measures both ends of 100 bytes there and back over 32 connections.
func BenchmarkEcho(b *testing.B) {
	f := echoing(b, 32, 100)
	f.ask(1000)
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	f.ask(b.N)
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func BenchmarkHandshake(b *testing.B) {
	before := cpu()
	for range b.N {
		echoing(b, 1, 100)
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
