//go:build conformance

package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// talk2 plays a case's HTTP/2 client on a connection of its own: one stream, whose fields are sent whatever they are.
// Then a second stream on the same connection must be answered, unless the connection was ended.
func talk2(addr string, c *Case) (problems []string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	k := &client2{f: http2.NewFramer(conn, conn)}
	k.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	k.enc = hpack.NewEncoder(&k.block)
	_, _ = io.WriteString(conn, http2.ClientPreface) // the answers will tell
	_ = k.f.WriteSettings()
	for i, s := range c.Send {
		end := i == len(c.Send)-1
		if s.Fields != nil {
			k.head(1, s.Fields, end)
		} else {
			_ = k.f.WriteData(1, end, s.Data)
		}
	}
	status, err := k.answer(1)
	w := c.Want[0]
	switch {
	case w.Status == Refused && (status == 400 || errors.Is(err, errReset)):
	case w.Status != status || err != nil:
		return []string{fmt.Sprintf("status %d, %v, want %d", status, err, w.Status)}
	}
	if errors.Is(err, errEnded) {
		return nil
	}
	k.head(3, []Pair{{":method", "GET"}, {":scheme", "http"}, {":authority", "probe"}, {":path", "/probe"}}, true)
	if status, err = k.answer(3); err != nil || status != 200 || !strings.Contains(k.body.String(), "seen GET /probe") {
		return []string{fmt.Sprintf("the next stream: status %d, %v, %q", status, err, k.body.String())}
	}
	return nil
}

var (
	errReset = errors.New("reset")
	errEnded = fmt.Errorf("%w, with the whole connection", errReset)
)

type client2 struct {
	f     *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	body  bytes.Buffer
}

func (k *client2) head(stream uint32, fields []Pair, end bool) {
	k.block.Reset()
	for _, f := range fields {
		_ = k.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value}) // a buffer takes everything
	}
	_ = k.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: k.block.Bytes(), EndStream: end, EndHeaders: true})
}

// answer reads until a stream is over and answers its status.
func (k *client2) answer(stream uint32) (status int, err error) {
	k.body.Reset()
	for {
		f, err := k.f.ReadFrame()
		if err != nil {
			return status, fmt.Errorf("%w (%w)", errEnded, err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = k.f.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			return status, fmt.Errorf("%w (%v)", errEnded, f.ErrCode)
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return status, fmt.Errorf("%w (%v)", errReset, f.ErrCode)
			}
		case *http2.DataFrame:
			k.body.Write(f.Data())
			if f.StreamID == stream && f.StreamEnded() {
				return status, nil
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			if v := f.PseudoValue("status"); v != "" {
				_, _ = fmt.Sscan(v, &status)
			}
			if f.StreamEnded() {
				return status, nil
			}
		}
	}
}
