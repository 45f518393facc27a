package http2_test

import (
	"fmt"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// TestComposeRequest: what a request looks like on the wire, whatever version it came in.
func TestComposeRequest(t *testing.T) {
	full := request("PATCH", "/x?y", "Connection", "a", "Keep-Alive", "1", "Proxy-Connection", "b", "Transfer-Encoding", "chunked",
		"Upgrade", "c", "TE", "gzip", "Host", "other", "Content-Length", "7", "HTTP2-Settings", "d", "Expect", "100-continue",
		":path", "/evil", "", "nameless", "X-Spaced", " \tv ", "X-Empty", "", "Proxy-Authorization", "secret")
	full.ContentLength, full.Trailers, full.Continue = 12, true, true
	https := request("GET", "")
	https.Scheme = []byte("https")
	other := request("OPTIONS", "*")
	other.Scheme, other.Authority = []byte("coap"), nil
	connect := request("CONNECT", "")
	for _, tc := range []struct {
		h    *message.Head
		want string
	}{
		{full, ":method=PATCH :scheme=http :path=/x?y :authority=reviews.default:9080 content-length=12 te=trailers expect=100-continue x-spaced=v x-empty= proxy-authorization=secret"},
		{https, ":method=GET :scheme=https :path=/ :authority=reviews.default:9080"},
		{other, ":method=OPTIONS :scheme=coap :path=*"},
		{connect, ":method=CONNECT :authority=reviews.default:9080"},
	} {
		p := newScript(t, http2.Config{}).hello()
		if _, err := p.c.Open(tc.h, false); err != nil {
			t.Fatal(err)
		}
		p.expect("HEADERS 1 " + tc.want + " false")
	}
}

// TestComposeResponse: every status that has a short form and some that have none; lengths where they may stand.
func TestComposeResponse(t *testing.T) {
	for _, tc := range []struct {
		method     string
		status     int
		length     int64
		want       string
		ends, body bool
	}{
		{"GET", 200, 5, ":status=200 content-length=5", false, true},
		{"GET", 204, 0, ":status=204", true, false},
		{"GET", 206, 5, ":status=206 content-length=5", false, true},
		{"GET", 304, 5, ":status=304 content-length=5", true, false},
		{"GET", 400, -1, ":status=400", false, true},
		{"GET", 404, 5, ":status=404 content-length=5", false, true},
		{"GET", 500, 5, ":status=500 content-length=5", false, true},
		{"GET", 503, 5, ":status=503 content-length=5", false, true},
		{"GET", 7, 5, ":status=500 content-length=5", false, true},
		{"HEAD", 200, 5, ":status=200 content-length=5", true, false},
	} {
		p := newScript(t, http2.Config{Server: true}).hello()
		p.headers(1, true, ":method", tc.method, ":scheme", "http", ":path", "/", ":authority", "a")
		p.frames()
		h := response(tc.status)
		h.ContentLength = tc.length
		p.c.Head(p.last, h, false)
		if n := p.c.Data(p.last, []byte("hello"), true); n != 5 {
			t.Errorf("%s %d: %d bytes taken", tc.method, tc.status, n)
		}
		want := []string{fmt.Sprintf("HEADERS 1 %s %v", tc.want, tc.ends)}
		if tc.body {
			want = append(want, "DATA 1 5 true")
		}
		p.expect(want...)
		if !p.last.Closed() || p.c.Streams() != 0 {
			t.Errorf("%s %d: still open", tc.method, tc.status)
		}
	}
}

// TestComposeOdd: calls out of order do no harm, and trailers without a field are an empty DATA frame.
func TestComposeOdd(t *testing.T) {
	p := newScript(t, http2.Config{Server: true}).hello()
	p.headers(1, true, get...)
	p.frames()
	s := p.last
	if p.c.Data(s, []byte("early"), false) != 5 {
		t.Error("waits for a head")
	}
	p.c.Trailers(s, response(0))
	p.expect()
	p.c.Head(s, response(100), true) // an interim head never ends
	p.c.Head(s, response(200), false)
	p.c.Head(s, response(500), false)
	p.c.Trailers(s, response(0, "connection", "x"))
	p.c.Trailers(s, response(0, "x", "y"))
	p.c.Data(s, []byte("late"), true)
	p.c.Consumed(s, 100)
	p.c.Reset(s, http2.Cancel)
	p.expect("HEADERS 1 :status=100 false", "HEADERS 1 :status=200 false", "DATA 1 0 true")
	p.c.Release(s)
	p.c.Release(s)
	p.expect()
	p.headers(3, true, get...)
	p.frames()
	p.c.Head(p.last, response(101), false) // nobody asked for another protocol
	p.expect("RST 3 INTERNAL_ERROR")
	if _, err := p.c.Open(request("GET", "/"), true); err == nil {
		t.Error("a server opened a request")
	}
}

// TestAuthority: Host stands in for :authority, and priority and padding of HEADERS are read over.
func TestAuthority(t *testing.T) {
	p := newScript(t, http2.Config{Server: true}).hello()
	var seen string
	p.own.head = func(s *http2.Stream, h *message.Head, end bool) {
		seen = fmt.Sprintf("%s %s %v %v %d", h.Authority, h.Scheme, h.Trailers, h.Continue, h.ContentLength)
	}
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndHeaders: true, PadLength: 9, Priority: xhttp2.PriorityParam{StreamDep: 7, Weight: 3},
		BlockFragment: p.encode(":method", "PUT", ":scheme", "https", ":path", "/", "host", "by.host", "te", "Trailers", "expect", "100-Continue",
			"content-length", "3", "content-length", "3")})
	p.expect()
	if want := "by.host https true true 3"; seen != want {
		t.Errorf("%s, want %s", seen, want)
	}
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, EndHeaders: true, Priority: xhttp2.PriorityParam{StreamDep: 3, Weight: 3}, BlockFragment: p.encode(get...)})
	p.expect("RST 3 PROTOCOL_ERROR")
	p.WriteRawFrame(xhttp2.FrameHeaders, 4|xhttp2.FlagHeadersPriority, 5, []byte{1})
	p.expect("GOAWAY 3 FRAME_SIZE_ERROR")
}
