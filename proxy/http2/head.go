package http2

import (
	"encoding/binary"

	"github.com/tulle-mesh/tulle/proxy/hpack"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// readHeaders reads a HEADERS frame (RFC 9113 section 6.2).
func (c *Conn) readHeaders(flags byte, id uint32, p []byte) {
	if id == 0 {
		c.fail(ProtocolError, "HEADERS on stream 0")
		return
	}
	p, ok := c.unpad(flags, p)
	if !ok {
		return
	}
	b := &c.pending
	b.id, b.end, b.broken, b.frames = id, flags&flagEndStream != 0, false, 0
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			c.fail(FrameSizeError, "HEADERS too short for its priority")
			return
		}
		b.broken = binary.BigEndian.Uint32(p)&maxWindow == id
		p = p[5:]
	}
	if flags&flagEndHeaders != 0 {
		c.readHead(p)
		return
	}
	b.open = true
	b.bytes = append(b.bytes[:0], p...)
}

// readContinuation reads a CONTINUATION frame, of which there are not more, and not more in all, than a head of
// MaxHead bytes can need (CVE-2024-27316 and its kin).
func (c *Conn) readContinuation(flags byte, p []byte) {
	b := &c.pending
	if !b.open {
		c.fail(ProtocolError, "CONTINUATION without HEADERS")
		return
	}
	b.frames++
	if len(b.bytes)+len(p) > 2*int(c.cfg.MaxHead)+minFrame || b.frames > 16+int(c.cfg.MaxHead)/1024 {
		c.fail(EnhanceYourCalm, "head far larger than SETTINGS_MAX_HEADER_LIST_SIZE")
		return
	}
	b.bytes = append(b.bytes, p...)
	if flags&flagEndHeaders == 0 {
		return
	}
	b.open = false
	c.readHead(b.bytes)
	if cap(b.bytes) > minFrame {
		b.bytes = nil
	}
}

// readHead gives a complete head to the stream it is for. Whatever it is, it has to be decoded, since the
// compression's state depends on it.
func (c *Conn) readHead(p []byte) {
	id := c.pending.id
	s := c.streams.find(id)
	kind := kindTrailers
	switch {
	case s == nil && c.cfg.Server && c.idle(id):
		if id&1 == 0 {
			c.fail(ProtocolError, "a client's stream with an even identifier")
			return
		}
		kind = kindRequest
	case s != nil && !s.recvHead:
		kind = kindResponse
	}
	code := c.decode(p, kind)
	if c.err != nil {
		return
	}
	switch {
	case s == nil && kind == kindRequest:
		c.newRequest(id, code)
	case s == nil:
		c.onClosed(id, "HEADERS")
	case s.recvEnd:
		c.refuse(s, StreamClosed)
	case code == NoError && c.dec.TooLarge() && kind != kindRequest:
		c.refuse(s, EnhanceYourCalm)
	case code != NoError || c.pending.broken:
		c.refuse(s, ProtocolError)
	case kind == kindResponse:
		c.newResponse(s)
	default:
		c.newTrailers(s)
	}
	if cap(c.head.Fields) > 256 {
		c.head.Fields = nil
	}
}

func (c *Conn) newRequest(id uint32, code ErrCode) {
	if id > c.lastID+2 || c.lastID == 0 && id > 1 {
		c.past.skip(c.lastID+1, id)
	}
	c.lastID = id
	h, end := &c.head, c.pending.end
	switch {
	case c.leaving.stage == left && id > c.leaving.last:
		c.past.remember(id, wePast) // the peer has been told that it is not looked at
		return
	case c.streams.n >= int(c.cfg.MaxConcurrent):
		c.refuseID(id, RefusedStream)
		return
	case code != NoError || c.pending.broken || h.ContentLength > 0 && (end || h.Upgrade != nil || string(h.Method) == "CONNECT"):
		c.refuseID(id, ProtocolError) // CONNECT has no content (RFC 9110 section 9.3.6); what follows goes through a tunnel
		return
	}
	s := c.take(id)
	s.recvHead, s.recvEnd = true, end
	s.headMethod = string(h.Method) == "HEAD"
	s.extended = h.Upgrade != nil
	s.connect = s.extended || string(h.Method) == "CONNECT"
	s.remaining = h.ContentLength
	s.known = true
	if !c.dec.TooLarge() {
		c.events.Head(s, h, end)
		return
	}
	if c.large != nil {
		c.large.HeadTooLarge(s)
		return
	}
	s.known = false
	c.Head(s, &message.Head{Status: 431, ContentLength: 0}, true)
	if !s.closed {
		c.Reset(s, NoError)
	}
	c.spend(1, "too many heads that are too large")
}

func (c *Conn) newResponse(s *Stream) {
	h, end := &c.head, c.pending.end
	if h.Status < 200 {
		if end || h.Status == 101 {
			c.refuse(s, ProtocolError)
			return
		}
		if c.spend(1, "too many interim heads") {
			c.events.Head(s, h, false)
		}
		return
	}
	if s.connect && h.Status < 300 {
		h.ContentLength = message.NoLength // it means nothing there (RFC 9110 section 8.6)
		if s.extended {
			h.Status, h.Upgrade = 101, s.protocol
		}
	}
	s.noBody = s.headMethod || h.Status == 204 || h.Status == 304
	if end && h.ContentLength > 0 && !s.noBody {
		c.refuse(s, ProtocolError)
		return
	}
	s.remaining = h.ContentLength
	s.recvHead, s.recvEnd = true, end
	c.ended(s)
	c.events.Head(s, h, end)
}

func (c *Conn) newTrailers(s *Stream) {
	if !c.pending.end || s.remaining > 0 && !s.noBody {
		c.refuse(s, ProtocolError)
		return
	}
	s.recvEnd = true
	c.ended(s)
	c.events.Trailers(s, &c.head)
}

// What a head is.
const (
	kindRequest uint8 = iota
	kindResponse
	kindTrailers
)

// reader collects one head.
type reader struct {
	kind    uint8
	regular bool   // a field that is no pseudo-header field has come
	seen    uint16 // pseudo-header fields, by class
	bad     bool
	host    []byte
	cookies int
	connect bool // extended CONNECT is permitted
}

// decode decodes p into c.head. Other than NoError: the head is malformed.
func (c *Conn) decode(p []byte, kind uint8) ErrCode {
	h := &c.head
	h.Reset()
	h.Version = message.HTTP2
	r := reader{kind: kind, connect: c.cfg.EnableConnect}
	var f hpack.Field
	c.dec.Begin(p)
	for {
		ok, err := c.dec.Next(&f)
		if err != nil {
			c.fail(CompressionError, err.Error())
			return CompressionError
		}
		if !ok {
			break
		}
		if !r.bad {
			r.bad = !r.field(h, &f)
		}
	}
	if r.bad || !c.dec.TooLarge() && !r.complete(h) {
		return ProtocolError
	}
	if r.cookies > 1 {
		c.joinCookies()
	}
	return NoError
}

// field takes one field; false: it makes the head malformed.
func (r *reader) field(h *message.Head, f *hpack.Field) bool {
	switch f.Class {
	case classBad:
		return false
	case classPlain:
	case classMethod, classScheme, classAuthority, classPath, classProtocol, classStatus:
		return r.pseudo(h, f)
	case classHost:
		r.regular = true
		if r.kind == kindRequest {
			if r.host != nil && !sameHost(r.host, f.Value) {
				return false
			}
			r.host = f.Value
			return true
		}
	case classLength:
		r.regular = true
		n, ok := parseLength(f.Value)
		if r.kind == kindTrailers || !ok || h.ContentLength >= 0 && n != h.ContentLength {
			return false
		}
		h.ContentLength = n
		return true
	case classTE:
		r.regular = true
		h.Trailers = true
		return isTrailers(f.Value) && r.kind == kindRequest
	case classExpect:
		if r.kind == kindRequest && message.EqualFold(f.Value, "100-continue") {
			r.regular, h.Continue = true, true
			return true
		}
	case classCookie:
		r.cookies++
	}
	r.regular = true
	h.Fields = append(h.Fields, message.Field{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive})
	return true
}

// pseudo takes a pseudo-header field (RFC 9113 section 8.3).
func (r *reader) pseudo(h *message.Head, f *hpack.Field) bool {
	bit := uint16(1) << f.Class
	if r.regular || r.seen&bit != 0 || r.kind == kindTrailers || (f.Class == classStatus) != (r.kind == kindResponse) {
		return false
	}
	r.seen |= bit
	switch f.Class {
	case classMethod:
		h.Method = f.Value
	case classScheme:
		h.Scheme = f.Value
	case classAuthority:
		h.Authority = f.Value
	case classPath:
		h.Target = f.Value
	case classProtocol:
		h.Upgrade = f.Value
		return r.connect
	case classStatus:
		h.Status = int(f.Value[0]-'0')*100 + int(f.Value[1]-'0')*10 + int(f.Value[2]-'0')
	}
	return true
}

var methodGet = []byte("GET")

// complete checks the head as a whole (RFC 9113 section 8.3.1 and 8.5, RFC 8441 section 4).
func (r *reader) complete(h *message.Head) bool {
	switch r.kind {
	case kindTrailers:
		return true
	case kindResponse:
		return h.Status != 0
	}
	if len(h.Authority) == 0 {
		h.Authority = r.host
	} else if r.host != nil && !sameHost(h.Authority, r.host) {
		return false
	}
	if h.Method == nil || len(h.Authority) > 0 && !message.Authority(h.Authority, false) {
		return false
	}
	if string(h.Method) == "CONNECT" && h.Upgrade == nil {
		return h.Scheme == nil && h.Target == nil && message.Authority(h.Authority, true)
	}
	if h.Scheme == nil || h.Target == nil {
		return false
	}
	if h.Target[0] != '/' && (string(h.Target) != "*" || string(h.Method) != "OPTIONS") {
		return false
	}
	if len(h.Authority) == 0 && (string(h.Scheme) == "http" || string(h.Scheme) == "https") {
		return false
	}
	if h.Upgrade != nil {
		if string(h.Method) != "CONNECT" {
			return false
		}
		h.Method = methodGet
	}
	return true
}

// joinCookies puts the crumbs of the cookie field together again (RFC 9113 section 8.2.3).
func (c *Conn) joinCookies() {
	c.cookie = c.cookie[:0]
	at := -1
	keep := c.head.Fields[:0]
	for _, f := range c.head.Fields {
		if !message.EqualFold(f.Name, "cookie") {
			keep = append(keep, f)
			continue
		}
		if at < 0 {
			at = len(keep)
			keep = append(keep, f)
		} else {
			c.cookie = append(c.cookie, "; "...)
			keep[at].Sensitive = keep[at].Sensitive || f.Sensitive
		}
		c.cookie = append(c.cookie, f.Value...)
	}
	keep[at].Value = c.cookie
	c.head.Fields = keep
}
