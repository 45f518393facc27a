package downstream

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// ConfigOf answers how the connections of a foreign listener's chain are served (exchange.Origin.HTTP is the same m). It
// is made once per chain. What m does not bound is bounded all the same: 128 requests at once on an HTTP/2 connection,
// and by the other defaults of Config.
func ConfigOf(m *model.HTTP) *Config {
	none := func(d time.Duration) time.Duration {
		if d <= 0 {
			return -1
		}
		return d
	}
	head := m.HeadTimeout
	if head <= 0 {
		head = m.StreamIdleTimeout // a head is a part of its stream
	}
	if head <= 0 {
		head = m.IdleTimeout
	}
	c := &Config{
		Limits:        http1.Limits{Head: m.MaxHead, Fields: m.MaxFields},
		HeaderTimeout: none(head),
		IdleTimeout:   none(m.IdleTimeout),
		StillTimeout:  -1, // exchanges have StreamIdleTimeout
		MaxDuration:   m.MaxDuration,
		MaxRequests:   m.MaxRequests,
		DrainTimeout:  m.DrainTimeout,
		MaxStreams:    m.HTTP2.MaxStreams,
		Window:        int(m.HTTP2.Window),
		ConnWindow:    m.HTTP2.ConnectionWindow,
		RefuseHTTP10:  !m.HTTP1.AcceptHTTP10,
		DefaultHost:   m.HTTP1.DefaultHost,
		OriginForm:    !m.HTTP1.AbsoluteURL,
		NoTrailers:    !m.HTTP1.AllowTrailers,
		HeaderTable:   m.HTTP2.HeaderTable,
		NoConnect:     !m.HTTP2.AllowConnect,
		KeepAlive:     m.HTTP2.KeepAlive,
		KeepAliveEnd:  m.HTTP2.KeepAliveTimeout,
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 128
	}
	if c.ConnWindow == 0 {
		c.ConnWindow = 1 << 20
	}
	c.Window = min(max(c.Window, 64<<10), 1<<20)
	return c
}

// ServeChain answers the handler for a connection of a chain: ctx.Origin.HTTP says which versions it speaks, alpn what the
// TLS handshake agreed on ("" for none). Where that leaves it open the first bytes decide. ctx.HTTP2 is not looked at.
func ServeChain(c loop.Conn, ctx Context, alpn string) loop.Handler {
	switch {
	case ctx.Origin.HTTP.Codec == model.CodecHTTP2, ctx.Origin.HTTP.Codec == model.CodecAuto && alpn == "h2":
		ctx.HTTP2 = true
	case ctx.Origin.HTTP.Codec == model.CodecHTTP1, alpn == "http/1.1", alpn == "http/1.0":
		ctx.HTTP2 = false
	default:
		return newUndecided(c, ctx)
	}
	return Serve(c, ctx)
}

// undecided is a connection whose first bytes will tell the version. It holds no more than the preface of HTTP/2.
type undecided struct {
	c      loop.Conn
	ctx    Context
	timer  loop.Timer
	chosen loop.Handler // once it is known
	leaves bool         // Leave was called before that
	gone   bool
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func newUndecided(c loop.Conn, ctx Context) *undecided {
	u := &undecided{c: c, ctx: ctx}
	u.timer.Expired = func() { u.end() }
	cfg := Config{}
	if ctx.Config != nil {
		cfg = *ctx.Config
	}
	cfg.fill()
	c.Loop().Arm(&u.timer, min(cfg.IdleTimeout, cfg.MaxDuration))
	return u
}

func (u *undecided) end() {
	if !u.gone {
		u.gone = true
		u.c.Close()
	}
}

// Opened implements loop.Handler.
func (u *undecided) Opened() {}

// Data implements loop.Handler.
func (u *undecided) Data(p []byte) int {
	if u.gone || u.chosen != nil {
		return 0
	}
	n := min(len(p), len(preface))
	match := string(p[:n]) == preface[:n]
	if match && n < len(preface) {
		return 0
	}
	u.c.Loop().Disarm(&u.timer)
	u.ctx.HTTP2 = match
	u.chosen = Serve(u.c, u.ctx)
	u.c.SetHandler(u.chosen)
	if u.leaves {
		u.Leave()
	}
	return 0
}

// Leave implements Drainer.
func (u *undecided) Leave() {
	u.leaves = true
	if d, ok := u.chosen.(Drainer); ok {
		d.Leave()
	}
}

// Drain implements Drainer.
func (u *undecided) Drain() {
	if d, ok := u.chosen.(Drainer); ok {
		d.Drain()
		return
	}
	u.end()
}

// EOF implements loop.Handler.
func (u *undecided) EOF() { u.end() }

// Writable implements loop.Handler.
func (u *undecided) Writable() {}

// Closed implements loop.Handler.
func (u *undecided) Closed(error) {
	u.gone = true
	u.c.Loop().Disarm(&u.timer)
	if u.ctx.Ended != nil {
		u.ctx.Ended()
	}
}
