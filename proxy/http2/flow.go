package http2

import "encoding/binary"

// Consumed gives n bytes that Events.Data was given back to the peer as credit, in portions of half a window.
// It still counts, for the connection, after a regular end of s.
func (c *Conn) Consumed(s *Stream, n int) {
	k := min(uint32(max(n, 0)), s.held)
	s.held -= k
	c.credit(k)
	if !s.closed && !s.recvEnd {
		c.creditStream(s, k)
	}
}

// credit lets the peer send n more bytes on the connection.
func (c *Conn) credit(n uint32) {
	if c.owed += n; c.owed >= c.cfg.ConnWindow/2 && c.err == nil {
		c.writeWindow(0, c.owed)
		c.recvWindow += int64(c.owed)
		c.owed = 0
	}
}

func (c *Conn) creditStream(s *Stream, n uint32) {
	if s.owed += n; s.owed > 0 && s.owed >= c.cfg.InitialWindow/2 && c.err == nil {
		c.writeWindow(s.id, s.owed)
		s.recvWindow += int64(s.owed)
		s.owed = 0
	}
}

// giveBack returns to the connection what the owner of s holds and now will not consume.
func (c *Conn) giveBack(s *Stream) {
	c.credit(s.held)
	s.held = 0
}

// smallWindow is below what a WINDOW_UPDATE costs its sender: each could make us write a frame of a few bytes.
const smallWindow = 256

// readWindow reads WINDOW_UPDATE (RFC 9113 section 6.9).
func (c *Conn) readWindow(id uint32, p []byte) {
	if len(p) != 4 {
		c.fail(FrameSizeError, "WINDOW_UPDATE whose length is not 4")
		return
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	if n < smallWindow && !c.spend(1, "too many small WINDOW_UPDATE frames") {
		return
	}
	if id == 0 {
		c.readConnWindow(n)
		return
	}
	s := c.streams.find(id)
	switch {
	case s == nil && c.idle(id):
		c.fail(ProtocolError, "WINDOW_UPDATE on an idle stream")
	case s == nil:
	case n == 0:
		c.refuse(s, ProtocolError)
	case s.sendWindow+n > maxWindow:
		c.refuse(s, FlowControlError)
	default:
		s.sendWindow += n
		if s.wants && s.sendWindow > 0 {
			c.blocked.push(s)
			c.unblock()
		}
	}
}

func (c *Conn) readConnWindow(n int64) {
	switch {
	case n == 0:
		c.fail(ProtocolError, "WINDOW_UPDATE of 0")
	case c.sendWindow+n > maxWindow:
		c.fail(FlowControlError, "WINDOW_UPDATE above the largest window")
	default:
		c.sendWindow += n
		c.unblock()
	}
}

// unblock tells the owners of streams that wait for the connection's window, in turn, that there is some.
func (c *Conn) unblock() {
	for n := c.blocked.n; n > 0 && c.blocked.head != nil && c.sendWindow > 0 && c.err == nil; n-- {
		s := c.blocked.head
		c.blocked.remove(s)
		s.wants = false
		c.events.Writable(s)
	}
}

// resizeWindows applies a new SETTINGS_INITIAL_WINDOW_SIZE to the open streams (RFC 9113 section 6.9.2).
func (c *Conn) resizeWindows(window uint32) {
	delta := int64(window) - int64(c.peer.window)
	c.peer.window = window
	if delta == 0 {
		return
	}
	for _, s := range c.streams.slots {
		if s == nil {
			continue
		}
		if s.sendWindow += delta; s.sendWindow > maxWindow {
			c.fail(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE puts a window above the largest")
			return
		}
		if s.wants && s.sendWindow > 0 {
			c.blocked.push(s)
		}
	}
}
