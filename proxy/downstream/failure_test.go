package downstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/pool"
)

// sidecar starts an inbound proxy in front of a program at a.
func sidecar(t testing.TB, a netip.AddrPort) *hop {
	o := inbound(a)
	o.Mesh = true
	return newHop(t, setup{origin: o, http2: true})
}

// caller starts an outbound proxy that routes to the given proxies.
func caller(t testing.TB, timeouts model.Timeouts, addrs ...netip.AddrPort) *hop {
	return newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: to(t, timeouts, addrs...), Service: cart}})
}

func mesh(h *hop) netip.AddrPort { return netip.MustParseAddrPort(h.addr) }

func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func post(t *testing.T, p *hop, body string) (*http.Response, string) {
	t.Helper()
	res, err := client(t).Post(p.url("/"), "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// A connection that cannot be made, to a proxy or by a proxy to its program, moves the request to another
// endpoint at once, whatever its method.
func TestFailover(t *testing.T) {
	echo := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	good, noProgram := sidecar(t, addrOf(t, echo)), sidecar(t, nobody(t))
	for name, bad := range map[string]netip.AddrPort{"no proxy": nobody(t), "no program": mesh(noProgram)} {
		t.Run(name, func(t *testing.T) {
			p := caller(t, model.Timeouts{}, bad, mesh(good))
			twice := 0
			for range 20 {
				if res, body := post(t, p, "hello"); res.StatusCode != 200 || body != "hello" {
					t.Fatalf("got %d %q", res.StatusCode, body)
				}
				if r := p.log.last(); r.Reason != "" || r.Status != 200 || !r.MTLS {
					t.Errorf("record %+v", r)
				} else if r.NAttempts == 2 {
					twice++
					if r.Attempts[0].Reason != "connect_failed" || r.Attempts[1].Workload != "cart-b" {
						t.Errorf("attempts %+v", r.Attempts)
					}
				}
			}
			if twice == 0 {
				t.Error("the bad endpoint was never tried")
			}
		})
	}
}

func TestNothingThere(t *testing.T) {
	noProgram := sidecar(t, nobody(t))
	for _, tc := range []struct {
		name, reason string
		status       int
		addrs        []netip.AddrPort
		attempts     int
	}{
		{"no endpoint", "no_endpoint", 503, nil, 0},
		{"no proxy", "connect_failed", 503, []netip.AddrPort{nobody(t), nobody(t)}, 2},
		{"no program", "connect_failed", 503, []netip.AddrPort{mesh(noProgram)}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := caller(t, model.Timeouts{}, tc.addrs...)
			res, body := post(t, p, "x")
			if res.StatusCode != tc.status || res.Header.Get("Tulle-Reason") != tc.reason || len(res.Header.Get("X-Request-Id")) != 36 {
				t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
			}
			if r := p.log.last(); r.NAttempts != tc.attempts || r.Reason != tc.reason || r.Status != tc.status {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// breaker is a program that closes the first n connections after it has read a request.
func breaker(t testing.TB, n int32) (netip.AddrPort, *atomic.Int32) {
	var seen atomic.Int32
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if seen.Add(1) <= n {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
			return
		}
		_, _ = w.Write(b)
	})
	return addrOf(t, srv), &seen
}

// An upstream that breaks before its response head is asked again only if the method is idempotent.
func TestRetry(t *testing.T) {
	for _, tc := range []struct {
		method string
		size   int
		status int
		seen   int32
	}{
		{"GET", 0, 200, 2}, {"PUT", 10, 200, 2}, {"DELETE", 0, 200, 2}, {"PUT", 60 << 10, 200, 2},
		{"PUT", 200 << 10, 502, 1}, {"POST", 10, 502, 1}, {"PATCH", 10, 502, 1},
	} {
		t.Run(fmt.Sprint(tc.method, tc.size), func(t *testing.T) {
			a, seen := breaker(t, 1)
			p := newHop(t, setup{origin: inbound(a)})
			data := noise(tc.size)
			req, _ := http.NewRequest(tc.method, p.url("/"), bytes.NewReader(data))
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, _ := io.ReadAll(res.Body)
			if res.StatusCode != tc.status || seen.Load() != tc.seen || tc.status == 200 && !bytes.Equal(got, data) {
				t.Errorf("got %d after %d, %d bytes", res.StatusCode, seen.Load(), len(got))
			}
			if tc.status == 502 && res.Header.Get("Tulle-Reason") != "upstream_reset" {
				t.Errorf("header %v", res.Header)
			}
		})
	}
}

// The attempts of one exchange are bounded: two in front of a program, five in front of endpoints.
func TestRetryBound(t *testing.T) {
	get := func(p *hop) int {
		res, err := client(t).Get(p.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	a, seen := breaker(t, 1000)
	if status := get(newHop(t, setup{origin: inbound(a)})); status != 502 || seen.Load() != 2 {
		t.Errorf("program: %d after %d attempts", status, seen.Load())
	}
	a, seen = breaker(t, 1000)
	o := inbound(a)
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	p := caller(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	if status := get(p); status != 502 || seen.Load() != 2*5 {
		t.Errorf("endpoint: %d after %d attempts", status, seen.Load())
	}
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	defer close(release)
	in := sidecar(t, addrOf(t, srv))
	for _, tc := range []struct {
		timeouts model.Timeouts
		method   string
		reason   string
		attempts int
	}{
		{model.Timeouts{Request: 50 * time.Millisecond}, "GET", "request_timeout", 1},
		{model.Timeouts{Attempt: 20 * time.Millisecond}, "POST", "attempt_timeout", 1},
		{model.Timeouts{Attempt: 20 * time.Millisecond, Request: 5 * time.Second}, "GET", "attempt_timeout", 5},
	} {
		p := caller(t, tc.timeouts, mesh(in))
		req, _ := http.NewRequest(tc.method, p.url("/"), nil)
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 504 || res.Header.Get("Tulle-Reason") != tc.reason {
			t.Errorf("%+v: got %d %v", tc, res.StatusCode, res.Header)
		}
		if r := p.log.last(); r.NAttempts != tc.attempts {
			t.Errorf("%+v: %d attempts", tc, r.NAttempts)
		}
	}
}

// A client that goes away ends its exchange at the program too.
func TestClientGone(t *testing.T) {
	started, gone := make(chan struct{}, 8), make(chan struct{}, 8)
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-started
		c.line()
		_ = c.c.(*net.TCPConn).SetLinger(0)
		_ = c.c.Close()
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Fatal("the program was not told")
		}
		p.until("the record", func() bool { return p.log.count() == 1 && p.worker.Open() == 0 })
		if r := p.log.last(); r.Reason != "downstream_gone" || r.Status != 200 {
			t.Errorf("record %+v", r)
		}
	})
}

// A response that breaks off in the middle breaks off at the client as well.
func TestBrokenResponse(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "100000")
		}
		_, _ = w.Write(noise(50000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, p *hop) {
		for _, path := range []string{"/length", "/chunked"} {
			res, err := client(t).Get(p.url(path))
			if err != nil {
				continue // it broke before anything was passed on
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("%s: %d bytes and no error", path, len(b))
			}
		}
	})
}

// A response before the end of the request reaches the client.
func TestEarlyResponse(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		c.send(string(noise(1000)))
		if res, body := c.response("POST"); res.StatusCode != 413 || body != "too much\n" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
	})
}

// A slow reader stops its writer: what the proxies hold is bounded.
func TestSlowReader(t *testing.T) {
	var wrote atomic.Int64
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		wrote.Store(0)
		for range 1024 {
			n, err := w.Write(make([]byte, 64<<10))
			wrote.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if c.line() != "HTTP/1.1 200 OK" {
			t.Fatal()
		}
		stuck := int64(-1)
		for end := time.Now().Add(10 * time.Second); stuck != wrote.Load() && time.Now().Before(end); {
			stuck = wrote.Load()
			time.Sleep(200 * time.Millisecond) // poll
		}
		// Kernel buffers on loopback take several megabytes at each hop.
		if stuck > 24<<20 {
			t.Errorf("the program could write %d bytes", stuck)
		}
		for c.line() != "" {
		}
		if n, err := io.Copy(io.Discard, httputil.NewChunkedReader(c.r)); n != 64<<20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// A streaming response arrives piece by piece.
func TestStreaming(t *testing.T) {
	next := make(chan struct{})
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}, func(t *testing.T, p *hop) {
		res, err := client(t).Get(p.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for i := range 3 {
			b := make([]byte, 8)
			if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q %v", b, err)
			}
			next <- struct{}{}
		}
	})
}

// Endpoints that disappear lose their idle connections; draining ends the rest.
func TestRetire(t *testing.T) {
	p := program(t, func(w http.ResponseWriter, r *http.Request) {})
	res, err := client(t).Get(p.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.until("one connection", func() bool { return p.pool.Conns() == 1 })
	p.do(func() { p.pool.Retire(func(*pool.Target) bool { return true }) })
	p.until("no connection", func() bool { return p.pool.Conns() == 0 })
	p.do(p.pool.Drain)
	if res, err = client(t).Get(p.url("/")); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.until("no connection", func() bool { return p.pool.Conns() == 0 })
}

// A peer that owes a response and gives no sign of life is given up; one that answers pings is not.
func TestSilentPeer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS, and then nothing more
		b := make([]byte, 4096)
		for n := 0; n < 200; { // the preface, our settings and the request
			m, err := c.Read(b)
			if err != nil {
				return
			}
			n += m
		}
		close(asked)
		_, _ = io.Copy(io.Discard, c)
	}()
	t.Cleanup(func() { ln.Close() })
	p := caller(t, model.Timeouts{}, netip.MustParseAddrPort(ln.Addr().String()))
	got := make(chan string, 1)
	go func() {
		res, body := post(t, p, strings.Repeat("x", 100))
		got <- fmt.Sprint(res.StatusCode, res.Header.Get("tulle-reason"), body)
	}()
	<-asked
	for range 3 { // the first finds that it has spoken, the second asks, the third gives up
		p.do(p.pool.Probe)
	}
	if s := <-got; !strings.HasPrefix(s, "502upstream_reset") {
		t.Error(s)
	}
}
