package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// played is what one connection made of some input.
type played struct {
	log []string
	out []byte
	err string
}

// play feeds input in pieces of step bytes (0: at once) to a connection whose owner answers everything.
func play(t *testing.T, server bool, input []byte, step int) played {
	var r played
	var c *http2.Conn
	note := func(format string, args ...any) { r.log = append(r.log, fmt.Sprintf(format, args...)) }
	o := &owner{
		head: func(s *http2.Stream, h *message.Head, end bool) {
			note("head %d %q %q %q %d %v %v", s.ID(), h.Method, h.Target, h.Authority, h.Status, h.Fields, end)
			if server {
				c.Head(s, response(200, "x-echo", string(h.Target)), false)
				if end {
					c.Data(s, []byte("some answer"), true)
				}
			}
		},
		data: func(s *http2.Stream, p []byte, end bool) {
			note("data %d %x %v", s.ID(), p, end)
			c.Consumed(s, len(p))
			if server {
				c.Data(s, p, end)
			}
		},
		trailers: func(s *http2.Stream, h *message.Head) {
			note("trailers %d %v", s.ID(), h.Fields)
			c.Trailers(s, h)
			c.Release(s)
		},
		reset:    func(s *http2.Stream, code http2.ErrCode) { note("reset %d %v", s.ID(), code); c.Release(s) },
		writable: func(s *http2.Stream) { note("writable %d", s.ID()); c.Data(s, []byte("more"), true) },
		goAway:   func(last uint32, code http2.ErrCode) { note("goaway %d %v", last, code) },
	}
	c = http2.New(http2.Config{Server: server, MaxConcurrent: 10, MaxHead: 4096, Budget: 50, EnableConnect: true, Events: o})
	if !server {
		c.Open(request("GET", "/"), true)
		s, _ := c.Open(request("POST", "/"), false)
		c.Data(s, make([]byte, 70000), true)
	}
	var buf []byte
	for len(input) > 0 {
		k := len(input)
		if step > 0 {
			k = min(k, step)
		}
		buf = append(buf, input[:k]...)
		input = input[k:]
		n, err := c.Feed(buf)
		buf = append(buf[:0], buf[n:]...)
		r.out = append(r.out, c.Output()...)
		c.Flushed()
		if err != nil {
			r.err = err.Error()
			break
		}
		if len(buf) > 16384+9 {
			t.Fatalf("%d bytes of a frame left unused", len(buf))
		}
		if c.Streams() > 10 {
			t.Fatalf("%d streams open", c.Streams())
		}
	}
	c.End(http2.Cancel)
	if c.Streams() != 0 {
		t.Fatal("streams open after the end")
	}
	return r
}

// joined is what was written with neighbouring DATA of one stream in one frame: how it is cut up depends on when it was
// flushed.
func joined(out []byte) []byte {
	out, _ = bytes.CutPrefix(out, []byte(xhttp2.ClientPreface))
	var all, body []byte
	for len(out) >= 9 {
		n := int(out[0])<<16 | int(out[1])<<8 | int(out[2])
		head, payload := out[3:9], out[9:9+n]
		out = out[9+n:]
		body = append(body, payload...)
		if more := len(out) >= 9 && head[0] == 0 && head[1] == 0 && out[3] == 0 && bytes.Equal(head[2:], out[5:9]); more {
			continue
		}
		all = fmt.Appendf(all, "%x %x\n", head, body)
		body = body[:0]
	}
	return append(all, out...)
}

// check holds one input to: no panic, bytes one by one mean the same, and x/net can read all that is written.
func check(t *testing.T, server bool, input []byte) {
	whole := play(t, server, input, 0)
	for _, step := range []int{1, 7, 100} {
		if pieces := play(t, server, input, step); !slices.Equal(whole.log, pieces.log) || !bytes.Equal(joined(whole.out), joined(pieces.out)) || whole.err != pieces.err {
			t.Fatalf("in pieces of %d: %q %v\nwhole: %q %v", step, pieces.log, pieces.err, whole.log, whole.err)
		}
	}
	if len(whole.out) > 100_000+100*len(input) {
		t.Fatalf("%d bytes in, %d bytes out", len(input), len(whole.out))
	}
	fr := xhttp2.NewFramer(nil, bytes.NewReader(bytes.TrimPrefix(whole.out, []byte(xhttp2.ClientPreface))))
	fr.ReadMetaHeaders = xhpack.NewDecoder(4096, nil)
	for {
		if _, err := fr.ReadFrame(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("x/net cannot read what we wrote: %v", err)
		}
	}
}

// FuzzFeed gives any bytes to both roles, after a proper beginning.
func FuzzFeed(f *testing.F) {
	var seed bytes.Buffer
	fr := xhttp2.NewFramer(&seed, nil)
	block := []byte("\x82\x86\x84\x41\x01a\x40\x01x\x01y")
	fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
	fr.WriteDataPadded(1, false, []byte("hello"), make([]byte, 3))
	fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x00\x01t\x01v"), EndHeaders: true, EndStream: true})
	fr.WritePing(false, [8]byte{})
	fr.WriteGoAway(1, 0, nil)
	fr.WriteWindowUpdate(0, 10)
	f.Add(true, seed.Bytes())
	seed = bytes.Buffer{}
	fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x88\x40\x01x\x01y"), EndHeaders: true})
	fr.WriteData(1, true, []byte("hello"))
	fr.WriteRSTStream(3, 8)
	f.Add(false, seed.Bytes())
	f.Fuzz(func(t *testing.T, server bool, input []byte) {
		check(t, server, append(beginning(server), input...))
	})
}

func beginning(server bool) []byte {
	var b bytes.Buffer
	if server {
		b.WriteString(xhttp2.ClientPreface)
	}
	fr := xhttp2.NewFramer(&b, nil)
	fr.WriteSettings()
	fr.WriteSettingsAck()
	return b.Bytes()
}

// FuzzFrames makes frames of the input, four bytes each (type, flags, stream, payload), so that every one gets
// as far as the state machine.
func FuzzFrames(f *testing.F) {
	f.Add(true, []byte("\x01\x04\x01\x00\x00\x01\x01\x05\x01\x04\x01\x02\x03\x00\x03\x04"))
	f.Add(true, []byte("\x01\x05\x01\x00\x01\x05\x03\x01\x08\x00\x03\x04\x06\x00\x00\x08"))
	f.Add(false, []byte("\x01\x04\x01\x03\x00\x01\x01\x05\x03\x00\x03\x04\x07\x00\x00\x08"))
	blocks := [][]byte{
		[]byte("\x82\x86\x84\x41\x01a"), []byte("\x83\x86\x84\x41\x01a\x0f\x0d\x015"), []byte("\x00\x01t\x01v"), []byte("\x88"),
		[]byte("\x88\x40\x01x\x01y"), []byte("\xbe\x88"), []byte("\x48\x03100"), []byte("\x42\x07CONNECT\x86\x84\x41\x01a\x00\x09:protocol\x01w"),
		[]byte("\x89"), []byte("\x20\x82\x86\x84\x41\x01a"), {}, []byte("\x80"),
	}
	f.Fuzz(func(t *testing.T, server bool, program []byte) {
		b := bytes.NewBuffer(beginning(server))
		fr := xhttp2.NewFramer(b, nil)
		fr.AllowIllegalWrites = true
		for ; len(program) >= 4; program = program[4:] {
			typ, flags, id, x := xhttp2.FrameType(program[0]%11), xhttp2.Flags(program[1]), uint32(program[2]%16), program[3]
			p := make([]byte, x%9)
			switch typ {
			case xhttp2.FrameHeaders, xhttp2.FrameContinuation:
				p = blocks[int(x)%len(blocks)]
				flags &^= xhttp2.FlagHeadersPadded | xhttp2.FlagHeadersPriority
			case xhttp2.FrameWindowUpdate, xhttp2.FrameRSTStream:
				p = []byte{x >> 7 * 0x7f, 0, x, x}
			case xhttp2.FrameSettings:
				id = 0
				p = []byte{0, x % 10, 0, 0, x, x}
				if flags&1 != 0 {
					p = nil
				}
			case xhttp2.FramePing, xhttp2.FrameGoAway:
				id = 0
				p = []byte{0, 0, 0, x % 8, 0, 0, 0, 0}
			}
			fr.WriteRawFrame(typ, flags, id, p)
		}
		check(t, server, b.Bytes())
	})
}
