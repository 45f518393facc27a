package downstream_test

//lint:file-ignore SA1019 golang.org/x/net/http2 is the second implementation that this one is compared with (DESIGN section 9)

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/downstream"
)

// silent is a program that accepts and says nothing.
func silent(t testing.TB) netip.AddrPort { return script(t, func([]byte) []byte { return nil }) }

func TestStreamTimeouts(t *testing.T) {
	const soon = 60 * time.Millisecond
	const whole, half = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
	for _, c := range []struct {
		name    string
		m       model.HTTP
		request string
		status  int
		reason  string
	}{
		{"idle, waiting for the upstream", model.HTTP{StreamIdleTimeout: soon}, whole, 504, "idle_timeout"},
		{"idle, waiting for the client", model.HTTP{StreamIdleTimeout: soon}, half, 408, "request_incomplete"},
		{"incomplete", model.HTTP{RequestTimeout: soon}, half, 408, "request_incomplete"},
		{"too long", model.HTTP{MaxStreamDuration: soon}, whole, 408, "stream_duration"},
		{"head", model.HTTP{HeadTimeout: soon}, "GET / HTTP/1.1\r\nHost:", 408, "request_incomplete"},
		{"idle, in the head", model.HTTP{StreamIdleTimeout: soon}, "GET / HTTP/1.1\r\nHost:", 408, "request_incomplete"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := raw(t, chain(t, c.m, silent(t)))
			w.send(c.request)
			if res, _ := w.response("GET"); res.StatusCode != c.status || res.Header.Get("Tulle-Reason") != c.reason {
				t.Errorf("got %d %v", res.StatusCode, res.Header)
			}
		})
	}
}

// TestStreamTimeoutsInTheMesh: what a route says about streams holds where no chain of filters says anything.
func TestStreamTimeoutsInTheMesh(t *testing.T) {
	const soon = 60 * time.Millisecond
	for _, c := range []struct {
		timeouts model.Timeouts
		status   int
		reason   string
	}{
		{model.Timeouts{Idle: soon}, 504, "idle_timeout"},
		{model.Timeouts{MaxStream: soon}, 408, "stream_duration"},
		{model.Timeouts{Idle: soon, Request: time.Minute}, 504, "idle_timeout"},
	} {
		w := raw(t, callerBy(t, model.Route{Timeouts: c.timeouts}, mesh(sidecar(t, silent(t)))))
		w.send("GET / HTTP/1.1\r\nHost: cart\r\n\r\n")
		if res, _ := w.response("GET"); res.StatusCode != c.status || res.Header.Get("Tulle-Reason") != c.reason {
			t.Errorf("%+v: got %d %v", c.timeouts, res.StatusCode, res.Header)
		}
	}
}

// TestAskedTimeouts: what a request asks for in Envoy's fields has no effect.
func TestAskedTimeouts(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(40 * time.Millisecond) // poll: the program is slow on purpose
		w.WriteHeader(503)
	})
	p := callerBy(t, model.Route{Retry: &model.Retry{}}, mesh(sidecar(t, addrOf(t, srv))))
	w := raw(t, p)
	w.send("GET / HTTP/1.1\r\nHost: cart\r\nx-envoy-upstream-rq-timeout-ms: 10\r\nx-envoy-max-retries: 3\r\nx-envoy-retry-on: 5xx\r\n\r\n")
	if res, _ := w.response("GET"); res.StatusCode != 503 || res.Header.Get("Tulle-Reason") != "" || p.log.last().NAttempts != 1 {
		t.Errorf("got %d %v after %d attempts", res.StatusCode, res.Header, p.log.last().NAttempts)
	}
}

// A request that keeps moving is not idle, however long it takes.
func TestMovingIsNotIdle(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 6 {
			time.Sleep(250 * time.Millisecond) // poll: the program is slow on purpose, and bounded
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
	})
	p := chain(t, model.HTTP{StreamIdleTimeout: time.Second}, addrOf(t, srv))
	if res, body := seen(t, p, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 200 || body != "xxxxxx" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestConnectionBounds(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	t.Run("requests", func(t *testing.T) {
		w := raw(t, chain(t, model.HTTP{MaxRequests: 2}, mirror(t)))
		w.send(get + get + get)
		if res, _ := w.response("GET"); res.Close {
			t.Error("closed after the first")
		}
		if res, _ := w.response("GET"); !res.Close {
			t.Error("not closed after the second")
		}
		if b, _ := io.ReadAll(w.r); len(b) > 0 {
			t.Errorf("%q", b)
		}
	})
	for name, m := range map[string]model.HTTP{"idle": {IdleTimeout: 50 * time.Millisecond}, "duration": {MaxDuration: 50 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			w := raw(t, chain(t, m, mirror(t)))
			w.send(get)
			w.response("GET")
			if b, err := io.ReadAll(w.r); len(b) > 0 || err != nil {
				t.Errorf("%q %v", b, err)
			}
		})
	}
}

// frames is a raw HTTP/2 client.
type frames struct {
	*http2.Framer
	t    *testing.T
	c    net.Conn
	enc  *hpack.Encoder
	head bytes.Buffer
}

func newFrames(t *testing.T, p *hop, settings ...http2.Setting) *frames {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	f := &frames{Framer: http2.NewFramer(c, c), t: t, c: c}
	f.enc = hpack.NewEncoder(&f.head)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = f.WriteSettings(settings...)
	return f
}

// request opens a stream.
func (f *frames) request(id uint32, end bool, kv ...string) {
	f.head.Reset()
	for i := 0; i < len(kv); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.head.Bytes(), EndStream: end, EndHeaders: true})
}

func (f *frames) get(id uint32) {
	f.request(id, true, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a")
}

// until reads frames up to the first that want holds for; SETTINGS are acknowledged, PINGs are not.
func (f *frames) until(what string, want func(fr http2.Frame) bool) http2.Frame {
	f.t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("waiting for %s: %v", what, err)
		}
		if want(fr) {
			return fr
		}
		if s, ok := fr.(*http2.SettingsFrame); ok && !s.IsAck() {
			_ = f.WriteSettingsAck()
		}
	}
}

// response reads the head of a response on stream id.
func (f *frames) response(id uint32) *http2.MetaHeadersFrame {
	f.t.Helper()
	return f.until("a response", func(fr http2.Frame) bool {
		h, ok := fr.(*http2.MetaHeadersFrame)
		return ok && h.StreamID == id
	}).(*http2.MetaHeadersFrame)
}

func field(h *http2.MetaHeadersFrame, name string) string {
	for _, f := range h.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func isGoAway(fr http2.Frame) bool { _, ok := fr.(*http2.GoAwayFrame); return ok }

// After the last request of a connection an HTTP/2 client is told to go, and gets the final word although it does not
// answer pings.
func TestMaxRequests2(t *testing.T) {
	f := newFrames(t, chain(t, model.HTTP{MaxRequests: 2, DrainTimeout: 50 * time.Millisecond}, h2cServer(t, func(http.ResponseWriter, *http.Request) {})))
	f.get(1)
	f.response(1)
	f.get(3)
	if g := f.until("GOAWAY", isGoAway).(*http2.GoAwayFrame); g.LastStreamID != 1<<31-1 || g.ErrCode != 0 {
		t.Errorf("first %v", g)
	}
	if g := f.until("GOAWAY", isGoAway).(*http2.GoAwayFrame); g.LastStreamID != 3 || g.ErrCode != 0 {
		t.Errorf("last %v", g)
	}
	for {
		if _, err := f.ReadFrame(); err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return
		}
	}
}

// A client that opens no window for a response is not waited for.
func TestZeroWindow(t *testing.T) {
	big := h2cServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(noise(100 << 10)) })
	p := chain(t, model.HTTP{StreamIdleTimeout: 80 * time.Millisecond}, big)
	f := newFrames(t, p, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	f.get(1)
	f.response(1)
	f.until("RST_STREAM", func(fr http2.Frame) bool { _, ok := fr.(*http2.RSTStreamFrame); return ok })
	p.until("the record", func() bool { return p.log.count() == 1 && p.worker.Open() == 0 })
	if r := p.log.last(); r.Reason != "idle_timeout" {
		t.Errorf("%+v", r)
	}
}

func TestKeepAlivePings(t *testing.T) {
	m := model.HTTP{HTTP2: model.HTTP2Options{KeepAlive: 30 * time.Millisecond, KeepAliveTimeout: 300 * time.Millisecond}}
	f := newFrames(t, chain(t, m, mirror(t)))
	for range 3 { // answered: the connection stays
		ping := f.until("PING", func(fr http2.Frame) bool { _, ok := fr.(*http2.PingFrame); return ok }).(*http2.PingFrame)
		_ = f.WritePing(true, ping.Data)
	}
	for {
		if _, err := f.ReadFrame(); err != nil { // not answered: it is reset
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error(err)
			}
			return
		}
	}
}

// Who asks and reads no answers gets no more of them made: what waits for it is bounded.
func TestUnreadResponses(t *testing.T) {
	page := strings.Repeat("x", 2000)
	old := script(t, func([]byte) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nX-Page: %s\r\nContent-Length: 0\r\n\r\n", page)
	})
	young := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Page", fmt.Sprint(page, rand.Uint64()))
	})
	const enough = 20000 // 40 MB of responses
	for name, ask := range map[string]func(t *testing.T, p *hop) func(i int) error{
		"HTTP/1": func(t *testing.T, p *hop) func(i int) error {
			w := raw(t, p)
			return func(int) error {
				_, err := io.WriteString(w.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				return err
			}
		},
		"HTTP/2": func(t *testing.T, p *hop) func(i int) error {
			f := newFrames(t, p)
			end := time.Now().Add(10 * time.Second)
			return func(i int) error {
				for p.log.count() < i-50 && time.Now().Before(end) {
					time.Sleep(time.Millisecond) // poll
				}
				f.get(uint32(2*i + 1))
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			program := old
			if name == "HTTP/2" {
				program = young
			}
			p := chain(t, model.HTTP{HTTP2: model.HTTP2Options{MaxStreams: 1 << 20}}, program)
			p.log.forget()
			next := ask(t, p)
			go func() {
				for i := range enough {
					if next(i) != nil {
						return
					}
				}
			}()
			last, same := -1, 0
			deadline := time.Now().Add(10 * time.Second)
			for same < 20 && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond) // poll
				if n := p.log.count(); n == last && n > 0 {
					same++
				} else {
					last, same = n, 0
				}
			}
			if last < 50 || last > enough*9/10 {
				t.Errorf("%d of %d requests were answered before the client read anything", last, enough)
			}
		})
	}
}

// A sidecar has no timer per stream; what stands still for too long ends all the same, when the connection looks.
func TestStill(t *testing.T) {
	cfg := &downstream.Config{IdleTimeout: 30 * time.Millisecond, StillTimeout: 60 * time.Millisecond}
	for name, young := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			program := silent(t)
			if young {
				program = h2cServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			}
			p := newHop(t, setup{origin: inbound(program), config: cfg, http2: young})
			if young {
				f := newFrames(t, p)
				f.get(1)
				if h := f.response(1); field(h, ":status") != "504" || field(h, "tulle-reason") != "idle_timeout" {
					t.Errorf("%v", h.Fields)
				}
				return
			}
			w := raw(t, p)
			w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if res, _ := w.response("GET"); res.StatusCode != 504 || res.Header.Get("Tulle-Reason") != "idle_timeout" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		})
	}
}
