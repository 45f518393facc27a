package http2

import "encoding/binary"

// frameHead is the length of what stands before a frame's payload.
const frameHead = 9

// Frame types (RFC 9113 section 6).
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Frame flags.
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// block is a head that is not complete yet.
type block struct {
	open   bool
	id     uint32
	end    bool // END_STREAM
	broken bool // HEADERS said that the stream depends on itself
	frames int
	bytes  []byte
}

// Feed takes bytes of the peer and answers how many it has used; the rest, which is less than a frame, has to be
// given again together with what arrives next. An error is a *ConnError: GOAWAY is in Output already; flush, then
// close the connection. After an error, or End, nothing is used.
func (c *Conn) Feed(p []byte) (n int, err error) {
	if c.cfg.Server && c.prefaced < len(preface) && c.err == nil {
		n = c.readPreface(p)
	}
	for c.err == nil && len(p)-n >= frameHead {
		q := p[n:]
		length := int(q[0])<<16 | int(q[1])<<8 | int(q[2])
		if length > int(c.cfg.MaxFrame) {
			c.fail(FrameSizeError, "frame larger than SETTINGS_MAX_FRAME_SIZE")
			break
		}
		if len(q) < frameHead+length {
			break
		}
		id := binary.BigEndian.Uint32(q[5:]) & maxWindow
		c.frame(q[3], q[4], id, q[frameHead:frameHead+length:frameHead+length])
		n += frameHead + length
	}
	if c.err != nil {
		return n, c.err
	}
	return n, nil
}

func (c *Conn) readPreface(p []byte) int {
	want := preface[c.prefaced:]
	k := min(len(p), len(want))
	if string(p[:k]) != want[:k] {
		c.fail(ProtocolError, "not an HTTP/2 preface")
		return 0
	}
	c.prefaced += k
	return k
}

func (c *Conn) frame(typ, flags byte, id uint32, p []byte) {
	if !c.settled && (typ != frameSettings || flags&flagAck != 0) {
		c.fail(ProtocolError, "the first frame is not SETTINGS")
		return
	}
	if c.pending.open && (typ != frameContinuation || id != c.pending.id) {
		c.fail(ProtocolError, "a head is interrupted by another frame")
		return
	}
	switch typ {
	case frameData:
		c.readData(flags, id, p)
	case frameHeaders:
		c.readHeaders(flags, id, p)
	case framePriority:
		c.readPriority(id, p)
	case frameReset:
		c.readReset(id, p)
	case frameSettings:
		c.readSettings(flags, id, p)
	case framePush:
		c.fail(ProtocolError, "PUSH_PROMISE, which is not enabled")
	case framePing:
		c.readPing(flags, id, p)
	case frameGoAway:
		c.readGoAway(id, p)
	case frameWindow:
		c.readWindow(id, p)
	case frameContinuation:
		c.readContinuation(flags, p)
	default:
		c.spend(1, "too many frames of unknown types")
	}
}

// idle reports whether stream id has never been used.
func (c *Conn) idle(id uint32) bool {
	if id&1 == 0 {
		return true
	}
	if c.cfg.Server {
		return id > c.lastID
	}
	return id >= c.nextID
}

// unpad takes padding off (RFC 9113 section 6.1).
func (c *Conn) unpad(flags byte, p []byte) ([]byte, bool) {
	if flags&flagPadded == 0 {
		return p, true
	}
	if len(p) == 0 {
		c.fail(FrameSizeError, "padded frame without a pad length")
		return nil, false
	}
	pad := int(p[0])
	if pad >= len(p) {
		c.fail(ProtocolError, "padding longer than its frame")
		return nil, false
	}
	return p[1 : len(p)-pad], true
}

func (c *Conn) readData(flags byte, id uint32, p []byte) {
	if id == 0 {
		c.fail(ProtocolError, "DATA on stream 0")
		return
	}
	size := uint32(len(p))
	p, ok := c.unpad(flags, p)
	if !ok {
		return
	}
	if int64(size) > c.recvWindow {
		c.fail(FlowControlError, "DATA beyond the connection's window")
		return
	}
	c.recvWindow -= int64(size)
	s := c.streams.find(id)
	if s == nil {
		c.credit(size)
		c.onClosed(id, "DATA")
		return
	}
	end := flags&flagEndStream != 0
	if code := s.takeData(size, len(p), end); code != NoError {
		c.credit(size)
		c.refuse(s, code)
		return
	}
	if len(p) == 0 && !end {
		if !c.spend(1, "too many empty DATA frames") {
			return
		}
	} else {
		c.budget.earn()
	}
	if pad := size - uint32(len(p)); pad > 0 {
		c.credit(pad)
		if !end {
			c.creditStream(s, pad)
		}
	}
	s.held += uint32(len(p))
	c.ended(s)
	if len(p) > 0 || end {
		c.events.Data(s, p, end)
	}
}

// takeData accounts for a DATA frame of size bytes, n without padding; other than NoError it breaks the stream.
func (s *Stream) takeData(size uint32, n int, end bool) ErrCode {
	switch {
	case s.recvEnd:
		return StreamClosed
	case !s.recvHead:
		return ProtocolError
	case int64(size) > s.recvWindow:
		return FlowControlError
	case n > 0 && s.noBody, s.remaining >= 0 && int64(n) > s.remaining:
		return ProtocolError
	}
	s.recvWindow -= int64(size)
	if s.remaining >= 0 {
		s.remaining -= int64(n)
	}
	if end && s.remaining > 0 && !s.noBody {
		return ProtocolError
	}
	s.recvEnd = end
	return NoError
}

// onClosed answers DATA or HEADERS on a stream that is not open and cannot be opened by it.
func (c *Conn) onClosed(id uint32, what string) {
	if c.idle(id) {
		c.fail(ProtocolError, what+" on an idle stream")
		return
	}
	switch c.past.of(id) {
	case wePast: // it was on its way when we reset the stream
	case endedPast:
		c.fail(StreamClosed, what+" on a stream that is complete")
	case skippedPast:
		c.fail(ProtocolError, what+" on a stream below the latest")
	default:
		c.refuseID(id, StreamClosed)
	}
}

func (c *Conn) readPriority(id uint32, p []byte) {
	switch {
	case id == 0:
		c.fail(ProtocolError, "PRIORITY on stream 0")
	case len(p) != 5:
		c.fail(FrameSizeError, "PRIORITY whose length is not 5")
	case binary.BigEndian.Uint32(p)&maxWindow == id:
		if s := c.streams.find(id); s != nil {
			c.refuse(s, ProtocolError)
		} else {
			c.fail(ProtocolError, "a stream that depends on itself")
		}
	default:
		c.spend(1, "too many PRIORITY frames")
	}
}

func (c *Conn) readReset(id uint32, p []byte) {
	switch {
	case len(p) != 4:
		c.fail(FrameSizeError, "RST_STREAM whose length is not 4")
		return
	case id == 0 || c.idle(id):
		c.fail(ProtocolError, "RST_STREAM on an idle stream")
		return
	}
	s := c.streams.find(id)
	if s == nil {
		c.spend(1, "too many RST_STREAM frames")
		return
	}
	c.close(s, peerPast)
	if c.cfg.Server {
		c.spendReset(s)
	}
	c.events.Reset(s, ErrCode(binary.BigEndian.Uint32(p)))
}

func (c *Conn) readPing(flags byte, id uint32, p []byte) {
	switch {
	case id != 0:
		c.fail(ProtocolError, "PING on a stream")
	case len(p) != 8:
		c.fail(FrameSizeError, "PING whose length is not 8")
	case flags&flagAck == 0:
		if c.spend(1, "too many PING frames") {
			c.writePing(flagAck, [8]byte(p))
		}
	case [8]byte(p) == drainPing && c.leaving.stage == announced:
		c.GoAway(NoError)
	case c.pong != nil:
		c.pong.Pong([8]byte(p))
	}
}

func (c *Conn) readGoAway(id uint32, p []byte) {
	switch {
	case id != 0:
		c.fail(ProtocolError, "GOAWAY on a stream")
		return
	case len(p) < 8:
		c.fail(FrameSizeError, "GOAWAY shorter than 8 bytes")
		return
	case !c.spend(1, "too many GOAWAY frames"):
		return
	}
	last := binary.BigEndian.Uint32(p) & maxWindow
	c.leaving.peer = true
	c.events.GoAway(last, ErrCode(binary.BigEndian.Uint32(p[4:])))
	if c.cfg.Server {
		return
	}
	for _, s := range c.streams.all() {
		if s.id > last && !s.closed {
			c.close(s, wePast)
			c.events.Reset(s, RefusedStream)
		}
	}
}

func (c *Conn) readSettings(flags byte, id uint32, p []byte) {
	switch {
	case id != 0:
		c.fail(ProtocolError, "SETTINGS on a stream")
		return
	case flags&flagAck != 0 && len(p) > 0, len(p)%6 != 0:
		c.fail(FrameSizeError, "SETTINGS of impossible length")
		return
	case flags&flagAck != 0:
		if c.acked {
			c.spend(1, "too many SETTINGS acknowledgements")
		}
		c.acked = true
		return
	case c.settled && !c.spend(2+int64(len(p)/60), "too many SETTINGS"): // a new window is put to every stream
		return
	}
	if !c.settled && !c.cfg.Server {
		c.peer.maxStreams = 1<<32 - 1 // no bound unless it says so
	}
	c.settled = true
	for ; len(p) > 0 && c.err == nil; p = p[6:] {
		c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:]))
	}
	if c.err != nil {
		return
	}
	c.out = appendFrame(c.out, 0, frameSettings, flagAck, 0)
	c.events.Settings()
	c.unblock()
}

func (c *Conn) setting(id uint16, v uint32) {
	switch id {
	case setTableSize:
		c.enc.SetMax(v)
	case setEnablePush:
		if v > 1 || v == 1 && !c.cfg.Server {
			c.fail(ProtocolError, "invalid SETTINGS_ENABLE_PUSH")
		}
	case setMaxStreams:
		c.peer.maxStreams = v
	case setWindow:
		if v > maxWindow {
			c.fail(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE above the largest window")
			return
		}
		c.resizeWindows(v)
	case setMaxFrame:
		if v < minFrame || v > 1<<24-1 {
			c.fail(ProtocolError, "invalid SETTINGS_MAX_FRAME_SIZE")
			return
		}
		c.peer.maxFrame = min(v, minFrame) // larger ones would hold up other streams
	case setMaxHead:
		c.peer.maxHead = max(v, 1)
	case setConnect:
		if v > 1 || v == 0 && c.peer.connect {
			c.fail(ProtocolError, "invalid SETTINGS_ENABLE_CONNECT_PROTOCOL")
			return
		}
		c.peer.connect = v == 1
	}
}
