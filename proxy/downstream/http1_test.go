package downstream_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
)

// paths are the ways between a client and a program; every test of HTTP semantics runs on all of them.
var paths = []struct {
	name  string
	start func(t testing.TB, h http.HandlerFunc) *hop
}{
	{"one hop", program},
	{"two hops", func(t testing.TB, h http.HandlerFunc) *hop { out, _ := twoHops(t, h); return out }},
}

func eachPath(t *testing.T, h http.HandlerFunc, f func(t *testing.T, p *hop)) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) { f(t, p.start(t, h)) })
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestGet(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Host+" "+r.Header.Get("X-Mine")+" "+r.Proto+" "+fmt.Sprint(len(r.Header.Get("X-Request-Id"))))
		for k := range r.Header {
			if strings.HasPrefix(strings.ToLower(k), "tulle-") {
				t.Errorf("the program got %s", k)
			}
		}
		fmt.Fprintf(w, "hello %s", r.URL)
	}, func(t *testing.T, p *hop) {
		c := client(t)
		for range 3 {
			req, _ := http.NewRequest("GET", p.url("/a?b=c"), nil)
			req.Header.Set("X-Mine", "yes")
			req.Header.Set("Tulle-Http", "2")
			req.Host = "cart"
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "hello /a?b=c" || res.Header.Get("X-Seen") != "cart yes HTTP/1.1 36" {
				t.Fatalf("got %d %q %q", res.StatusCode, body, res.Header)
			}
		}
		p.until("three records", func() bool { return p.log.count() == 3 })
		if r := p.log.last(); r.Status != 200 || r.Reason != "" || string(r.Path) != "/a?b=c" || r.NAttempts != 1 || r.ResponseBytes != 12 {
			t.Errorf("record %+v", r)
		}
		if n := c.Transport.(*http.Transport); n == nil {
			t.Fatal()
		}
	})
}

func TestBodies(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		fmt.Fprintf(w, "%d %x", n, h.Sum(nil))
	}, func(t *testing.T, p *hop) {
		c := client(t)
		for _, size := range []int{0, 1, 1000, 16 << 10, 70 << 10, 1 << 20, 20 << 20} {
			for _, stated := range []bool{true, false} {
				data := noise(size)
				var body io.Reader = bytes.NewReader(data)
				if !stated {
					body = io.MultiReader(body)
				}
				res, err := c.Post(p.url("/"), "application/octet-stream", body)
				if err != nil {
					t.Fatal(size, stated, err)
				}
				got, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if want := fmt.Sprintf("%d %x", size, sha256.Sum256(data)); string(got) != want {
					t.Fatalf("%d %v: got %q want %q", size, stated, got, want)
				}
				if l := res.Header.Get("X-Length"); stated && l != fmt.Sprint(size) {
					t.Fatalf("stated length %s of %d", l, size)
				}
			}
		}
	})
}

func TestResponses(t *testing.T) {
	data := noise(5 << 20)
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data)
		case "/chunked":
			w.Header().Set("Trailer", "X-Sum")
			w.(http.Flusher).Flush()
			_, _ = w.Write(data)
			w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(data)))
		case "/none":
			w.WriteHeader(204)
		case "/same":
			w.Header().Set("Etag", `"1"`)
			w.WriteHeader(304)
		}
	}, func(t *testing.T, p *hop) {
		c := client(t)
		for _, path := range []string{"/length", "/chunked", "/none", "/same", "/length"} {
			for _, method := range []string{"GET", "HEAD"} {
				req, _ := http.NewRequest(method, p.url(path), nil)
				res, err := c.Do(req)
				if err != nil {
					t.Fatal(method, path, err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					t.Fatal(method, path, err)
				}
				want := 0
				if method == "GET" && (path == "/length" || path == "/chunked") {
					want = len(data)
				}
				if len(got) != want || want > 0 && !bytes.Equal(got, data) {
					t.Fatalf("%s %s: %d bytes", method, path, len(got))
				}
				if path == "/chunked" && method == "GET" && res.Trailer.Get("X-Sum") != fmt.Sprintf("%x", sha256.Sum256(data)) {
					t.Fatalf("trailers %v", res.Trailer)
				}
				if path == "/length" && res.ContentLength != int64(len(data)) {
					t.Fatalf("%s: content-length %d", method, res.ContentLength)
				}
			}
		}
	})
}

func TestContinue(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if got := c.line(); got != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q", got)
		}
		c.line()
		c.send("hello")
		if res, body := c.response("POST"); res.StatusCode != 200 || body != "hello" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
	})
}

// wire is a client that speaks bytes.
type wire struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func raw(t *testing.T, p *hop) *wire {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	return &wire{t, c, bufio.NewReader(c)}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := w.c.Write([]byte(s)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) line() string {
	w.t.Helper()
	s, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimRight(s, "\r\n")
}

func (w *wire) response(method string) (*http.Response, string) {
	w.t.Helper()
	res, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, string(b)
}

func TestPipelining(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, b)
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		var all strings.Builder
		for i := range 200 {
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /g%d HTTP/1.1\r\nHost: a\r\n\r\n", i, i)
		}
		go func() { _, _ = c.c.Write([]byte(all.String())) }()
		for i := range 200 {
			if _, body := c.response("POST"); body != fmt.Sprintf("/%d abc", i) {
				t.Fatalf("%d: %q", i, body)
			}
			if _, body := c.response("GET"); body != fmt.Sprintf("/g%d ", i) {
				t.Fatalf("%d: %q", i, body)
			}
		}
	})
}

func TestUpgrade(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" || r.URL.Path == "/no" {
			fmt.Fprint(w, "no")
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nready\n")
		rw.Flush()
		_, _ = io.Copy(c, rw)
		fmt.Fprint(c, "bye")
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		if res, body := c.response("GET"); res.StatusCode != 200 || body != "no" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		res, err := http.ReadResponse(c.r, nil)
		if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" {
			t.Fatalf("got %+v %v", res, err)
		}
		if l := c.line(); l != "ready" {
			t.Fatal(l)
		}
		data := noise(3 << 20)
		go func() { _, _ = c.c.Write(data); _ = c.c.(*net.TCPConn).CloseWrite() }()
		got, err := io.ReadAll(c.r)
		if err != nil || !bytes.Equal(got, append(data, "bye"...)) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		p.until("the record", func() bool { return p.log.count() == 2 })
	})
}

func TestHTTP10(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		fmt.Fprint(w, "old")
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
		b, err := io.ReadAll(c.r)
		if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nold") {
			t.Fatalf("%q %v", b, err)
		}
	})
}

// A request without a host reaches a program behind another proxy, with the address that was called.
func TestNoHost(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	o := inbound(addrOf(t, srv))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	out := newHop(t, setup{origin: exchange.Origin{
		Direction: record.Outbound, Destination: to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr)), Service: cart,
		Wanted: netip.MustParseAddrPort("198.18.0.7:80"),
	}})
	for _, head := range []string{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n"} {
		c := raw(t, out)
		c.send(head)
		if res, body := c.response("GET"); res.StatusCode != 200 || body != "198.18.0.7:80" {
			t.Errorf("%q: %d %q", head, res.StatusCode, body)
		}
	}
}

func TestBadRequest(t *testing.T) {
	p := program(t, func(w http.ResponseWriter, r *http.Request) { t.Error("it came through") })
	for _, tc := range []struct{ send, reason string }{
		{"GET / HTTP/1.1\r\n\r\n", "bad_request"},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad_request"},
		{"EHLO mail.example\r\n", "not_http"},
		{"\x00\x01binary\r\n\r\n", "not_http"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_request"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", "head_too_large"},
	} {
		c := raw(t, p)
		go func() { _, _ = c.c.Write([]byte(tc.send)) }()
		res, _ := c.response("GET")
		if res.Header.Get("Tulle-Reason") != tc.reason || !res.Close {
			t.Errorf("got %d %v", res.StatusCode, res.Header)
		}
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("the connection goes on: %v", err)
		}
	}
}

// A refused request with a body leaves the connection usable when the body is short.
func TestRefusedBody(t *testing.T) {
	p := newHop(t, setup{origin: inbound(nobody(t))})
	c := raw(t, p)
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
		if res, body := c.response("POST"); res.StatusCode != 503 || res.Header.Get("Tulle-Reason") != "connect_failed" || !strings.Contains(body, "connect_failed") {
			t.Fatalf("got %d %v %q", res.StatusCode, res.Header, body)
		}
	}
}
