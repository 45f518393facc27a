package downstream_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/steady"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/kin"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

const (
	requestBytes  = "GET /products/42?color=red HTTP/1.1\r\nHost: cart\r\nUser-Agent: test\r\nAccept: */*\r\nX-Request-Id: 7\r\n\r\n"
	responseBytes = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\nServer: test\r\n\r\n" +
		"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
)

// fixed is a program that answers every request head with the same bytes and allocates nothing for it.
func fixed(t testing.TB) netip.AddrPort { return inTurn(t, responseBytes) }

// inTurn is fixed with several answers.
func inTurn(t testing.TB, answers ...string) netip.AddrPort {
	t.Helper()
	var turn atomic.Uint64
	var all [][]byte
	for _, a := range answers {
		all = append(all, []byte(a))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						n = 0
						if _, err := c.Write(all[(turn.Add(1)-1)%uint64(len(all))]); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// drive answers a function that sends one request on a keep-alive connection and reads its response.
func drive(t testing.TB, p *hop) func() { return driveWith(t, p, "") }

// driveWith is drive with more fields.
func driveWith(t testing.TB, p *hop, fields string) func() {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	buf, req := make([]byte, 4096), []byte(strings.TrimSuffix(requestBytes, "\r\n")+fields+"\r\n")
	return func() {
		if _, err := c.Write(req); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; {
			m, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
			if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 && n >= i+4+100 {
				if !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200")) {
					t.Fatalf("got %q", buf[:n])
				}
				return
			}
		}
	}
}

// noAllocation asserts that a steady state of requests allocates no more than allowed per request, in the whole process.
func noAllocation(t *testing.T, allowed uint64, one func()) {
	t.Helper()
	for range 500 {
		one()
	}
	const n = 5000
	enough := n*allowed + n/100 // a path that allocates does it n times
	if d := steady.Allocations(enough, func() {
		for range n {
			one()
		}
	}); d > enough {
		t.Errorf("%d allocations in %d requests", d, n)
	}
}

func oneHop(t testing.TB) *hop {
	h := newHop(t, setup{origin: inbound(fixed(t))})
	h.log.forget()
	return h
}

// overMesh is a route, an endpoint and a second proxy, with HTTP/2 between them.
func overMesh(t testing.TB) *hop {
	o := inbound(fixed(t))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	dest := to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	out := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart}})
	in.log.forget()
	out.log.forget()
	return out
}

// tolled is overMesh with limits on the caller's side.
func tolled(t testing.TB) *hop {
	o := inbound(fixed(t))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	dest := to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	dest.table.Model.Outbound = &model.Inbound{Limits: []model.RateLimit{{Name: "requests", Requests: 1e6}, {Name: "bytes", Requests: 1e9, Bytes: true}}}
	toll := admission.New(admission.Config{Terms: func() admission.Terms { return admission.Terms{Inbound: dest.table.Model.Outbound} }})
	out := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart, Toll: toll}})
	in.log.forget()
	out.log.forget()
	return out
}

// withAttempts is overMesh with all that can be said about attempts: limits of time that go on, a policy, hedging, bounds of
// the route, a budget, and requests joined through the program.
func withAttempts(t testing.TB, program netip.AddrPort) *hop {
	o := inbound(program)
	o.Mesh = true
	table := kin.New()
	in := newHop(t, setup{origin: o, http2: true, worker: exchange.Config{Kin: table, Spent: &cluster.Spent{}}})
	dest := byRoute(t, model.Route{
		Timeouts: model.Timeouts{Request: 10 * time.Second, Attempt: 5 * time.Second},
		Retry:    &model.Retry{On: model.RetryGateway, Attempts: 1, Base: time.Nanosecond, Max: time.Nanosecond, OtherHosts: true, RetryAfter: time.Second},
		Hedge:    &model.Hedge{After: 5 * time.Second, Quantile: 990}, Breakers: &model.Breakers{Requests: 100, Pending: 100},
	}, mesh(in))
	m := *dest.clusters[cart].Model()
	m.Budget = model.Budget{Percent: 300} // of a share of 100 those at the edge of the window are missing
	dest.clusters[cart].Set(&m)
	out := newHop(t, setup{worker: exchange.Config{Kin: table, Spent: &cluster.Spent{}}, origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart}})
	in.log.forget()
	out.log.forget()
	return out
}

// everySecond is fixed, but every second request is to be sent again.
func everySecond(t testing.TB) netip.AddrPort {
	return inTurn(t, "HTTP/1.1 503 Not Now\r\nContent-Length: 2\r\n\r\nno", responseBytes)
}

// edge is a chain of a foreign listener with what such chains usually have: the client is told by x-forwarded-for, a
// request's id is made, paths are made normal, timeouts are set, and the access log is on.
func edge(t testing.TB) *hop {
	files := observe.NewFiles(observe.FilesConfig{Open: func(string) (io.WriteCloser, error) { return nowhere{}, nil }})
	t.Cleanup(files.Close)
	logs, err := files.Logs([]model.AccessLog{{Path: "log"}})
	if err != nil {
		t.Fatal(err)
	}
	o := foreignOrigin(model.HTTP{
		ServerName: "edge", Via: "edge", UseRemoteAddress: true, RequestID: true, RequestIDResponse: true, NormalizePath: true, MergeSlashes: true,
		StreamIdleTimeout: 5 * time.Minute, IdleTimeout: time.Hour, MaxStreamDuration: time.Hour, HeadTimeout: 10 * time.Second,
	}, fixed(t))
	o.Logs = logs
	h := newHop(t, setup{origin: o})
	h.log.forget()
	return h
}

// nowhere is a file that takes everything.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

func TestNoAllocation(t *testing.T) {
	t.Run("edge", func(t *testing.T) { noAllocation(t, allowedPool, drive(t, edge(t))) })
	t.Run("one hop", func(t *testing.T) { noAllocation(t, 0, drive(t, oneHop(t))) })
	t.Run("two hops", func(t *testing.T) { noAllocation(t, 0, drive(t, overMesh(t))) })
	t.Run("limited by the caller", func(t *testing.T) { noAllocation(t, 0, drive(t, tolled(t))) })
	t.Run("attempts", func(t *testing.T) { noAllocation(t, 0, drive(t, withAttempts(t, fixed(t)))) })
	t.Run("every request twice", func(t *testing.T) { noAllocation(t, 0, drive(t, withAttempts(t, everySecond(t)))) })
}

func BenchmarkHop(b *testing.B) {
	for _, p := range []struct {
		name  string
		start func(testing.TB) *hop
	}{{"one", oneHop}, {"two", overMesh}, {"attempts", func(t testing.TB) *hop { return withAttempts(t, fixed(t)) }}, {"edge", edge}, {"limited", limited}} {
		b.Run(p.name, func(b *testing.B) {
			one := drive(b, p.start(b))
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
		})
	}
}
