package http2

// leaving is how far the connection is on its way out.
type leaving struct {
	stage uint8  // ours
	last  uint32 // server: the last stream served, once stage is left
	peer  bool   // the peer has sent GOAWAY
}

const (
	staying   = iota
	announced // GOAWAY with the highest id has gone, and a ping after it
	left      // GOAWAY with the last id has gone
)

// gone reports whether no new stream of ours may start.
func (l *leaving) gone() bool { return l.stage != staying || l.peer }

// drainPing marks the ping whose answer ends the first step of a drain.
var drainPing = [8]byte{'t', 'u', 'l', 'l', 'e', 'd', 'r', 'n'}

// GoAway tells the peer that no stream after the ones seen will be served; the ones that are open go on.
func (c *Conn) GoAway(code ErrCode) {
	if c.err != nil {
		return
	}
	c.leaving.stage, c.leaving.last = left, c.lastID
	c.writeGoAway(c.lastID, code)
}

// Drain ends the connection gracefully (RFC 9113 section 6.8): a server announces it, waits one round trip, then
// takes no more streams; a client opens none. A second call does not wait. See Drained.
func (c *Conn) Drain() {
	switch {
	case c.err != nil || c.leaving.stage == left:
	case c.cfg.Server && c.leaving.stage == staying:
		c.leaving.stage = announced
		c.writeGoAway(maxWindow, NoError)
		c.writePing(0, drainPing)
	default:
		c.GoAway(NoError)
	}
}

// Drained reports whether a drain has come to its end: nothing is open and nothing new will be.
func (c *Conn) Drained() bool { return c.leaving.stage == left && c.streams.n == 0 }

// Ping asks the peer for a sign of life; see Events about Pong.
func (c *Conn) Ping(data [8]byte) {
	if c.err == nil {
		c.writePing(0, data)
	}
}
