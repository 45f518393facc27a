package sim

import (
	"net/netip"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

const (
	connectTimeout = 10 * time.Second
	lingerTime     = 30 * time.Second
	lingerMost     = 5 * time.Minute
	drainTime      = 2 * time.Second
	readsPerTurn   = 4
)

// conn is the simulator's loop.Conn: the same states as Epoll's, with a pipe in place of the kernel.
type conn struct {
	loop       *Loop
	id         int
	h          loop.Handler
	rx, tx     *pipe
	in         []byte // received and not consumed
	out        []byte // written and not sent
	err        error
	timer      loop.Timer
	until      time.Duration // closing: what has not gone out by then is given up
	local      netip.AddrPort
	remote     netip.AddrPort
	also       []netip.Addr
	connecting bool
	opening    bool
	paused     bool
	again      bool
	swapped    bool
	delivering bool
	eof        bool
	eofTold    bool
	accepted   bool
	queued     bool
	dirty      bool
	above      bool
	shut       bool
	shutDone   bool
	closing    bool
	draining   bool
	gone       bool
}

func (l *Loop) newConn(h loop.Handler) *conn {
	l.world.born++
	c := &conn{loop: l, id: l.world.born, h: h}
	c.timer.Expired = c.expire
	l.conns = append(l.conns, c)
	return c
}

// Dial starts a connection; see loop.Loop. Dial.Socket is not used.
func (l *Loop) Dial(d loop.Dial, h loop.Handler) loop.Conn {
	c := l.newConn(h)
	l.load++
	c.connecting, c.remote = true, d.Address
	source := l.address
	if d.Source.IsValid() {
		source = d.Source
	}
	c.local = netip.AddrPortFrom(source, l.world.freePort())
	if l.over {
		c.kill(loop.ErrLoopEnded)
		return c
	}
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = connectTimeout
	}
	l.Arm(&c.timer, timeout)
	c.also = d.Also
	l.world.after(l.world.delay(), func() { l.world.connect(c, d.Address) })
	return c
}

// connect is the SYN's arrival.
func (w *World) connect(c *conn, wanted netip.AddrPort) {
	addr := wanted
	if to, ok := w.turned[wanted]; ok {
		addr = to
	}
	if c.gone || w.holes[addr] {
		return
	}
	ln := w.listeners[addr]
	if ln == nil || ln.loop.over {
		if len(c.also) > 0 {
			c.remote = netip.AddrPortFrom(c.also[0], wanted.Port())
			c.also = c.also[1:]
			w.after(w.delay(), func() { w.connect(c, c.remote) })
			return
		}
		w.after(w.delay(), func() {
			c.arrived(func() { c.kill(syscall.ECONNREFUSED) })
		})
		return
	}
	there := &pipe{world: w, from: c}
	back := &pipe{world: w, to: c}
	c.rx, c.tx = back, there
	w.join(there, back)
	in := &incoming{world: w, from: ln.loop, rx: there, tx: back, local: addr, remote: c.local, wanted: wanted}
	w.after(w.delay(), func() { c.arrived(c.connected) })
	ln.loop.Post(func() {
		if w.listeners[addr] != ln {
			in.Refuse()
			return
		}
		ln.accept(in)
	})
}

// arrived has f done in a turn of the connection's loop.
func (c *conn) arrived(f func()) {
	c.loop.Post(func() {
		if !c.gone {
			f()
		}
	})
}

func (c *conn) connected() {
	c.connecting = false
	c.loop.Disarm(&c.timer)
	c.opening = !c.closing
	c.touch()
	c.wake()
}

// broken: the other end has answered RST.
func (c *conn) broken() {
	if len(c.rx.buf) == 0 || c.paused || c.stopped() {
		c.kill(syscall.ECONNRESET)
	} else {
		c.rx.rst = true
		c.wake()
	}
}

func (c *conn) writable() { c.arrived(c.touch) }

func (c *conn) Write(p []byte) {
	if c.shut || c.stopped() || len(p) == 0 {
		return
	}
	if len(c.out) == 0 && len(p) >= directWrite && !c.connecting {
		p = p[c.tx.send(p):] // and so the watermark may never be reached, as with Epoll
		if len(p) == 0 {
			return
		}
	}
	c.out = append(c.out, p...)
	c.above = c.above || len(c.out) > loop.HighWater
	c.touch()
}

// directWrite is from which size on a Write goes to the network at once, as Epoll does it.
const directWrite = 16 << 10

func (c *conn) Buffered() int { return len(c.out) }
func (c *conn) Pause()        { c.paused = true }

func (c *conn) Resume() {
	if c.paused {
		c.paused = false
		c.again = c.again || len(c.in) > 0 || c.delivering
		c.wake()
	}
}

func (c *conn) CloseWrite() {
	if !c.shut && !c.stopped() {
		c.shut = true
		c.touch()
	}
}

func (c *conn) Close() {
	if c.stopped() {
		return
	}
	c.closing = true
	if c.connecting && len(c.out) == 0 {
		c.drop(nil)
		return
	}
	c.touch()
}

func (c *conn) Reset() {
	if !c.gone {
		c.kill(nil)
	}
}

func (c *conn) SetHandler(h loop.Handler) {
	c.h = h
	c.swapped = c.delivering
	c.again = c.again || len(c.in) > 0
	c.eofTold = false
	c.wake()
}

func (c *conn) Loop() loop.Loop        { return c.loop }
func (c *conn) Local() netip.AddrPort  { return c.local }
func (c *conn) Remote() netip.AddrPort { return c.remote }
func (c *conn) stopped() bool          { return c.closing || c.gone }

func (c *conn) touch() {
	if !c.dirty && !c.gone {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
		c.loop.soon()
	}
}

func (c *conn) wake() {
	if !c.queued && !c.gone {
		c.queued = true
		c.loop.ready = append(c.loop.ready, c)
		c.loop.soon()
	}
}

// kill ends the connection with RST for the other end.
func (c *conn) kill(err error) {
	if c.tx != nil && !c.gone {
		c.tx.abort()
	}
	c.drop(err)
}

// drop takes the connection out of the loop.
func (c *conn) drop(err error) {
	if c.gone {
		return
	}
	if c.closing {
		err = nil
	}
	c.gone, c.err = true, err
	c.loop.Disarm(&c.timer)
	c.in, c.out = nil, nil
	if c.rx != nil {
		c.rx.cut = true
	}
	conns := c.loop.conns
	for i := range conns {
		if conns[i] == c {
			c.loop.conns = append(conns[:i], conns[i+1:]...)
			break
		}
	}
	c.loop.gone = append(c.loop.gone, c)
	c.loop.soon()
}

func (c *conn) expire() {
	switch {
	case c.connecting:
		c.kill(loop.ErrConnectTimeout)
	case c.draining:
		c.drop(nil)
	default:
		c.kill(nil)
	}
}
