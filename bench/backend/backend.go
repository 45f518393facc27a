// Package backend is the benchmark's server for what nginx does not serve: HTTP/2 and gRPC with prior knowledge, and
// bulk TCP. It does the least that is correct for constant small messages: 100 bytes for every GET, every gRPC message
// echoed, endless bytes for one byte of TCP. One goroutine per connection. Start reading at Serve.
package backend

import (
	"bufio"
	"bytes"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Serve accepts until l is closed. A connection that begins with the HTTP/2 preface is served as such, all others
// get bytes for as long as they take them.
func Serve(l net.Listener) error {
	for {
		n, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(n)
	}
}

func serve(n net.Conn) {
	defer n.Close()
	r := bufio.NewReaderSize(n, 64<<10)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	if first[0] != 'P' {
		bulk(n)
		return
	}
	c := &conn{w: bufio.NewWriterSize(n, 64<<10), r: r}
	_ = c.serve() // the client has ended
}

func bulk(w io.Writer) {
	block := make([]byte, 256<<10)
	for {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// conn is one HTTP/2 connection. What is under way is far below any window, so ours to send is not watched.
type conn struct {
	r       *bufio.Reader
	w       *bufio.Writer
	f       *http2.Framer
	enc     *hpack.Encoder
	dec     *hpack.Decoder
	buf     bytes.Buffer
	grpc    bool // the head under way
	given   int
	streams map[uint32]int
}

var body = bytes.Repeat([]byte{'x'}, 100)

const topUp = 1 << 20

func (c *conn) serve() error {
	if _, err := c.r.Discard(len(http2.ClientPreface)); err != nil {
		return err
	}
	c.f = http2.NewFramer(c.w, c.r)
	c.f.SetReuseFrames()
	c.enc = hpack.NewEncoder(&c.buf)
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "content-type" {
			c.grpc = f.Value == "application/grpc"
		}
	})
	c.streams = map[uint32]int{}
	if err := c.f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10000},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}); err != nil {
		return err
	}
	if err := c.f.WriteWindowUpdate(0, 1<<30); err != nil {
		return err
	}
	for {
		if c.r.Buffered() < 9 {
			if err := c.w.Flush(); err != nil {
				return err
			}
		}
		f, err := c.f.ReadFrame()
		if err != nil {
			return err
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

func (c *conn) frame(f http2.Frame) error {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
				c.enc.SetMaxDynamicTableSizeLimit(v)
			}
			return c.f.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.f.WritePing(true, f.Data)
		}
	case *http2.HeadersFrame:
		c.grpc = false
		if _, err := c.dec.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if !c.grpc {
			if err := c.head(id, ":status", "200", "content-length", "100"); err != nil {
				return err
			}
			return c.f.WriteData(id, true, body)
		}
		return c.head(id, ":status", "200", "content-type", "application/grpc")
	case *http2.DataFrame:
		return c.data(id, f)
	case *http2.RSTStreamFrame:
		delete(c.streams, id)
	}
	return nil
}

func (c *conn) data(id uint32, f *http2.DataFrame) error {
	if c.given += int(f.Length); c.given >= topUp {
		if err := c.f.WriteWindowUpdate(0, uint32(c.given)); err != nil {
			return err
		}
		c.given = 0
	}
	if c.streams[id] += int(f.Length); c.streams[id] >= topUp && !f.StreamEnded() {
		if err := c.f.WriteWindowUpdate(id, uint32(c.streams[id])); err != nil {
			return err
		}
		c.streams[id] = 0
	}
	if len(f.Data()) > 0 {
		if err := c.f.WriteData(id, false, f.Data()); err != nil {
			return err
		}
	}
	if !f.StreamEnded() {
		return nil
	}
	delete(c.streams, id)
	c.buf.Reset()
	c.write("grpc-status", "0")
	return c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
}

func (c *conn) head(id uint32, fields ...string) error {
	c.buf.Reset()
	c.write(fields...)
	return c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true})
}

func (c *conn) write(fields ...string) {
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes all
	}
}
