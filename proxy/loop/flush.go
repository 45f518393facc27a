package loop

import "golang.org/x/sys/unix"

// directWrite is from which size on a Write goes to the kernel at once, in bytes: a copy then costs more than
// the system call that collecting might have saved.
const directWrite = 16 << 10

// writeThrough sends p at once and answers what the kernel did not take.
func (c *conn) writeThrough(p []byte) []byte {
	n, errno := send(c.fd, p)
	switch {
	case errno == 0:
		c.blocked = n < len(p)
	case errno == unix.EAGAIN:
		c.blocked = true
	default:
		c.sendFailed(errno)
		return nil
	}
	return p[n:]
}

// flush sends what was written, then does what had to wait for that.
func (c *conn) flush() {
	c.dirty = false
	if c.gone || c.connecting {
		return
	}
	moved := false
	for c.sent < len(c.out) && !c.blocked {
		n, errno := send(c.fd, c.out[c.sent:])
		switch {
		case errno == 0:
			c.sent += n
			moved = n > 0
			c.blocked = c.sent < len(c.out)
		case errno == unix.EAGAIN:
			c.blocked = true
		default:
			c.sendFailed(errno)
			return
		}
	}
	if c.sent == len(c.out) && c.out != nil {
		c.e.pool.Put(c.out)
		c.out, c.sent = nil, 0
	}
	if c.sent == len(c.out) && c.poured() {
		switch {
		case c.gone:
			return
		case c.closing:
			c.closeFlushed()
			return
		case c.shut && !c.shutDone:
			c.shutDone = true
			shutdown(c.fd, unix.SHUT_WR)
			c.over()
		}
	} else if c.closing && (moved || !c.timer.Armed()) {
		c.linger()
	}
	if c.above && len(c.out)-c.sent < LowWater && !c.stopped() {
		c.above = false
		c.h.Writable()
	}
}

// linger gives a peer that reads slowly the time to read everything, if that has an end.
func (c *conn) linger() {
	if !c.timer.Armed() {
		c.until = c.e.now + lingerMost
	}
	c.e.Arm(&c.timer, max(0, min(lingerTime, c.until-c.e.now)))
}

// sendFailed: the peer is gone, but what it said before is still worth reading.
func (c *conn) sendFailed(err error) {
	c.out, c.sent = c.out[:0], 0
	if c.paused || c.eof || c.closing {
		c.fail(err)
		return
	}
	c.broken, c.err = true, err
	c.more, c.hup = true, true
	c.wake()
}

// closeFlushed ends our direction and waits a while for the peer to end its own. A socket that is closed while
// the peer still sends answers RST, which may take what we sent last away from the peer.
func (c *conn) closeFlushed() {
	if c.eof {
		c.drop(nil)
		return
	}
	if !c.shutDone {
		c.shutDone = true
		shutdown(c.fd, unix.SHUT_WR)
	}
	c.draining = true
	c.e.Arm(&c.timer, drainTime)
	if c.more || c.hup || c.paused {
		c.wake()
	}
}

// drain reads and forgets until the peer has ended.
func (c *conn) drain() {
	for range readsPerTurn {
		n, errno := recv(c.fd, c.e.scratch)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			c.drop(nil)
			return
		}
	}
	c.wake()
}
