package loop

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const connEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// conn is Epoll's Conn. Reading is in read.go, writing and closing in flush.go.
type conn struct {
	e      *Epoll
	h      Handler
	fd     int
	slot   int32
	in     []byte // received and not consumed; pooled
	out    []byte // out[sent:] is written and not sent; pooled
	sent   int
	err    error // for Closed, or of the last send
	timer  Timer // of the connect, then of Close
	local  netip.AddrPort
	remote netip.AddrPort
	others *Dial     // while connecting: where else to
	splice *splicing // to where what arrives is carried; see splice.go
	from   *conn     // whose bytes are carried to us

	accepted   bool // not made by us
	connecting bool
	opening    bool // Opened is to be called
	paused     bool
	more       bool          // the kernel may have bytes for us
	hup        bool          // the peer has ended: a short read is not the last
	stalled    bool          // what has arrived waits for the connection that it is carried to
	again      bool          // in is to be delivered although nothing arrived
	swapped    bool          // SetHandler was called during Data
	until      time.Duration // closing: what has not gone out by then is given up
	delivering bool
	eof        bool // the peer has ended and everything was read
	eofTold    bool
	queued     bool // in Epoll.ready
	dirty      bool // in Epoll.dirty
	blocked    bool // the kernel's send buffer is full
	above      bool // output was above HighWater
	broken     bool // a send failed; what is left to read is read first
	shut       bool // CloseWrite was called
	shutDone   bool
	closing    bool
	draining   bool // closing, and reading until the peer has ended
	gone       bool
}

func (c *conn) Write(p []byte) {
	if c.shut || c.closing || c.gone || c.broken || len(p) == 0 {
		return
	}
	if len(c.out) == 0 && len(p) >= directWrite && !c.connecting && !c.blocked {
		p = c.writeThrough(p)
		if len(p) == 0 {
			return
		}
	}
	if c.sent > 0 && len(c.out)+len(p) > cap(c.out) {
		n := copy(c.out, c.out[c.sent:])
		c.out, c.sent = c.out[:n], 0
	}
	c.out = c.e.pool.Append(c.out, p)
	if len(c.out)-c.sent > HighWater {
		c.above = true
	}
	c.touch()
}

func (c *conn) Buffered() int { return len(c.out) - c.sent }

func (c *conn) Pause() { c.paused = true }

func (c *conn) Resume() {
	if !c.paused {
		return
	}
	c.paused = false
	c.again = c.again || len(c.in) > 0 || c.delivering
	c.wake()
}

func (c *conn) CloseWrite() {
	if c.shut || c.closing || c.gone {
		return
	}
	c.shut = true
	c.touch()
}

func (c *conn) Close() {
	if c.closing || c.gone {
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
	if c.gone {
		return
	}
	if c.fd >= 0 {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	c.drop(nil)
}

func (c *conn) SetHandler(h Handler) {
	c.unsplice()
	c.h = h
	c.swapped = c.delivering
	c.again = c.again || len(c.in) > 0
	c.eofTold = false
	c.wake()
}

func (c *conn) Loop() Loop { return c.e }

func (c *conn) Local() netip.AddrPort {
	if !c.local.IsValid() && c.fd >= 0 && !c.connecting {
		c.local = sockName(unix.SYS_GETSOCKNAME, c.fd)
	}
	return c.local
}

func (c *conn) Remote() netip.AddrPort {
	if !c.remote.IsValid() && c.fd >= 0 && !c.connecting {
		c.remote = sockName(unix.SYS_GETPEERNAME, c.fd)
	}
	return c.remote
}

// stopped reports whether the handler is to hear no more than Closed.
func (c *conn) stopped() bool { return c.closing || c.gone }

// touch has the connection flushed at the end of the turn.
func (c *conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.e.dirty = append(c.e.dirty, c)
	}
}

// wake has what is waiting delivered in this or the next turn.
func (c *conn) wake() {
	if !c.queued && !c.gone {
		c.queued = true
		c.e.ready = append(c.e.ready, c)
	}
}

// drop takes the connection out of the loop; the handler is told at the end of the turn. The buffers live until
// then: a handler may be looking at them.
func (c *conn) drop(err error) {
	if c.gone {
		return
	}
	c.gone, c.err = true, err
	c.e.wheel.Disarm(&c.timer)
	c.unsplice()
	if c.from != nil {
		c.from.unsplice()
	}
	if c.fd >= 0 {
		c.Local()
		c.Remote()
		closeFD(c.fd)
		c.fd = -1
		c.e.release(c.slot)
	}
	c.e.gone = append(c.e.gone, c)
}

func (c *conn) tellClosed() {
	c.e.pool.Put(c.in)
	c.e.pool.Put(c.out)
	c.in, c.out, c.sent = nil, nil, 0
	c.e.load.Add(-1)
	if c.accepted {
		c.e.accepted.Add(-1)
	}
	c.h.Closed(c.err)
}

// expire is the timer's function: of a connect that took too long, a Close that could not flush, a peer that
// does not end.
func (c *conn) expire() {
	if c.connecting {
		c.fail(ErrConnectTimeout)
		return
	}
	if c.draining {
		c.drop(nil)
		return
	}
	c.Reset()
}
