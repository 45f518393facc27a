package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// script is a peer made of x/net's Framer: it sends any frames, right or wrong, and reads what comes back.
type script struct {
	t    *testing.T
	c    *http2.Conn
	own  owner
	log  []string // what Events was told
	last *http2.Stream
	err  error

	*xhttp2.Framer // to the connection
	toC            bytes.Buffer
	enc            *xhpack.Encoder
	block          bytes.Buffer
	fromC          bytes.Buffer
	read           *xhttp2.Framer
}

func newScript(t *testing.T, cfg http2.Config) *script {
	p := &script{t: t}
	p.own = owner{
		head: func(s *http2.Stream, h *message.Head, end bool) {
			p.last = s
			p.note("head %d %s%s %d fields %v", s.ID(), h.Method, statusOf(h), len(h.Fields), end)
		},
		data:     func(s *http2.Stream, b []byte, end bool) { p.note("data %d %d %v", s.ID(), len(b), end) },
		trailers: func(s *http2.Stream, h *message.Head) { p.note("trailers %d", s.ID()) },
		reset:    func(s *http2.Stream, code http2.ErrCode) { p.note("reset %d %v", s.ID(), code) },
		writable: func(s *http2.Stream) { p.note("writable %d", s.ID()) },
		goAway:   func(last uint32, code http2.ErrCode) { p.note("goaway %d %v", last, code) },
	}
	cfg.Events = &p.own
	p.c = http2.New(cfg)
	p.Framer = xhttp2.NewFramer(&p.toC, nil)
	p.Framer.AllowIllegalWrites = true
	p.enc = xhpack.NewEncoder(&p.block)
	p.read = xhttp2.NewFramer(nil, &p.fromC)
	p.read.ReadMetaHeaders = xhpack.NewDecoder(4096, nil)
	if cfg.Server {
		p.toC.WriteString(xhttp2.ClientPreface)
	}
	return p
}

func statusOf(h *message.Head) string {
	if h.Status == 0 {
		return ""
	}
	return fmt.Sprint(h.Status)
}

func (p *script) note(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// hello settles the connection.
func (p *script) hello() *script {
	p.WriteSettings()
	p.WriteSettingsAck()
	p.frames()
	return p
}

// encode makes a header block of pairs.
func (p *script) encode(kv ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		p.enc.WriteField(xhpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

var get = []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}
var post = []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}

func with(base []string, kv ...string) []string { return append(slices.Clone(base), kv...) }

func (p *script) headers(id uint32, end bool, kv ...string) {
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(kv...), EndStream: end, EndHeaders: true})
}

// frames feeds what was written and answers, one line each, the frames that come back.
func (p *script) frames() []string {
	p.t.Helper()
	n, err := p.c.Feed(p.toC.Bytes())
	p.toC.Next(n)
	p.err = err
	p.fromC.Write(bytes.TrimPrefix(p.c.Output(), []byte(xhttp2.ClientPreface)))
	p.c.Flushed()
	var out []string
	for {
		f, err := p.read.ReadFrame()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			p.t.Fatalf("x/net cannot read what we wrote: %v", err)
		}
		out = append(out, describe(f))
	}
}

func describe(f xhttp2.Frame) string {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *xhttp2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	case *xhttp2.RSTStreamFrame:
		return fmt.Sprintf("RST %d %v", id, f.ErrCode)
	case *xhttp2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW %d %d", id, f.Increment)
	case *xhttp2.DataFrame:
		return fmt.Sprintf("DATA %d %d %v", id, len(f.Data()), f.StreamEnded())
	case *xhttp2.MetaHeadersFrame:
		var fs []string
		for _, h := range f.Fields {
			fs = append(fs, h.Name+"="+h.Value)
		}
		return fmt.Sprintf("HEADERS %d %s %v", id, strings.Join(fs, " "), f.StreamEnded())
	case *xhttp2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ack"
		}
		return "SETTINGS"
	case *xhttp2.PingFrame:
		return fmt.Sprintf("PING %v", f.IsAck())
	}
	return f.Header().String()
}

func (p *script) expect(want ...string) {
	p.t.Helper()
	if got := p.frames(); !slices.Equal(got, want) {
		p.t.Fatalf("frames %q, want %q (log %q)", got, want, p.log)
	}
}

func (p *script) logged(want ...string) {
	p.t.Helper()
	if !slices.Equal(p.log, want) {
		p.t.Fatalf("events %q, want %q", p.log, want)
	}
	p.log = nil
}

// TestMalformedRequests: each is a stream error; the connection and its compression state go on.
func TestMalformedRequests(t *testing.T) {
	for name, kv := range map[string][]string{
		"no method":                {":scheme", "http", ":path", "/", ":authority", "a"},
		"no path":                  {":method", "GET", ":scheme", "http", ":authority", "a"},
		"no scheme":                {":method", "GET", ":path", "/", ":authority", "a"},
		"no authority":             {":method", "GET", ":scheme", "http", ":path", "/"},
		"empty path":               {":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"},
		"relative path":            {":method", "GET", ":scheme", "http", ":path", "x", ":authority", "a"},
		"space in path":            {":method", "GET", ":scheme", "http", ":path", "/a b", ":authority", "a"},
		"fragment":                 {":method", "GET", ":scheme", "http", ":path", "/a#b", ":authority", "a"},
		"asterisk":                 {":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"},
		"space in method":          {":method", "G T", ":scheme", "http", ":path", "/", ":authority", "a"},
		"user information":         {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@a"},
		"duplicate pseudo":         with(get, ":path", "/2"),
		"pseudo after field":       {":method", "GET", ":scheme", "http", "x", "y", ":path", "/", ":authority", "a"},
		"unknown pseudo":           with(get, ":unknown", "x"),
		"response pseudo":          with(get, ":status", "200"),
		"upper case":               with(get, "X-Upper", "y"),
		"space in name":            with(get, "x y", "z"),
		"colon in name":            with(get, "x:y", "z"),
		"empty name":               with(get, "", "z"),
		"line feed in value":       with(get, "x", "a\nb: c"),
		"return in value":          with(get, "x", "a\rb"),
		"NUL in value":             with(get, "x", "long enough for a word \x00"),
		"space before value":       with(get, "x", " y"),
		"tab after value":          with(get, "x", "y\t"),
		"connection":               with(get, "connection", "close"),
		"keep-alive":               with(get, "keep-alive", "1"),
		"proxy-connection":         with(get, "proxy-connection", "close"),
		"transfer-encoding":        with(get, "transfer-encoding", "chunked"),
		"upgrade":                  with(get, "upgrade", "h2c"),
		"te":                       with(get, "te", "trailers, deflate"),
		"host differs":             with(get, "host", "b"),
		"two lengths":              with(get, "content-length", "0", "content-length", "1"),
		"length no number":         with(get, "content-length", "+1"),
		"length and no body":       with(get, "content-length", "1"),
		"CONNECT with path":        {":method", "CONNECT", ":path", "/", ":authority", "a"},
		"CONNECT to nothing":       {":method", "CONNECT"},
		":protocol, not announced": {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newScript(t, http2.Config{Server: true}).hello()
			p.headers(1, true, kv...)
			p.expect("RST 1 PROTOCOL_ERROR")
			p.headers(3, true, with(get, "x-a", "b", "te", "trailers", "host", "A", "cookie", "a=1", "cookie", "b=2")...)
			p.headers(5, true, with(get, "x-a", "b")...)
			p.expect()
			p.logged("head 3 GET 2 fields true", "head 5 GET 1 fields true")
		})
	}
}

// TestBrokenStreams: what the peer does wrong on one stream is answered on that stream.
func TestBrokenStreams(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(p *script)
		want string
	}{
		"more than content-length": {func(p *script) {
			p.headers(1, false, with(post, "content-length", "2")...)
			p.WriteData(1, true, []byte("abc"))
		}, "RST 1 PROTOCOL_ERROR"},
		"less than content-length": {func(p *script) {
			p.headers(1, false, with(post, "content-length", "2")...)
			p.WriteData(1, true, []byte("a"))
		}, "RST 1 PROTOCOL_ERROR"},
		"trailers too early": {func(p *script) {
			p.headers(1, false, with(post, "content-length", "2")...)
			p.headers(1, true, "a", "b")
		}, "RST 1 PROTOCOL_ERROR"},
		"pseudo in trailers":       {func(p *script) { p.headers(1, false, post...); p.headers(1, true, ":path", "/") }, "RST 1 PROTOCOL_ERROR"},
		"length in trailers":       {func(p *script) { p.headers(1, false, post...); p.headers(1, true, "content-length", "0") }, "RST 1 PROTOCOL_ERROR"},
		"trailers that do not end": {func(p *script) { p.headers(1, false, post...); p.headers(1, false, "a", "b") }, "RST 1 PROTOCOL_ERROR"},
		"DATA after the end":       {func(p *script) { p.headers(1, true, get...); p.WriteData(1, true, []byte("a")) }, "RST 1 STREAM_CLOSED"},
		"stream window exceeded":   {func(p *script) { p.headers(1, false, post...); p.tooMuch(1) }, "RST 1 FLOW_CONTROL_ERROR"},
		"zero increment":           {func(p *script) { p.headers(1, false, post...); p.WriteWindowUpdate(1, 0) }, "RST 1 PROTOCOL_ERROR"},
		"window overflow":          {func(p *script) { p.headers(1, false, post...); p.WriteWindowUpdate(1, 1<<31-1) }, "RST 1 FLOW_CONTROL_ERROR"},
		"PRIORITY on itself":       {func(p *script) { p.headers(1, false, post...); p.WritePriority(1, xhttp2.PriorityParam{StreamDep: 1}) }, "RST 1 PROTOCOL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newScript(t, http2.Config{Server: true}).hello()
			tc.do(p)
			p.expect(tc.want)
			if p.err != nil || !strings.HasPrefix(p.log[len(p.log)-1], "reset 1") || p.c.Streams() != 0 {
				t.Fatal(p.err, p.log, p.c.Streams())
			}
			p.WriteData(1, false, []byte("still on its way")) // tolerated
			p.headers(1, true, "trailers", "as well")
			p.WriteWindowUpdate(1, 5)
			p.WriteRSTStream(1, xhttp2.ErrCodeCancel)
			p.headers(3, true, get...)
			p.expect()
		})
	}
}

// tooMuch sends more than the initial window of a stream.
func (p *script) tooMuch(id uint32) {
	for range 5 {
		p.WriteData(id, false, make([]byte, 16000))
	}
}

// TestBrokenConnections: what cannot be answered on one stream ends the connection.
func TestBrokenConnections(t *testing.T) {
	raw := func(typ xhttp2.FrameType, flags xhttp2.Flags, id uint32, n int) func(p *script) {
		return func(p *script) { p.WriteRawFrame(typ, flags, id, make([]byte, n)) }
	}
	for name, tc := range map[string]struct {
		do   func(p *script)
		want http2.ErrCode
	}{
		"frame too large":          {raw(xhttp2.FrameData, 0, 1, 16385), http2.FrameSizeError},
		"DATA on 0":                {raw(xhttp2.FrameData, 0, 0, 1), http2.ProtocolError},
		"DATA on idle":             {raw(xhttp2.FrameData, 0, 1, 1), http2.ProtocolError},
		"padding too long":         {raw(xhttp2.FrameData, xhttp2.FlagDataPadded, 1, 0), http2.FrameSizeError},
		"HEADERS on 0":             {raw(xhttp2.FrameHeaders, 4, 0, 0), http2.ProtocolError},
		"even stream":              {func(p *script) { p.headers(2, true, get...) }, http2.ProtocolError},
		"bad compression":          {func(p *script) { p.WriteRawFrame(xhttp2.FrameHeaders, 4, 1, []byte{0xff, 0xff}) }, http2.CompressionError},
		"CONTINUATION alone":       {raw(xhttp2.FrameContinuation, 4, 1, 0), http2.ProtocolError},
		"head interrupted":         {func(p *script) { p.WriteRawFrame(xhttp2.FrameHeaders, 0, 1, nil); p.WritePing(false, [8]byte{}) }, http2.ProtocolError},
		"stream number goes down":  {func(p *script) { p.headers(5, true, get...); p.headers(3, true, get...) }, http2.ProtocolError},
		"PUSH_PROMISE":             {raw(xhttp2.FramePushPromise, 4, 1, 4), http2.ProtocolError},
		"SETTINGS on a stream":     {raw(xhttp2.FrameSettings, 0, 1, 0), http2.ProtocolError},
		"SETTINGS of 5 bytes":      {raw(xhttp2.FrameSettings, 0, 0, 5), http2.FrameSizeError},
		"SETTINGS ack of 6 bytes":  {raw(xhttp2.FrameSettings, 1, 0, 6), http2.FrameSizeError},
		"push of 2":                {func(p *script) { p.WriteSettings(xhttp2.Setting{ID: 2, Val: 2}) }, http2.ProtocolError},
		"window of 1<<31":          {func(p *script) { p.WriteSettings(xhttp2.Setting{ID: 4, Val: 1 << 31}) }, http2.FlowControlError},
		"max frame too small":      {func(p *script) { p.WriteSettings(xhttp2.Setting{ID: 5, Val: 16383}) }, http2.ProtocolError},
		"PING of 7":                {raw(xhttp2.FramePing, 0, 0, 7), http2.FrameSizeError},
		"PING on a stream":         {raw(xhttp2.FramePing, 0, 1, 8), http2.ProtocolError},
		"GOAWAY of 7":              {raw(xhttp2.FrameGoAway, 0, 0, 7), http2.FrameSizeError},
		"WINDOW_UPDATE of 3":       {raw(xhttp2.FrameWindowUpdate, 0, 0, 3), http2.FrameSizeError},
		"WINDOW_UPDATE of nothing": {raw(xhttp2.FrameWindowUpdate, 0, 0, 4), http2.ProtocolError},
		"WINDOW_UPDATE too much":   {func(p *script) { p.WriteWindowUpdate(0, 1<<31-1) }, http2.FlowControlError},
		"WINDOW_UPDATE on idle":    {func(p *script) { p.WriteWindowUpdate(1, 1) }, http2.ProtocolError},
		"RST_STREAM on idle":       {func(p *script) { p.WriteRSTStream(1, 0) }, http2.ProtocolError},
		"RST_STREAM of 3":          {raw(xhttp2.FrameRSTStream, 0, 1, 3), http2.FrameSizeError},
		"connection window": {func(p *script) {
			for id := uint32(1); id < 40; id += 2 {
				p.headers(id, false, post...)
				for range 4 {
					p.WriteData(id, false, make([]byte, 16383))
				}
			}
		}, http2.FlowControlError},
		"CONTINUATION flood": {func(p *script) {
			p.WriteRawFrame(xhttp2.FrameHeaders, 0, 1, nil)
			for range 200 {
				p.WriteContinuation(1, false, []byte("\x00\x01a\x01b"))
			}
		}, http2.EnhanceYourCalm},
		"PING flood": {func(p *script) {
			for range 1200 {
				p.WritePing(false, [8]byte{})
			}
		}, http2.EnhanceYourCalm},
		"SETTINGS flood": {func(p *script) {
			for range 600 {
				p.WriteSettings()
			}
		}, http2.EnhanceYourCalm},
		"empty DATA flood": {func(p *script) {
			p.headers(1, false, post...)
			for range 1200 {
				p.WriteData(1, false, nil)
			}
		}, http2.EnhanceYourCalm},
		"rapid reset": {func(p *script) {
			for id := uint32(1); id < 2400; id += 2 {
				p.headers(id, false, post...)
				p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			}
		}, http2.EnhanceYourCalm},
		"streams broken on purpose": {func(p *script) {
			for id := uint32(1); id < 2400; id += 2 {
				p.headers(id, false, post...)
				p.WriteWindowUpdate(id, 0)
			}
		}, http2.EnhanceYourCalm},
	} {
		t.Run(name, func(t *testing.T) {
			p := newScript(t, http2.Config{Server: true}).hello()
			tc.do(p)
			out := p.frames()
			var ce *http2.ConnError
			if !errors.As(p.err, &ce) || ce.Code != tc.want {
				t.Fatalf("%v, want %v", p.err, tc.want)
			}
			if last := out[len(out)-1]; !strings.HasPrefix(last, "GOAWAY") || !strings.HasSuffix(last, tc.want.String()) {
				t.Errorf("last frame %s", last)
			}
			if n, err := p.c.Feed([]byte("anything")); n != 0 || err == nil {
				t.Error("went on after its end")
			}
		})
	}
}

func TestNotHTTP2(t *testing.T) {
	p := newScript(t, http2.Config{Server: true})
	if _, err := p.c.Feed([]byte("GET / HTTP/1.1\r\n")); err == nil {
		t.Error("an HTTP/1.1 request is no preface")
	}
	p = newScript(t, http2.Config{Server: true})
	p.WritePing(false, [8]byte{})
	p.frames()
	if p.err == nil {
		t.Error("the first frame has to be SETTINGS")
	}
}

// TestTickRefills: the same pings, slowly, are fine.
func TestTickRefills(t *testing.T) {
	p := newScript(t, http2.Config{Server: true}).hello()
	for i := range 5000 {
		p.c.Tick(time.Duration(i+1) * 20 * time.Millisecond)
		p.WritePing(false, [8]byte{})
		p.expect("PING true")
	}
}

func TestConcurrencyLimit(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, MaxConcurrent: 2}).hello()
	p.headers(1, false, post...)
	p.headers(3, false, post...)
	p.headers(5, false, post...)
	p.expect("RST 5 REFUSED_STREAM")
	p.WriteRSTStream(1, xhttp2.ErrCodeCancel)
	p.headers(7, false, post...)
	p.expect()
}

// TestHeadTooLarge: the owner may answer, else 431 is sent.
func TestHeadTooLarge(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, MaxHead: 1000}).hello()
	p.headers(1, true, with(get, "x", strings.Repeat("y", 2000))...)
	p.expect("HEADERS 1 :status=431 content-length=0 true")
	p.headers(3, false, with(get, "x", strings.Repeat("y", 2000))...)
	p.expect("HEADERS 3 :status=431 content-length=0 true", "RST 3 NO_ERROR")
	p.headers(5, true, get...)
	p.expect()
	p.logged("head 5 GET 0 fields true")
}

// TestFlowControl: credit goes back in portions, and only for what was consumed or is padding.
func TestFlowControl(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, InitialWindow: 1 << 16, ConnWindow: 1 << 17}).hello()
	p.headers(1, false, post...)
	for range 4 {
		p.WriteData(1, false, make([]byte, 16000))
	}
	p.expect()
	p.c.Consumed(p.last, 30000)
	p.expect()
	p.c.Consumed(p.last, 10000)
	p.expect("WINDOW 1 40000")
	p.c.Consumed(p.last, 1<<30) // no more than was given
	p.expect()
	p.WriteDataPadded(1, false, make([]byte, 16), make([]byte, 200))
	p.WriteData(1, false, make([]byte, 10000))
	p.expect()
	p.c.Reset(p.last, http2.Cancel) // what is held goes back too: 4*16000 + 201 of padding + 16 + 10000
	p.expect("RST 1 CANCEL", "WINDOW 0 74217")
}

func TestSendWindow(t *testing.T) {
	p := newScript(t, http2.Config{Server: true})
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
	p.frames()
	p.headers(1, true, get...)
	p.expect()
	p.log = nil
	s := p.last
	p.c.Head(s, response(200), false)
	if n := p.c.Data(s, make([]byte, 30), true); n != 10 {
		t.Fatal(n)
	}
	p.expect("HEADERS 1 :status=200 false", "DATA 1 10 false")
	p.WriteWindowUpdate(1, 5)
	p.expect()
	p.logged("writable 1")
	if n := p.c.Data(s, make([]byte, 20), true); n != 5 {
		t.Fatal(n)
	}
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 5}) // the window is now -5
	p.WriteWindowUpdate(1, 5)
	p.expect("DATA 1 5 false", "SETTINGS ack")
	p.logged()
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 25})
	p.expect("SETTINGS ack")
	p.logged("writable 1")
	if n := p.c.Data(s, make([]byte, 15), true); n != 15 || !s.Closed() {
		t.Fatal(n)
	}
	p.expect("DATA 1 15 true")
}

// TestDrain: a server's two steps; requests that cross the announcement are served, later ones are not looked at.
func TestDrain(t *testing.T) {
	p := newScript(t, http2.Config{Server: true}).hello()
	p.headers(1, true, get...)
	p.expect()
	p.c.Drain()
	p.expect("GOAWAY 2147483647 NO_ERROR", "PING false")
	p.headers(3, true, get...)
	p.WritePing(true, [8]byte{'t', 'u', 'l', 'l', 'e', 'd', 'r', 'n'})
	p.expect("GOAWAY 3 NO_ERROR")
	p.headers(5, true, get...)
	p.WriteData(5, true, nil)
	p.expect()
	p.logged("head 1 GET 0 fields true", "head 3 GET 0 fields true")
	if p.c.Drained() || p.c.Streams() != 2 {
		t.Fatal("drained with streams open")
	}
	p.c.Head(p.last, response(204), true)
	p.c.End(http2.InternalError)
	p.logged("reset 1 INTERNAL_ERROR")
	if !p.c.Drained() {
		t.Error("not drained")
	}
}

// TestClientGoAway: streams above the last id are safe to retry, the others go on.
func TestClientGoAway(t *testing.T) {
	p := newScript(t, http2.Config{}).hello()
	for range 3 {
		if _, err := p.c.Open(request("GET", "/"), true); err != nil {
			t.Fatal(err)
		}
	}
	p.frames()
	p.WriteGoAway(3, xhttp2.ErrCodeNo, nil)
	p.headers(1, true, ":status", "200")
	p.expect()
	p.logged("goaway 3 NO_ERROR", "reset 5 REFUSED_STREAM", "head 1 200 0 fields true")
	if _, err := p.c.Open(request("GET", "/"), true); err != http2.ErrNoStreams {
		t.Error(err)
	}
}

// TestMalformedResponses: each resets its stream.
func TestMalformedResponses(t *testing.T) {
	for name, do := range map[string]func(p *script){
		"no status":          func(p *script) { p.headers(1, true, "a", "b") },
		"status of 2 digits": func(p *script) { p.headers(1, true, ":status", "20") },
		"request pseudo":     func(p *script) { p.headers(1, true, ":status", "200", ":path", "/") },
		"101":                func(p *script) { p.headers(1, false, ":status", "101") },
		"interim that ends":  func(p *script) { p.headers(1, true, ":status", "100") },
		"DATA first":         func(p *script) { p.WriteData(1, true, nil) },
		"te":                 func(p *script) { p.headers(1, true, ":status", "200", "te", "trailers") },
		"body for 204":       func(p *script) { p.headers(1, false, ":status", "204"); p.WriteData(1, true, []byte("x")) },
		"length, no body":    func(p *script) { p.headers(1, true, ":status", "200", "content-length", "1") },
		"second head":        func(p *script) { p.headers(1, false, ":status", "200"); p.headers(1, false, ":status", "200") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newScript(t, http2.Config{}).hello()
			if _, err := p.c.Open(request("GET", "/"), true); err != nil {
				t.Fatal(err)
			}
			p.frames()
			do(p)
			p.expect("RST 1 PROTOCOL_ERROR")
			if p.log[len(p.log)-1] != "reset 1 PROTOCOL_ERROR" {
				t.Error(p.log)
			}
		})
	}
}

// TestNoBodyLength: HEAD and 304 keep content-length without a body.
func TestNoBodyLength(t *testing.T) {
	p := newScript(t, http2.Config{}).hello()
	p.c.Open(request("HEAD", "/"), true)
	p.c.Open(request("GET", "/"), true)
	p.frames()
	p.headers(1, true, ":status", "200", "content-length", "10")
	p.headers(3, false, ":status", "304", "content-length", "10")
	p.WriteData(3, true, nil)
	p.expect()
	p.logged("head 1 200 0 fields true", "head 3 304 0 fields false", "data 3 0 true")
}

// TestExtendedConnect: a WebSocket looks to both owners like an upgrade of HTTP/1.1.
func TestExtendedConnect(t *testing.T) {
	p := newPair(t, nil)
	var log []string
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {
		log = append(log, fmt.Sprintf("%s %s %s %v", h.Method, h.Target, h.Upgrade, end))
		r := response(101)
		r.Upgrade = []byte("websocket")
		p.server.Head(s, r, false)
		p.server.Data(s, []byte("hello"), false)
	}
	p.c.head = func(s *http2.Stream, h *message.Head, end bool) {
		log = append(log, fmt.Sprintf("%d %s %v", h.Status, h.Upgrade, end))
	}
	p.c.data = func(s *http2.Stream, b []byte, end bool) { log = append(log, string(b)) }
	h := request("GET", "/chat")
	h.Upgrade = []byte("websocket")
	if _, err := p.client.Open(h, false); err != nil {
		t.Fatal(err)
	}
	p.pump()
	if want := []string{"GET /chat websocket false", "101 websocket false", "hello"}; !slices.Equal(log, want) {
		t.Errorf("%q, want %q", log, want)
	}
	q := newPair(t, func(c, s *http2.Config) { s.EnableConnect = false })
	if _, err := q.client.Open(h, false); err != http2.ErrNoConnect {
		t.Error(err)
	}
}

func TestPing(t *testing.T) {
	p := newPair(t, nil)
	var got [8]byte
	p.c.pong = func(b [8]byte) { got = b }
	p.client.Ping([8]byte{1, 2, 3})
	p.pump()
	if got != [8]byte{1, 2, 3} {
		t.Error(got)
	}
}

// TestRelease: a released stream is used again, under another id; one that is still open is reset.
func TestRelease(t *testing.T) {
	p := newPair(t, nil)
	var resets []http2.ErrCode
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {}
	p.s.reset = func(s *http2.Stream, code http2.ErrCode) { resets = append(resets, code) }
	s, _ := p.client.Open(request("GET", "/"), true)
	p.pump()
	p.client.Release(s)
	p.pump()
	if !slices.Equal(resets, []http2.ErrCode{http2.Cancel}) {
		t.Error(resets)
	}
	again, _ := p.client.Open(request("GET", "/"), true)
	if again != s || s.ID() != 3 || s.Closed() {
		t.Error("not used again")
	}
}

// TestBlockedThenReset: a stream that waits for the connection's window and is reset is not asked for more; the
// others are, in the order in which they began to wait.
func TestBlockedThenReset(t *testing.T) {
	p := newScript(t, http2.Config{}).hello()
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	p.frames()
	var ss []*http2.Stream
	for range 4 {
		s, err := p.c.Open(request("POST", "/"), false)
		if err != nil {
			t.Fatal(err)
		}
		ss = append(ss, s)
		p.c.Data(s, make([]byte, 50000), true)
	}
	p.c.Reset(ss[2], http2.Cancel)
	p.frames()
	p.WriteRSTStream(ss[1].ID(), xhttp2.ErrCodeCancel)
	p.WriteWindowUpdate(0, 100)
	p.expect()
	p.logged("reset 3 CANCEL", "writable 7")
}

// TestPaddingIsCredit: padding comes back on the stream too, although the owner never sees it.
func TestPaddingIsCredit(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, InitialWindow: 400}).hello()
	p.headers(1, false, post...)
	p.WriteDataPadded(1, false, []byte("x"), make([]byte, 199))
	p.expect("WINDOW 1 200")
}

// TestOldResets: a client that gives up slow requests is no attacker.
func TestOldResets(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, Budget: 10}).hello()
	now := time.Second
	for id := uint32(1); id < 500; id += 10 {
		p.c.Tick(now)
		for i := range uint32(5) {
			p.headers(id+2*i, true, get...)
		}
		p.expect()
		now += time.Second
		p.c.Tick(now)
		for i := range uint32(5) {
			p.WriteRSTStream(id+2*i, xhttp2.ErrCodeCancel)
		}
		p.expect()
		if p.err != nil {
			t.Fatal(p.err)
		}
	}
}

// TestWindowBeforeAck: until our SETTINGS are acknowledged the peer may go by the default window.
func TestWindowBeforeAck(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, InitialWindow: 100})
	p.WriteSettings()
	p.headers(1, false, post...)
	p.WriteData(1, false, make([]byte, 16000))
	p.WriteSettingsAck()
	p.headers(3, false, post...)
	p.WriteData(3, false, make([]byte, 101))
	if out := p.frames(); out[len(out)-1] != "RST 3 FLOW_CONTROL_ERROR" {
		t.Error(out)
	}
	p.logged("head 1 POST 0 fields false", "data 1 16000 false", "head 3 POST 0 fields false", "reset 3 FLOW_CONTROL_ERROR")
}

// largeOwner answers heads that are too large by itself.
type largeOwner struct {
	owner
	s *http2.Stream
}

func (o *largeOwner) HeadTooLarge(s *http2.Stream) { o.s = s }

func TestHeadTooLargeOwner(t *testing.T) {
	var o largeOwner
	var c *http2.Conn
	p := newScript(t, http2.Config{Server: true})
	c = http2.New(http2.Config{Server: true, MaxHead: 1000, Events: &o})
	p.c = c
	p.hello()
	p.headers(1, true, with(get, "x", strings.Repeat("y", 2000))...)
	p.expect()
	if o.s == nil {
		t.Fatal("not told")
	}
	c.Head(o.s, response(431, "tulle-reason", "head_too_large"), true)
	p.expect("HEADERS 1 :status=431 tulle-reason=head_too_large true")
}

// TestLongHead: a head longer than a frame goes out in several, and is taken from several.
func TestLongHead(t *testing.T) {
	p := newPair(t, nil)
	long := strings.Repeat("0123456789", 5000)
	var seen, back string
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {
		seen = string(h.Get("x-long"))
		p.server.Head(s, response(200, "x-long", seen), true)
	}
	p.c.head = func(s *http2.Stream, h *message.Head, end bool) { back = string(h.Get("x-long")) }
	p.client.Open(request("GET", "/", "X-Long", long), true)
	p.pump()
	if seen != long || back != long {
		t.Errorf("%d bytes there, %d back", len(seen), len(back))
	}
}

// TestSecrets: credentials are never indexed, whoever wrote them (RFC 7541 section 7.1.3).
func TestSecrets(t *testing.T) {
	p := newPair(t, nil)
	sensitive := map[string]bool{}
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {
		for _, f := range h.Fields {
			sensitive[string(f.Name)] = f.Sensitive
		}
	}
	h := request("GET", "/", "Authorization", "Bearer x", "cookie", "short", "x-mine", "v", "accept", "*/*")
	h.Fields[2].Sensitive = true
	for range 3 {
		p.client.Open(h, true)
	}
	p.pump()
	if !sensitive["authorization"] || !sensitive["cookie"] || !sensitive["x-mine"] || sensitive["accept"] {
		t.Error(sensitive)
	}
}
