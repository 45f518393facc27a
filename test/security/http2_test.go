//go:build e2e

package security

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// talk2 opens an HTTP/2 connection to the published port, lets send write frames, and answers what ended it: "goaway", "reset" or
// "closed", a status, or "open" when nothing did.
func talk2(m *mesh, send func(w *peer2)) string {
	c, err := net.Dial("tcp", m.published)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	p := &peer2{c: c}
	p.Framer = http2.NewFramer(&p.out, c)
	p.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.out.WriteString(http2.ClientPreface)
		_ = p.WriteSettings()
		send(p)
		p.flush()
	}()
	_ = c.SetDeadline(time.Now().Add(1500 * time.Millisecond))
	got := p.heard()
	c.Close()
	<-done
	return got
}

// peer2 is our end.
type peer2 struct {
	*http2.Framer
	c     net.Conn
	out   bytes.Buffer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (p *peer2) flush() {
	_, _ = p.c.Write(p.out.Bytes()) // the other end may have had enough
	p.out.Reset()
}

// head writes the fields of a request: pairs of name and value.
func (p *peer2) fields(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

var plain = []string{":method", "GET", ":scheme", "http", ":authority", "target", ":path", "/x"}

func (p *peer2) get(id uint32, more ...string) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(append(append([]string{}, plain...), more...)...), EndHeaders: true, EndStream: true})
}

func (p *peer2) path(target string) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET", ":scheme", "http", ":authority", "target", ":path", target), EndHeaders: true, EndStream: true})
}

// heard reads to the end of the connection.
func (p *peer2) heard() string {
	dec := hpack.NewDecoder(4096, nil)
	status := "open"
	for {
		f, err := p.ReadFrame()
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return status
			}
			if status == "open" {
				status = "closed"
			}
			return status
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "goaway"
			}
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.HeadersFrame:
			fields, _ := dec.DecodeFull(f.HeaderBlockFragment())
			for _, h := range fields {
				if h.Name == ":status" {
					return h.Value
				}
			}
		}
	}
}

func frame2(name string, want []string, send func(p *peer2)) row {
	return row{name: "http2 " + name, want: want, hidden: true, try: func(m *mesh) string { return talk2(m, send) }}
}

// frames is what the protocol forbids.
func frames() (rows []row) {
	for name, send := range map[string]func(p *peer2){
		"data on stream 0": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) }, "data on an idle stream": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameData, 0, 1, []byte("x")) },
		"head on stream 0": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 4, 0, p.fields(plain...)) }, "even stream": func(p *peer2) { p.get(2) }, "stream that goes back": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 5, 5, p.fields(":method", "x y")); p.get(3) },
		"push promise":               func(p *peer2) { _ = p.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2}) },
		"settings on a stream":       func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 1, nil) },
		"settings of 5 bytes":        func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0, 1, 2, 3, 4}) },
		"acknowledgement with bytes": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 1, 0, []byte{0, 1, 0, 0, 0, 1}) },
		"enable push 2":              func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0, 2, 0, 0, 0, 2}) },
		"window too large":           func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0, 4, 255, 255, 255, 255}) },
		"frames too small":           func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0, 5, 0, 0, 0, 1}) },
		"frames too large":           func(p *peer2) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0, 5, 255, 255, 255, 255}) },
		"ping of 7 bytes":            func(p *peer2) { _ = p.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, "ping on a stream": func(p *peer2) { _ = p.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) },
		"reset of an idle stream": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameRSTStream, 0, 1, make([]byte, 4)) }, "reset on stream 0": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameRSTStream, 0, 0, make([]byte, 4)) }, "reset of 3 bytes": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameRSTStream, 0, 1, make([]byte, 3)) },
		"window update of 0": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, "window update of 3 bytes": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 3)) }, "window update of an idle stream": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, []byte{0, 0, 0, 1}) },
		"window overflow": func(p *peer2) {
			for range 2 {
				_ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0x7f, 255, 255, 255})
			}
		},
		"continuation alone": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameContinuation, 4, 1, p.fields(plain...)) },
		"head interrupted": func(p *peer2) {
			_ = p.WriteRawFrame(http2.FrameHeaders, 0, 1, p.fields(plain...))
			_ = p.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 8))
		},
		"head of another stream": func(p *peer2) {
			_ = p.WriteRawFrame(http2.FrameHeaders, 0, 1, p.fields(plain...))
			_ = p.WriteRawFrame(http2.FrameContinuation, 4, 3, nil)
		},
		"padding longer than the frame": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 0xd, 1, []byte{255, 0x82}) },
		"frame of a megabyte":           func(p *peer2) { _ = p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) },
		"broken compression": func(p *peer2) {
			_ = p.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		},
		"index beyond the table":    func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xfe}) },
		"table larger than allowed": func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0x3f, 0xe1, 0xff, 0x03, 0x82}) },
	} {
		rows = append(rows, frame2("frame: "+name, []string{"goaway", "reset", "closed"}, send))
	}
	rows = append(rows, row{name: "http2 broken preface", want: refused, hidden: true, try: func(m *mesh) string { return raw(m, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n") }})
	return rows
}

// heads2 is requests that mean two things, or would as HTTP/1.
func heads2() (rows []row) {
	with := func(more ...string) []string { return append(append([]string{}, plain...), more...) }
	for name, pairs := range map[string][]string{
		"upper case": with("X-Up", "a"), "connection": with("connection", "close"), "transfer-encoding": with("transfer-encoding", "chunked"), "upgrade": with("upgrade", "h2c"), "keep-alive": with("keep-alive", "1"),
		"te gzip": with("te", "gzip"), "two lengths": with("content-length", "0", "content-length", "5"), "length without a body": with("content-length", "5"), "length with a sign": with("content-length", "+0"),
		"line feed in a value": with("x", "a\nb: c"), "return in a value": with("x", "a\r\nb: c"), "null in a value": with("x", "a\x00b"), "blank around a value": with("x", " a"), "blank in a name": with("x y", "a"), "colon in a name": with("x:y", "a"), "line feed in a name": with("x\ny", "a"), "empty name": with("", "a"),
		"another host": with("host", "other"), "no path": {":method", "GET", ":scheme", "http", ":authority", "target"}, "empty path": {":method", "GET", ":scheme", "http", ":authority", "target", ":path", ""}, "no method": {":scheme", "http", ":authority", "target", ":path", "/x"}, "no scheme": {":method", "GET", ":authority", "target", ":path", "/x"},
		"two paths": with(":path", "/y"), "two methods": append([]string{":method", "POST"}, plain...), "status": append([]string{":status", "200"}, plain...), "unknown pseudo": append([]string{":x", "200"}, plain...), "pseudo behind fields": {":method", "GET", ":scheme", "http", "x", "y", ":authority", "target", ":path", "/x"},
		"blank in the path": {":method", "GET", ":scheme", "http", ":authority", "target", ":path", "/x HTTP/1.1\r\nX: y"}, "line feed in the path": {":method", "GET", ":scheme", "http", ":authority", "target", ":path", "/x\ny"}, "fragment": {":method", "GET", ":scheme", "http", ":authority", "target", ":path", "/x#y"}, "path without a slash": {":method", "GET", ":scheme", "http", ":authority", "target", ":path", "x"},
		"blank in the method": {":method", "GET /y", ":scheme", "http", ":authority", "target", ":path", "/x"}, "user in the authority": {":method", "GET", ":scheme", "http", ":authority", "a@target", ":path", "/x"}, "blank in the authority": {":method", "GET", ":scheme", "http", ":authority", "a b", ":path", "/x"}, "connect with a path": {":method", "CONNECT", ":scheme", "http", ":authority", "target:80", ":path", "/x"},
	} {
		rows = append(rows, frame2("head: "+name, refused, func(p *peer2) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(pairs...), EndHeaders: true, EndStream: true})
		}))
	}
	return rows
}

// floods is a lot of what costs the sender little.
func floods() []row {
	ended := []string{"goaway", "reset", "closed"}
	flood := func(name string, n int, want []string, one func(p *peer2, i int)) row {
		return row{name: "http2 flood: " + name, want: want, try: func(m *mesh) string {
			return talk2(m, func(p *peer2) {
				for i := range n {
					one(p, i)
					if p.out.Len() > 64<<10 {
						p.flush()
					}
				}
			})
		}}
	}
	big := strings.Repeat("x", 4000)
	return []row{
		flood("rapid reset", 20_000, ended, func(p *peer2, i int) {
			p.get(uint32(2*i + 1))
			_ = p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}),
		flood("settings", 50_000, ended, func(p *peer2, _ int) { _ = p.WriteSettings() }), flood("ping", 50_000, ended, func(p *peer2, _ int) { _ = p.WritePing(false, [8]byte{}) }),
		flood("priority", 50_000, append(ended, "open"), func(p *peer2, _ int) { _ = p.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }),
		flood("unknown frames", 50_000, append(ended, "open"), func(p *peer2, _ int) { _ = p.WriteRawFrame(0x77, 0, 0, nil) }),
		flood("empty continuations", 50_000, ended, func(p *peer2, i int) {
			if i == 0 {
				_ = p.WriteRawFrame(http2.FrameHeaders, 0, 1, p.fields(plain...))
			}
			_ = p.WriteRawFrame(http2.FrameContinuation, 0, 1, nil)
		}),
		flood("continuations", 2000, ended, func(p *peer2, i int) {
			if i == 0 {
				_ = p.WriteRawFrame(http2.FrameHeaders, 0, 1, p.fields(plain...))
			}
			_ = p.WriteRawFrame(http2.FrameContinuation, 0, 1, p.fields(fmt.Sprint("x", i), big))
		}),
		flood("empty data", 50_000, append(ended, "200"), func(p *peer2, i int) {
			if i == 0 {
				_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "POST", ":scheme", "http", ":authority", "target", ":path", "/x"), EndHeaders: true})
			}
			_ = p.WriteRawFrame(http2.FrameData, 0, 1, nil)
		}),
		flood("window updates of one", 50_000, append(ended, "open", "200"), func(p *peer2, i int) { _ = p.WriteWindowUpdate(0, 1) }),
		flood("5000 streams at once", 5000, append(ended, "200"), func(p *peer2, i int) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: p.fields(":method", "POST", ":scheme", "http", ":authority", "target", ":path", "/x"), EndHeaders: true})
		}),
		flood("compression bomb", 1, append(ended, "431"), func(p *peer2, _ int) {
			block := p.fields(append(append([]string{}, plain...), "bomb", big)...)
			_ = p.WriteRawFrame(http2.FrameHeaders, 1, 1, append(block, bytes.Repeat([]byte{0xbe}, 12_000)...)) // each byte is 4 KB
			_ = p.WriteRawFrame(http2.FrameContinuation, 4, 1, bytes.Repeat([]byte{0xbe}, 12_000))
		}),
		{name: "http2 window of nothing", want: []string{"open"}, try: func(m *mesh) string {
			return slow(m, 50, preface(func(p *peer2) {
				_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				for i := range 50 {
					p.get(uint32(2*i + 1))
				}
			}))
		}},
		{name: "http2 heads that never end", want: []string{"open"}, try: func(m *mesh) string {
			return slow(m, 100, preface(func(p *peer2) { _ = p.WriteRawFrame(http2.FrameHeaders, 0, 1, p.fields(plain...)) }))
		}},
	}
}

// preface answers what send writes, behind the beginning of a connection.
func preface(send func(p *peer2)) string {
	p := &peer2{}
	p.Framer = http2.NewFramer(&p.out, io.MultiReader())
	p.enc = hpack.NewEncoder(&p.block)
	p.out.WriteString(http2.ClientPreface)
	send(p)
	return p.out.String()
}
