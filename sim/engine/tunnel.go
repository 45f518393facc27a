package engine

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Tunnels (RFC 6455 over HTTP/1, RFC 8441 over HTTP/2) and calls: what is not one request and one response. In a tunnel
// either end says what it has to say and ends its direction; who ends first is planned. In a call the client's next message
// goes out when the answer to the one before is complete.

const websocketKey = "c2ltdWxhdGVkLXNlc3Npb24="

// offer asks to switch an HTTP/1 connection.
func (c *client) offer(r *request) {
	c.c.Write(fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: sim\r\nx-sim-id: %d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", r.id, r.id, websocketKey))
}

// switched: the program has agreed.
func (c *client) switched(r *request, m *message1) error {
	if r.kind != tunnel {
		return fmt.Errorf("status 101 for %s", r)
	}
	if m.fields["sec-websocket-accept"] != accepted(websocketKey) || m.fields["x-sim-id"] != strconv.Itoa(r.id) {
		return fmt.Errorf("the wrong switch %v: %s", m.fields, r)
	}
	m.switches, c.mine = true, true
	c.c.Write(body(r.id, ofRequest, 0, r.body))
	if !r.early {
		c.c.CloseWrite()
	}
	return nil
}

func accepted(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// tunnelEnd: the program has said everything.
func (c *client) tunnelEnd() {
	r := c.list[c.head0]
	if err := c.whole(r, true, c.got, nil, ""); err != nil {
		c.run.fail("client %s: %v", c.name, err)
	}
	c.c.CloseWrite() // the program hears us out
}

// switchTo agrees to switch.
func (s *caller) switchTo(m *message1) {
	r := s.now
	s.g.run.trace("program %s switches: %v", s.g.name, m.fields)
	m.switches, s.sent = true, true
	s.c.Write(fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nx-sim-id: %d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		r.id, accepted(m.fields["sec-websocket-key"])))
	if r.breaks >= 0 {
		s.c.Write(body(r.id, ofResponse, 0, min(r.breaks, r.answer)))
		s.quit = true
		s.c.Reset()
		return
	}
	s.c.Write(body(r.id, ofResponse, 0, r.answer))
	if r.early {
		s.c.CloseWrite()
	}
}

// tunnelEnd: the client has said everything.
func (s *caller) tunnelEnd() {
	if s.quit {
		return
	}
	if s.got != s.now.body {
		s.g.run.fail("program %s: a tunnel ended in order behind %d bytes: %s", s.g.name, s.got, s.now)
	}
	s.now.complete++
	s.quit = true
	s.c.Close()
}

// HTTP/2.

// begin2 begins a tunnel or a call.
func (c *client) begin2(s *stream2, r *request) {
	id := strconv.Itoa(r.id)
	if r.kind == tunnel {
		c.peer.writeHead(s, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "sim", ":path", "/"+id,
			"x-sim-id", id, "sec-websocket-version", "13")
		return
	}
	c.peer.writeHead(s, false, ":method", "POST", ":scheme", "http", ":authority", "sim", ":path", "/"+id, "x-sim-id", id,
		"content-type", "application/grpc", "te", "trailers")
	c.peer.write(s, body(r.id, ofRequest, 0, r.step), false)
}

// open2: the program has agreed to a tunnel.
func (c *client) open2(s *stream2, r *request) {
	c.peer.write(s, body(r.id, ofRequest, 0, r.body), !r.early)
}

// next2 sends the next message of a call when the answer to the last one is complete.
func (c *client) next2(s *stream2, a *asked) {
	r := a.r
	if sent := (a.got / r.step) * r.step; sent > a.answered {
		a.answered = sent
		if sent == r.body {
			c.peer.write(s, nil, true)
		} else {
			c.peer.write(s, body(r.id, ofRequest, sent, sent+r.step), false)
		}
	}
}

// accept2 begins to answer a tunnel or a call.
func (s *caller) accept2(st *stream2, v *served2) {
	r := v.r
	v.sent = true
	if r.kind == call {
		s.two.writeHead(st, false, ":status", "200", "x-sim-id", strconv.Itoa(r.id), "content-type", "application/grpc")
		return
	}
	s.two.writeHead(st, false, ":status", "200", "x-sim-id", strconv.Itoa(r.id))
	if r.breaks >= 0 {
		s.two.write(st, body(r.id, ofResponse, 0, min(r.breaks, r.answer)), false)
		s.two.reset(st, http2.ErrCodeInternal)
		return
	}
	s.two.write(st, body(r.id, ofResponse, 0, r.answer), r.early)
}

// echoes answers which bytes of the answer become due when a call has got from was to got bytes.
func (r *request) echoes(was, got int) (from, to int) {
	return was / r.step * r.step, got / r.step * r.step
}

func (s *caller) echo1(was int) {
	from, to := s.now.echoes(was, s.got)
	if to > from {
		s.c.Write(chunks(nil, body(s.now.id, ofResponse, from, to)))
	}
	if b := s.now.breaks; b >= 0 && to > b {
		s.quit = true
		s.c.Reset()
	}
}

func (s *caller) echo2(st *stream2, v *served2, was int) {
	from, to := v.r.echoes(was, v.got)
	if to > from {
		s.two.write(st, body(v.r.id, ofResponse, from, to), false)
	}
	if b := v.r.breaks; b >= 0 && to > b {
		s.two.reset(st, http2.ErrCodeInternal)
	}
}

// last2 ends the answer to a tunnel or a call when the client has said everything.
func (s *caller) last2(st *stream2, v *served2) {
	switch {
	case v.r.kind == call:
		id := strconv.Itoa(v.r.id)
		s.two.write(st, nil, true, hpack.HeaderField{Name: "x-sim-end", Value: id}, hpack.HeaderField{Name: "grpc-status", Value: "0"})
	case v.r.kind == tunnel && !v.r.early:
		s.two.write(st, nil, true)
	}
}
