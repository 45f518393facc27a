package http2

import (
	"encoding/binary"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// appendFrame appends a frame's first nine bytes.
func appendFrame(dst []byte, length int, typ, flags byte, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), typ, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// setLength writes the length of the frame that p consists of.
func setLength(p []byte) {
	n := len(p) - frameHead
	p[0], p[1], p[2] = byte(n>>16), byte(n>>8), byte(n)
}

func (c *Conn) writeWindow(id, n uint32) {
	c.out = appendFrame(c.out, 4, frameWindow, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, n)
}

func (c *Conn) writeReset(id uint32, code ErrCode) {
	c.out = appendFrame(c.out, 4, frameReset, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

func (c *Conn) writePing(flags byte, data [8]byte) {
	c.out = appendFrame(c.out, 8, framePing, flags, 0)
	c.out = append(c.out, data[:]...)
}

func (c *Conn) writeGoAway(last uint32, code ErrCode) {
	c.out = appendFrame(c.out, 8, frameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

// Open starts a request (client). ErrNoStreams: the peer's MAX_CONCURRENT_STREAMS or a GOAWAY forbids;
// ErrNoConnect: h has Upgrade and the peer has not announced RFC 8441; ErrTooLarge: h is larger than the peer takes. end: no body and no trailers follow.
func (c *Conn) Open(h *message.Head, end bool) (*Stream, error) {
	if c.Available() == 0 {
		return nil, ErrNoStreams
	}
	extended := len(h.Upgrade) > 0
	if extended && !c.peer.connect {
		return nil, ErrNoConnect
	}
	if !c.fits(h) {
		return nil, ErrTooLarge
	}
	s := c.take(c.nextID)
	c.nextID += 2
	s.known, s.sentHead, s.sentEnd, s.extended = true, true, end, extended
	s.headMethod = string(h.Method) == "HEAD"
	s.connect = extended || string(h.Method) == "CONNECT"
	if extended {
		s.protocol = append([]byte(nil), h.Upgrade...)
	}
	at := c.beginHead(s.id)
	c.writeRequest(h, s)
	c.endHead(at, s.id, end)
	return s, nil
}

// Head sends a response head (server), or an interim one if h.Status is 1xx (other than 101). The answer to
// HEAD and one with status 204 or 304 ends our side whatever end says; body bytes that follow are dropped.
func (c *Conn) Head(s *Stream, h *message.Head, end bool) {
	if s.closed || s.sentHead || c.err != nil || !c.cfg.Server {
		return
	}
	status := h.Status
	if status < 100 || status > 999 {
		status = 500
	}
	if status == 101 {
		if !s.extended {
			c.Reset(s, InternalError) // there is no such thing in HTTP/2
			return
		}
		status = 200
	}
	if !c.fits(h) {
		c.headTooLarge(s, status)
		return
	}
	interim := status < 200
	if interim {
		end = false
	} else {
		end = end || s.headMethod || status == 204 || status == 304
	}
	at := c.beginHead(s.id)
	c.writeStatus(status)
	if h.ContentLength >= 0 && !interim && status != 204 && !(s.connect && status < 300) {
		c.writeLength(h.ContentLength)
	}
	c.writeFields(h.Fields)
	c.endHead(at, s.id, end)
	s.sentHead = !interim
	s.sentEnd = end
	c.ended(s)
}

// fits reports whether the peer takes a head as large as h (RFC 9113 section 6.5.2).
func (c *Conn) fits(h *message.Head) bool {
	if c.peer.maxHead == 0 {
		return true
	}
	n := len(h.Method) + len(h.Scheme) + len(h.Target) + len(h.Authority) + 4*(32+10)
	for i := range h.Fields {
		n += len(h.Fields[i].Name) + len(h.Fields[i].Value) + 32
	}
	return n <= int(max(c.peer.maxHead, 4<<10)) // a smaller limit is no honest one
}

// headTooLarge answers in place of a response whose head the client does not take; an interim one is left out.
func (c *Conn) headTooLarge(s *Stream, status int) {
	if status < 200 {
		return
	}
	c.Head(s, &message.Head{Status: 502, ContentLength: 0}, true)
}

// Trailers sends a trailer section and ends our side; all of the body must have been taken before.
func (c *Conn) Trailers(s *Stream, h *message.Head) {
	if s.closed || s.sentEnd || !s.sentHead || c.err != nil {
		return
	}
	at := c.beginHead(s.id)
	c.writeFields(h.Fields)
	if len(c.out) == at+frameHead {
		c.out = c.out[:at]
		c.Data(s, nil, true)
		return
	}
	c.endHead(at, s.id, true)
	s.sentEnd = true
	c.ended(s)
}

// Data sends body bytes and answers how many were taken: as many as flow control permits. If fewer than
// len(p), give the rest again after Events.Writable. end counts once all of p has been taken. What can no longer
// be sent, because the stream is over, is taken and dropped; so is what comes before Head. Only flow control
// bounds it here: the owner looks at how much the connection below still holds before it gives more.
func (c *Conn) Data(s *Stream, p []byte, end bool) (n int) {
	if s.closed || s.sentEnd || !s.sentHead || c.err != nil {
		return len(p)
	}
	for n < len(p) {
		k := min(int64(len(p)-n), s.sendWindow, c.sendWindow, int64(c.peer.maxFrame))
		if k <= 0 {
			s.wants = true
			if s.sendWindow > 0 {
				c.blocked.push(s)
			}
			return n
		}
		k = c.writeData(s.id, p[n:n+int(k)])
		s.sendWindow -= k
		c.sendWindow -= k
		n += int(k)
	}
	s.wants = false
	c.blocked.remove(s)
	if n > 0 {
		c.budget.earn()
		c.budget.earn() // a client may answer each with two small WINDOW_UPDATEs
	}
	if end {
		c.endData(s.id)
		s.sentEnd = true
		c.ended(s)
	}
	return n
}

// tail is the DATA frame at the end of what has not been flushed, if there is one: more of the same stream joins it. Small
// messages that come together then cost one frame, here and for everybody behind us.
type tail struct {
	id      uint32 // of the stream; 0: none
	at, end int    // where in out
}

// writeData appends as much of p as one frame takes and answers how much that was.
func (c *Conn) writeData(id uint32, p []byte) int64 {
	if t := &c.tail; t.id == id && t.end == len(c.out) {
		if room := int(c.peer.maxFrame) - (t.end - t.at - frameHead); room > 0 {
			p = p[:min(len(p), room)]
			c.out = append(c.out, p...)
			setLength(c.out[t.at:])
			t.end = len(c.out)
			return int64(len(p))
		}
	}
	c.tail = tail{id: id, at: len(c.out)}
	c.out = append(appendFrame(c.out, len(p), frameData, 0, id), p...)
	c.tail.end = len(c.out)
	return int64(len(p))
}

// endData ends a stream whose body has been written: with its last frame if that is still here, else with an empty one.
func (c *Conn) endData(id uint32) {
	if t := &c.tail; t.id == id && t.end == len(c.out) {
		c.out[t.at+4] |= flagEndStream
	} else {
		c.out = appendFrame(c.out, 0, frameData, flagEndStream, id)
	}
	c.tail.id = 0
}

// beginHead starts a HEADERS frame and answers where.
func (c *Conn) beginHead(id uint32) int {
	at := len(c.out)
	c.out = c.enc.Begin(appendFrame(c.out, 0, frameHeaders, flagEndHeaders, id))
	return at
}

// endHead completes the HEADERS frame at at, in several frames if it is too long for one.
func (c *Conn) endHead(at int, id uint32, end bool) {
	if end {
		c.out[at+4] |= flagEndStream
	}
	most := int(c.peer.maxFrame)
	if len(c.out)-at-frameHead <= most {
		setLength(c.out[at:])
		return
	}
	rest := append([]byte(nil), c.out[at+frameHead+most:]...)
	c.out = c.out[:at+frameHead+most]
	c.out[at+4] &^= flagEndHeaders
	setLength(c.out[at:])
	for len(rest) > 0 {
		k := min(len(rest), most)
		var flags byte
		if k == len(rest) {
			flags = flagEndHeaders
		}
		c.out = append(appendFrame(c.out, k, frameContinuation, flags, id), rest[:k]...)
		rest = rest[k:]
	}
}
