package pool

import (
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// protocols answers what is offered by ALPN (RFC 7301), the best first.
func (k Kind) protocols() []string {
	switch k {
	case H2C:
		return []string{"h2"}
	case Auto:
		return []string{"h2", "http/1.1"}
	}
	return []string{"http/1.1"}
}

// offer is a connection to a server that has yet to say which version of HTTP it speaks. It takes no requests and becomes
// one that does when the handshake is done. Among the host's connections it stands for what it will be. Every connection
// is asked: what the last one said only decides whether one connection is enough for all who wait.
type offer struct {
	host   *host
	c      loop.Conn
	ending bool
}

// Opened implements loop.Handler. What says nothing by ALPN speaks HTTP/1.1.
func (o *offer) Opened() {
	h, cfg := o.host, &o.host.pool.cfg
	if o.ending {
		return // Closed follows
	}
	said := ""
	if s, ok := o.c.(interface{ Protocol() string }); ok {
		said = s.Protocol()
	}
	born := h.conns[o]
	delete(h.conns, o)
	if h.single = said != "h2"; h.single {
		u := upstream.NewHTTP1(&cfg.Shared, h)
		h.conns[u] = born
		u.Attach(o.c)
		o.c.SetHandler(u)
		u.Opened()
		return
	}
	u := upstream.NewHTTP2With(&cfg.Shared, h, h.options())
	h.conns[u] = born
	u.Attach(o.c)
	o.c.SetHandler(u)
	u.Opened()
}

// Data implements loop.Handler.
func (o *offer) Data([]byte) int { return 0 }

// EOF implements loop.Handler.
func (o *offer) EOF() {}

// Writable implements loop.Handler.
func (o *offer) Writable() {}

// Closed implements loop.Handler: there was no handshake.
func (o *offer) Closed(err error) { o.host.Down(o, upstreamFailure(err)) }

// Open implements upstream.Conn.
func (o *offer) Open(*message.Head, bool, upstream.Receiver) (upstream.Stream, error) {
	return nil, upstream.ErrFull
}

// Free implements upstream.Conn.
func (o *offer) Free() bool { return false }

// Idle implements upstream.Conn: somebody waits for it.
func (o *offer) Idle() bool { return false }

// Served implements upstream.Conn.
func (o *offer) Served() uint64 { return 0 }

// Retire implements upstream.Conn.
func (o *offer) Retire() { o.Close() }

// Close implements upstream.Conn.
func (o *offer) Close() {
	if !o.ending {
		o.ending = true
		o.c.Close()
	}
}

var _ upstream.Conn = (*offer)(nil)
