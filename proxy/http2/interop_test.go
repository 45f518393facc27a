package http2_test

//lint:file-ignore SA1019 golang.org/x/net/http2 is the second implementation that this one is compared with (DESIGN section 9)

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// sizes of bodies that meet the edges of frames and windows.
var sizes = []int{0, 1, 100, 16383, 16384, 16385, 65535, 65536, 300_000}

func bodyOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

// run carries bytes between k and c until k ends; whatever Events does happens inside.
func run(k net.Conn, c *http2.Conn, done func() bool) error {
	var buf []byte
	tmp := make([]byte, 64<<10)
	for !done() {
		if _, err := k.Write(c.Output()); err != nil {
			return err
		}
		c.Flushed()
		n, err := k.Read(tmp)
		if err != nil {
			return err
		}
		buf = append(buf, tmp[:n]...)
		m, err := c.Feed(buf)
		if err != nil {
			k.Write(c.Output())
			return err
		}
		buf = append(buf[:0], buf[m:]...)
	}
	return nil
}

// echo is a server's owner: it answers with the request's body and says in fields what the head was.
type echo struct {
	*owner
	c    *http2.Conn
	body map[*http2.Stream][]byte
	over map[*http2.Stream]bool
}

func newEcho() *echo {
	e := &echo{body: map[*http2.Stream][]byte{}, over: map[*http2.Stream]bool{}}
	e.owner = &owner{head: e.head, data: e.data, trailers: e.trailers, reset: e.reset, writable: e.send}
	e.c = http2.New(http2.Config{Server: true, EnableConnect: true, Events: e.owner})
	return e
}

func (e *echo) head(s *http2.Stream, h *message.Head, end bool) {
	e.c.Head(s, response(103, "link", "</a.css>"), false)
	r := response(200, "x-method", string(h.Method), "x-target", string(h.Target), "x-authority", string(h.Authority),
		"X-Cookie", string(h.Get("cookie")), "x-length", fmt.Sprint(h.ContentLength), "connection", "never seen")
	for _, f := range h.Fields {
		if strings.HasPrefix(string(f.Name), "x-echo-") {
			r.Add(bytes.Clone(f.Name), bytes.Clone(f.Value))
		}
	}
	if string(h.Target) == "/none" {
		r.Status = 204
	}
	e.c.Head(s, r, false)
	if end {
		e.finish(s)
	}
}

func (e *echo) data(s *http2.Stream, p []byte, end bool) {
	e.body[s] = append(e.body[s], p...)
	e.c.Consumed(s, len(p))
	if end {
		e.finish(s)
	} else {
		e.send(s)
	}
}

func (e *echo) trailers(s *http2.Stream, h *message.Head) { e.finish(s) }

func (e *echo) finish(s *http2.Stream) {
	e.over[s] = true
	e.send(s)
}

func (e *echo) send(s *http2.Stream) {
	b := e.body[s]
	b = b[e.c.Data(s, b, false):]
	e.body[s] = b
	if len(b) == 0 && e.over[s] {
		e.c.Trailers(s, response(0, "x-trailer", "the end"))
		e.reset(s, 0)
		e.c.Release(s)
	}
}

func (e *echo) reset(s *http2.Stream, _ http2.ErrCode) {
	delete(e.body, s)
	delete(e.over, s)
}

// transport answers x/net's client speaking plaintext HTTP/2 to an echo server of ours.
func transport(t *testing.T) *xhttp2.Transport {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			k, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer k.Close()
				run(k, newEcho().c, func() bool { return false })
			})
		}
	})
	tr := &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		l.Close()
		wg.Wait()
	})
	return tr
}

// TestServerAgainstTransport: our server and x/net's client.
func TestServerAgainstTransport(t *testing.T) {
	tr := transport(t)
	var wg sync.WaitGroup
	for round := range 3 {
		for i, size := range sizes {
			wg.Go(func() {
				want := bodyOf(size)
				req, _ := http.NewRequest("POST", fmt.Sprintf("http://echo.test/p/%d?q=%d", i, round), bytes.NewReader(want))
				req.Header.Add("Cookie", "a=1; b=2")
				big := strings.Repeat("v", size/4)
				req.Header.Set("X-Echo-Big", big)
				if round == 1 {
					req.Body = io.NopCloser(req.Body)
					req.ContentLength = -1
					req.Trailer = http.Header{"X-After": {"yes"}}
				}
				resp, err := tr.RoundTrip(req)
				if size/4 > 64<<10 {
					// Once our SETTINGS have arrived the client refuses to send it.
					if err == nil && resp.StatusCode != 431 || err != nil && !strings.Contains(err.Error(), "larger than peer's advertised limit") {
						t.Errorf("head over the limit that SETTINGS announced: %v %v", resp, err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("size %d: %d bytes came back, %v", size, len(got), err)
				}
				h := resp.Header
				if h.Get("X-Method") != "POST" || h.Get("X-Target") != fmt.Sprintf("/p/%d?q=%d", i, round) || h.Get("X-Authority") != "echo.test" ||
					h.Get("X-Cookie") != "a=1; b=2" || h.Get("X-Echo-Big") != big || h.Get("Connection") != "" {
					t.Errorf("size %d: head %v", size, h)
				}
				if resp.Trailer.Get("X-Trailer") != "the end" {
					t.Errorf("size %d: trailers %v", size, resp.Trailer)
				}
			})
		}
	}
	wg.Wait()
	for _, tc := range []struct {
		method, target string
		status         int
	}{{"HEAD", "/x", 200}, {"GET", "/none", 204}, {"OPTIONS", "/o", 200}, {"GET", "/" + strings.Repeat("long", 5000), 200}} {
		req, _ := http.NewRequest(tc.method, "http://echo.test"+tc.target, nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(tc.method, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || len(b) > 0 || resp.StatusCode != tc.status {
			t.Error(tc.method, resp.StatusCode, len(b), err)
		}
		resp.Body.Close()
	}
}

// got is what a client has received of one response.
type got struct {
	head, trailers *message.Head
	interim        []int
	body           []byte
	end            bool
	code           http2.ErrCode
}

// asker is a client's owner that collects responses and sends bodies.
type asker struct {
	*owner
	c    *http2.Conn
	all  map[*http2.Stream]*got
	body map[*http2.Stream][]byte
	open int
}

func newAsker(cfg http2.Config) *asker {
	a := &asker{all: map[*http2.Stream]*got{}, body: map[*http2.Stream][]byte{}}
	clone := func(h *message.Head) *message.Head {
		c := new(message.Head)
		h.CloneInto(c, nil)
		return c
	}
	a.owner = &owner{
		head: func(s *http2.Stream, h *message.Head, end bool) {
			if h.Status < 200 && h.Status != 101 {
				a.all[s].interim = append(a.all[s].interim, h.Status)
				return
			}
			a.all[s].head = clone(h)
			a.end(s, end)
		},
		data: func(s *http2.Stream, p []byte, end bool) {
			a.all[s].body = append(a.all[s].body, p...)
			a.c.Consumed(s, len(p))
			a.end(s, end)
		},
		trailers: func(s *http2.Stream, h *message.Head) { a.all[s].trailers = clone(h); a.end(s, true) },
		reset:    func(s *http2.Stream, code http2.ErrCode) { a.all[s].code = code; a.end(s, true) },
		writable: a.send,
	}
	cfg.Events = a.owner
	a.c = http2.New(cfg)
	return a
}

func (a *asker) end(s *http2.Stream, end bool) {
	if end {
		a.all[s].end = true
		a.open--
	}
}

func (a *asker) send(s *http2.Stream) {
	b := a.body[s]
	a.body[s] = b[a.c.Data(s, b, true):]
}

func (a *asker) ask(t *testing.T, h *message.Head, body []byte) *got {
	t.Helper()
	s, err := a.c.Open(h, body == nil)
	if err != nil {
		t.Fatal(err)
	}
	g := new(got)
	a.all[s] = g
	a.open++
	if body != nil {
		a.body[s] = body
		a.send(s)
	}
	return g
}

// TestClientAgainstServer: our client and x/net's server.
func TestClientAgainstServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		k, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		srv := &xhttp2.Server{MaxConcurrentStreams: 200}
		srv.ServeConn(k, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %s %d", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Name"), r.Header.Get("Cookie"), r.ContentLength))
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if r.URL.Path == "/none" {
				w.WriteHeader(204)
				return
			}
			w.Write(b)
			w.Header().Set("X-Sum", fmt.Sprint(len(b)))
		})})
	})
	k, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	a := newAsker(http2.Config{})
	if err := run(k, a.c, func() bool { return a.c.Available() == 200 }); err != nil {
		t.Fatal(err)
	}
	asked := map[int]*got{}
	for i := range 60 {
		h := request("PUT", fmt.Sprint("/", i), "X-Name", "Value", "cookie", "a=1", "connection", "x")
		h.ContentLength = int64(sizes[i%len(sizes)])
		asked[i] = a.ask(t, h, bodyOf(sizes[i%len(sizes)]))
	}
	head := a.ask(t, request("HEAD", "/h"), nil)
	none := a.ask(t, request("GET", "/none"), nil)
	if err := run(k, a.c, func() bool { return a.open == 0 }); err != nil {
		t.Fatal(err)
	}
	for i, g := range asked {
		n := sizes[i%len(sizes)]
		if g.code != 0 || !bytes.Equal(g.body, bodyOf(n)) {
			t.Errorf("%d: %d bytes of %d, %v", i, len(g.body), n, g.code)
		}
		if want := fmt.Sprintf("PUT /%d reviews.default:9080 Value a=1 %d", i, n); string(g.head.Get("x-seen")) != want {
			t.Errorf("seen %s, want %s", g.head.Get("x-seen"), want)
		}
		if g.trailers == nil || string(g.trailers.Get("x-sum")) != fmt.Sprint(n) || !slices.Equal(g.interim, []int{103}) {
			t.Errorf("%d: trailers %v interim %v", i, g.trailers, g.interim)
		}
	}
	if head.head.Status != 200 || len(head.body) > 0 || none.head.Status != 204 {
		t.Error(head.head, none.head)
	}
	if a.c.Streams() != 0 {
		t.Error(a.c.Streams(), "streams left open")
	}
}
