package loop

import "golang.org/x/sys/unix"

// Ended asks the kernel whether the peer of a connection that is at rest has ended, or said something, that the loop has
// not been told of yet. Not part of Conn: only real networks have such a moment.
func (c *conn) Ended() bool { return c.fd < 0 || !c.connecting && !quiet(c.fd) }

// worthCopying is up to which size what was not consumed is moved to the scratch buffer for the next read.
const worthCopying = 4 << 10

// event is what epoll says about the connection.
func (c *conn) event(ev uint32) {
	if c.connecting && !c.connected(ev) {
		return
	}
	if ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && (c.paused || c.stalled || c.eof || c.closing && !c.draining) {
		// Nobody reads, so nobody would notice.
		if err := pendingError(c.fd); err != nil {
			c.fail(err)
			return
		}
	}
	if ev&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		c.hup, c.more = true, true
	}
	if ev&unix.EPOLLIN != 0 {
		c.more = true
	}
	if ev&unix.EPOLLOUT != 0 && c.blocked {
		c.blocked = false
		c.touch()
	}
	if !c.queued { // else its turn comes in serveReady
		c.serve()
	}
}

// serve delivers what there is: Opened, what was not consumed, what the kernel has, the end.
func (c *conn) serve() {
	c.queued = false
	switch {
	case c.gone || c.connecting:
		return
	case c.draining:
		c.drain()
		return
	case c.closing:
		return
	}
	if c.opening {
		c.opening = false
		c.h.Opened()
	}
	if c.again && !c.paused && !c.stopped() {
		c.again = false
		if len(c.in) > 0 {
			c.deliver(c.in)
		}
	}
	c.receive()
	if c.eof && !c.eofTold && !c.paused && !c.stopped() {
		c.eofTold = true
		c.h.EOF()
		c.over()
	}
}

// receive reads until the kernel has nothing more, as far as can be known without asking it once more: with
// edges, a read that got less than it asked for was the last one, unless the peer has ended.
func (c *conn) receive() {
	for round := 0; c.more && !c.eof && !c.paused && !c.stopped(); round++ {
		if round == readsPerTurn {
			c.wake()
			return
		}
		if c.splice != nil && len(c.in) == 0 && c.carry() {
			if c.stalled {
				return
			}
			continue
		}
		buf, have := c.space()
		n, errno := recv(c.fd, buf[have:])
		switch {
		case n > 0:
			c.more = n == len(buf)-have || c.hup
			if c.splice != nil && n >= worthHot {
				c.splice.hot = true
			}
			if &buf[0] == &c.e.scratch[0] {
				c.e.pool.Put(c.in)
				c.in = nil
			}
			c.deliver(buf[:have+n])
		case errno == 0:
			c.more, c.eof = false, true
			if c.broken {
				c.fail(c.err)
			}
		case errno == unix.EAGAIN:
			c.more = false
			if c.broken {
				c.fail(c.err)
			}
		default:
			c.fail(errno)
		}
	}
}

// space answers where to read to: the scratch buffer, with a little that was not consumed in front, or behind
// what was not consumed if that is much.
func (c *conn) space() (buf []byte, have int) {
	have = len(c.in)
	if have <= worthCopying {
		copy(c.e.scratch, c.in)
		return c.e.scratch, have
	}
	if cap(c.in) < ScratchSize {
		grown := append(c.e.pool.Get(ScratchSize), c.in...)
		c.e.pool.Put(c.in)
		c.in = grown
	}
	return c.in[:ScratchSize], have
}

// deliver gives p, which is c.in and perhaps more behind it or lies in the scratch buffer, to the handler, and
// keeps what it does not consume.
func (c *conn) deliver(p []byte) {
	full, taken := len(p) == ScratchSize, 0
	c.again = false
	for {
		c.delivering, c.swapped = true, false
		n := c.h.Data(p)
		c.delivering = false
		taken += n
		p = p[n:]
		if c.stopped() {
			return
		}
		if len(p) == 0 || !c.swapped || c.paused {
			break
		}
	}
	c.again = len(p) > 0 && (c.again || c.swapped)
	c.keep(p)
	if full && taken == 0 && !c.paused && !c.again {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.drop(ErrNotConsumed)
	}
}

// keep stores what was not consumed.
func (c *conn) keep(p []byte) {
	switch {
	case len(p) == 0:
		c.e.pool.Put(c.in)
		c.in = nil
	case c.in != nil:
		n := copy(c.in[:cap(c.in)], p) // p lies in c.in
		c.in = c.in[:n]
	default:
		c.in = append(c.e.pool.Get(len(p)), p...)
	}
}

// over closes a connection whose two directions have both ended.
func (c *conn) over() {
	if c.eofTold && c.shutDone && !c.closing {
		c.drop(nil)
	}
}

// fail ends a connection that broke; after our own Close that is no error.
func (c *conn) fail(err error) {
	if c.closing {
		err = nil
	}
	c.drop(err)
}
