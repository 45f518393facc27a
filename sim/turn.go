package sim

import (
	"net/netip"
	"syscall"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// serve delivers what there is; see Epoll's.
func (c *conn) serve() {
	c.queued = false
	switch {
	case c.gone || c.connecting:
		return
	case c.draining:
		c.drain()
		return
	case c.closing:
		if c.rx.rst {
			c.drop(nil)
		}
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
		c.ended()
	}
}

func (c *conn) receive() {
	if c.rx.rst && c.paused && !c.stopped() {
		c.drop(syscall.ECONNRESET)
		return
	}
	for round := 0; !c.eof && !c.paused && !c.stopped(); round++ {
		if round == readsPerTurn {
			c.wake()
			return
		}
		have := min(len(c.in), loop.ScratchSize)
		n := 0
		if room := min(loop.ScratchSize-have, len(c.rx.buf)); room > 0 {
			b := c.loop.scratch[:have+room]
			copy(b, c.in)
			n = c.rx.read(b[have:])
			c.deliver(b[:have+n])
		}
		switch {
		case n > 0:
		case c.rx.rst:
			c.drop(syscall.ECONNRESET)
		case c.rx.fin && len(c.rx.buf) == 0:
			c.eof = true
		default:
			return
		}
	}
}

// deliver gives p to the handler and keeps what it does not consume. p is a copy that the handler must not keep:
// it is spoiled afterwards.
func (c *conn) deliver(p []byte) {
	p = append([]byte(nil), p...)
	whole, full, taken := p, len(p) == loop.ScratchSize, 0
	c.again = false
	for {
		c.delivering, c.swapped = true, false
		n := c.h.Data(p)
		c.delivering = false
		taken += n
		p = p[n:]
		if c.stopped() || len(p) == 0 || !c.swapped || c.paused {
			break
		}
	}
	c.again = len(p) > 0 && (c.again || c.swapped)
	c.in = append([]byte(nil), p...)
	for i := range whole {
		whole[i] = 0xDB
	}
	if full && taken == 0 && !c.paused && !c.again && !c.stopped() {
		c.kill(loop.ErrNotConsumed)
	}
}

func (c *conn) ended() {
	if c.eofTold && c.shutDone && !c.closing {
		c.drop(nil)
	}
}

// flush gives the network what it takes.
func (c *conn) flush() {
	c.dirty = false
	if c.gone || c.connecting {
		return
	}
	moved := false
	for len(c.out) > 0 {
		n := c.tx.send(c.out)
		if n == 0 {
			break
		}
		c.out, moved = c.out[n:], true
		if n > 0 && len(c.out) > 0 && c.tx.starved {
			// A short write is as good as a full buffer: try again when there is room, or in a while.
			c.loop.world.after(c.loop.world.delay(), c.writable)
			break
		}
	}
	switch {
	case len(c.out) > 0:
		if c.closing && (moved || !c.timer.Armed()) {
			if !c.timer.Armed() {
				c.until = c.loop.Now() + lingerMost
			}
			c.loop.Arm(&c.timer, max(0, min(lingerTime, c.until-c.loop.Now())))
		}
	case c.closing:
		c.closeFlushed()
		return
	case c.shut && !c.shutDone:
		c.shutDone = true
		c.tx.end()
		c.ended()
	}
	if c.above && len(c.out) < loop.LowWater && !c.stopped() {
		c.above = false
		c.h.Writable()
	}
}

// closeFlushed closes as Epoll does: our direction first, then the peer's is awaited.
func (c *conn) closeFlushed() {
	if !c.shutDone {
		c.shutDone = true
		c.tx.end()
	}
	if c.eof {
		c.drop(nil)
		return
	}
	c.draining = true
	c.loop.Arm(&c.timer, drainTime)
	c.wake()
}

func (c *conn) drain() {
	for c.rx.read(c.loop.scratch[:]) > 0 {
	}
	if c.rx.rst || c.rx.fin {
		c.drop(nil)
	}
}

// incoming is the simulator's loop.Incoming.
type incoming struct {
	world  *World
	from   *Loop
	rx, tx *pipe
	local  netip.AddrPort
	remote netip.AddrPort
	wanted netip.AddrPort
}

func (in *incoming) Remote() netip.AddrPort { return in.remote }
func (in *incoming) Local() netip.AddrPort  { return in.local }
func (in *incoming) Wanted() netip.AddrPort { return in.wanted }
func (in *incoming) Refuse() {
	in.rx.cut = true
	in.tx.abort()
}

func (in *incoming) Adopt(l loop.Loop, serve func(loop.Conn) loop.Handler) {
	to := l.(*Loop)
	to.load++
	to.accepted++
	adopt := func() {
		c := to.newConn(nil)
		c.accepted = true
		c.rx, c.tx, c.local, c.remote, c.opening = in.rx, in.tx, in.local, in.remote, true
		c.rx.to, c.tx.from = c, c
		if h := serve(c); h != nil {
			c.h = h
		}
		c.wake()
	}
	if to == in.from {
		adopt()
	} else if !to.Post(adopt) {
		to.load--
		to.accepted--
		in.Refuse()
	}
}
