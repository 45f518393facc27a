package pool

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// blank is a mesh connection on which no byte has been sent yet: being made for somebody, or the spare of its host.
type blank struct {
	host  *host
	c     loop.Conn
	up    bool
	ready func(loop.Conn, *failure.Failure) // nil: nobody waits, it becomes the spare
	timer loop.Timer
}

// Blank gives ready a blank mesh connection to t, on which no byte has been sent: a spare, or a new one. ready
// must call SetHandler; it may run inside Blank. cancel says that it is not wanted any more; ready is then not
// called, and cancel does nothing after ready was.
func (p *Pool) Blank(t *Target, timeout time.Duration, ready func(c loop.Conn, f *failure.Failure)) (cancel func()) {
	h := p.host(t)
	if h.spare != nil {
		ready(h.spare.leave(), nil)
		return func() {}
	}
	b := &blank{host: h, ready: ready}
	h.blanks++
	b.c = p.cfg.Mesh(t, p.timeout(timeout), b)
	return func() { b.ready = nil }
}

// Return gives back a blank connection on which still no byte has been sent; it becomes the spare, or is closed.
func (p *Pool) Return(t *Target, c loop.Conn) {
	h := p.host(t)
	b := &blank{host: h, c: c, up: true}
	h.blanks++
	c.SetHandler(b)
	b.rest()
}

// rest makes b the spare, or closes it when there is one.
func (b *blank) rest() {
	h := b.host
	if h.spare != nil || h.pool.draining {
		b.c.Close()
		return
	}
	h.spare = b
	b.timer.Expired = func() { b.leave().Close() }
	h.pool.cfg.Loop.Arm(&b.timer, h.pool.cfg.SpareTimeout)
}

// leave takes b's connection out of b's care.
func (b *blank) leave() loop.Conn {
	h := b.host
	if h.spare == b {
		h.spare = nil
		h.pool.cfg.Loop.Disarm(&b.timer)
	}
	h.blanks--
	b.c.SetHandler(gone{})
	h.pool.forget(h)
	return b.c
}

// Opened implements loop.Handler.
func (b *blank) Opened() {
	b.up = true
	if b.ready == nil {
		b.rest()
		return
	}
	ready := b.ready
	b.ready = nil
	ready(b.leave(), nil)
}

// Data implements loop.Handler. The server of a blank connection has nothing to say.
func (b *blank) Data(p []byte) int { b.c.Close(); return len(p) }

// EOF implements loop.Handler.
func (b *blank) EOF() { b.c.Close() }

// Writable implements loop.Handler.
func (b *blank) Writable() {}

// Closed implements loop.Handler.
func (b *blank) Closed(err error) {
	h := b.host
	if h.spare == b {
		h.spare = nil
		h.pool.cfg.Loop.Disarm(&b.timer)
	}
	h.blanks--
	if b.ready != nil {
		ready := b.ready
		b.ready = nil
		ready(nil, upstreamFailure(err))
	}
	h.pool.forget(h)
}

// gone is the handler of a connection between two owners.
type gone struct{}

func (gone) Opened()           {}
func (gone) Data(p []byte) int { return 0 }
func (gone) EOF()              {}
func (gone) Writable()         {}
func (gone) Closed(error)      {}
