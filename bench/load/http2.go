package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2conn is one HTTP/2 connection that keeps Streams requests, or messages of one stream, under way. Its
// window towards us is as large as the protocol allows, so that what is measured is never held up by us.
type http2conn struct {
	c   *client
	n   net.Conn
	r   *bufio.Reader
	w   *bufio.Writer
	f   *http2.Framer
	enc *hpack.Encoder
	dec *hpack.Decoder
	buf bytes.Buffer

	mu      sync.Mutex // open loop: requests are sent beside the reader
	since   map[uint32]time.Time
	id      uint32
	given   int   // of the connection's window, since it was topped up
	ok      bool  // the head under way says success
	pending int64 // messages of the stream
	sent    []time.Time
	over    bool
}

// message is a gRPC message of 100 bytes.
var message = append([]byte{0, 0, 0, 0, 100}, bytes.Repeat([]byte{'x'}, 100)...)

const topUp = 1 << 24

func (c *client) http2() error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	defer n.Close()
	h := &http2conn{c: c, n: n, w: bufio.NewWriterSize(n, 64<<10), since: map[uint32]time.Time{}, id: 1}
	h.r = bufio.NewReaderSize(n, 64<<10)
	h.f = http2.NewFramer(h.w, h.r)
	h.f.SetReuseFrames()
	h.enc = hpack.NewEncoder(&h.buf)
	h.dec = hpack.NewDecoder(4096, h.field)
	if _, err := h.w.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := h.f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}); err != nil {
		return err
	}
	if err := h.f.WriteWindowUpdate(0, 1<<30); err != nil {
		return err
	}
	if c.plan.Rate == 0 {
		if err := h.fill(); err != nil {
			return err
		}
	}
	if err := h.w.Flush(); err != nil {
		return err
	}
	if c.plan.Rate > 0 {
		go h.offer() // from here on only with mu
	}
	return h.read()
}

// fill starts what a closed loop has under way.
func (h *http2conn) fill() error {
	if h.c.plan.Kind == GRPCStream {
		if err := h.head(false); err != nil {
			return err
		}
		for range h.c.plan.Streams {
			if err := h.f.WriteData(1, false, message); err != nil {
				return err
			}
		}
		return nil
	}
	for range h.c.plan.Streams {
		if err := h.request(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// offer sends requests when they are due, whatever has been answered. It ends with the plan.
func (h *http2conn) offer() {
	for {
		since, ok := h.c.wait()
		h.mu.Lock()
		if !ok {
			h.over = true
			if len(h.since) == 0 && len(h.sent) == 0 {
				_ = h.n.Close() // the reader ends
			}
			h.mu.Unlock()
			return
		}
		err := h.request(since)
		if err == nil {
			err = h.w.Flush()
		}
		h.mu.Unlock()
		if err != nil {
			return // the reader tells
		}
	}
}

// request sends one request, or one message of the stream.
func (h *http2conn) request(since time.Time) error {
	switch h.c.plan.Kind {
	case GRPCStream:
		if h.id == 1 {
			if err := h.head(false); err != nil {
				return err
			}
		}
		h.sent = append(h.sent, since)
		return h.f.WriteData(1, false, message)
	case GRPCUnary:
		id := h.id
		h.since[id] = since
		if err := h.head(false); err != nil {
			return err
		}
		return h.f.WriteData(id, true, message)
	}
	h.since[h.id] = since
	return h.head(true)
}

// head opens a stream.
func (h *http2conn) head(end bool) error {
	h.buf.Reset()
	field := func(name, value string) { _ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) } // a buffer takes all
	if h.c.plan.Kind == HTTP2 {
		field(":method", "GET")
	} else {
		field(":method", "POST")
	}
	scheme := "http"
	if h.c.tls != nil {
		scheme = "https"
	}
	field(":scheme", scheme)
	field(":path", map[Kind]string{HTTP2: "/", GRPCUnary: "/bench.Bench/Unary", GRPCStream: "/bench.Bench/Stream"}[h.c.plan.Kind])
	field(":authority", h.c.plan.Host)
	field("user-agent", "load")
	if h.c.plan.Kind != HTTP2 {
		field("content-type", "application/grpc")
		field("te", "trailers")
	}
	id := h.id
	h.id += 2
	return h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.buf.Bytes(), EndHeaders: true, EndStream: end})
}

// field looks at one field of a head or trailers.
func (h *http2conn) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		h.ok = f.Value == "200"
	case "grpc-status":
		h.ok = f.Value == "0"
	}
}

// read takes what comes, and in a closed loop sends the next request for every one that is answered.
func (h *http2conn) read() error {
	for {
		f, err := h.f.ReadFrame()
		h.mu.Lock()
		if err == nil {
			err = h.frame(f)
		}
		if err == nil && h.r.Buffered() < 9 { // no more to be answered with it
			err = h.w.Flush()
		}
		over := h.finished()
		h.mu.Unlock()
		if over {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finished reports whether the plan is over and nothing is awaited.
func (h *http2conn) finished() bool {
	if h.c.plan.Rate > 0 {
		return h.over && len(h.since) == 0 && len(h.sent) == 0
	}
	return time.Now().After(h.c.end)
}

func (h *http2conn) frame(f http2.Frame) error {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
				h.enc.SetMaxDynamicTableSizeLimit(v)
			}
			if err := h.f.WriteSettingsAck(); err != nil {
				return err
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			if err := h.f.WritePing(true, f.Data); err != nil {
				return err
			}
		}
	case *http2.HeadersFrame:
		if _, err := h.dec.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if !f.HeadersEnded() {
			return fmt.Errorf("stream %d: a head in several frames", id)
		}
		if !h.ok {
			return fmt.Errorf("stream %d: %w", id, errStatus)
		}
		if f.StreamEnded() {
			return h.answered(id)
		}
	case *http2.DataFrame:
		return h.data(id, f)
	case *http2.RSTStreamFrame:
		return fmt.Errorf("stream %d was reset: %s", id, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the proxy says goodbye: %s", f.ErrCode)
	}
	return nil
}

func (h *http2conn) data(id uint32, f *http2.DataFrame) error {
	if h.given += int(f.Length); h.given >= topUp {
		if err := h.f.WriteWindowUpdate(0, uint32(h.given)); err != nil {
			return err
		}
		if h.c.plan.Kind == GRPCStream {
			if err := h.f.WriteWindowUpdate(1, uint32(h.given)); err != nil {
				return err
			}
		}
		h.given = 0
	}
	if h.c.plan.Kind != GRPCStream {
		if f.StreamEnded() {
			return h.answered(id)
		}
		return nil
	}
	h.pending += int64(len(f.Data()))
	for h.pending >= int64(len(message)) {
		h.pending -= int64(len(message))
		if h.c.plan.Rate > 0 {
			h.c.count(h.sent[0])
			h.sent = h.sent[:copy(h.sent, h.sent[1:])]
			continue
		}
		h.c.done.Add(1)
		if err := h.f.WriteData(1, false, message); err != nil {
			return err
		}
	}
	return nil
}

// answered: a stream is complete.
func (h *http2conn) answered(id uint32) error {
	h.c.count(h.since[id])
	delete(h.since, id)
	if h.c.plan.Rate > 0 {
		return nil
	}
	return h.request(time.Now())
}
