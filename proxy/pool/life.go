package pool

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// life is what is known of a connection's age.
type life struct {
	served uint64        // what Served answered at the last sweep
	born   time.Duration // loop time at which it was started
	up     bool
	old    bool // it ends as soon as who waits for it is served
}

func (h *host) born() life { return life{born: h.pool.cfg.Loop.Now()} }

// options answers how HTTP/2 is spoken to the target.
func (h *host) options() (o model.HTTP2Options) {
	if c := h.target.Cluster; c != nil {
		o = c.Upstream.HTTP2
	}
	return o
}

// spent reports whether c has had all the requests, or all the time, that its cluster gives a connection.
func (h *host) spent(c upstream.Conn) bool {
	m := h.target.Cluster
	if c.Served() == 0 { // one request each, however short the time
		return false
	}
	if n := h.learned.Requests(h.pool.cfg.Loop.Now()); n > 0 && c.Served() >= n && single(c) {
		return true
	}
	if m == nil {
		return false
	}
	if m.MaxRequests > 0 && c.Served() >= uint64(m.MaxRequests) {
		return true
	}
	return m.MaxDuration > 0 && h.pool.cfg.Loop.Now()-h.conns[c].born >= m.MaxDuration
}

// sweepEvery is half of how long a connection may be without a request, or live, whichever is shorter.
func (h *host) sweepEvery() time.Duration {
	idle := h.pool.cfg.IdleTimeout
	if h.target.Kind == Mesh {
		idle = h.pool.cfg.MeshIdle
	}
	if m := h.target.Cluster; m != nil {
		if m.IdleTimeout > 0 {
			idle = m.IdleTimeout
		}
		if m.MaxDuration > 0 {
			idle = min(idle, m.MaxDuration)
		}
	}
	return max(idle/2, 50*time.Millisecond)
}

// expire ends connections that had no request since the last sweep but one, and tells those that are too old to end.
func (h *host) expire() {
	for c, l := range h.conns {
		switch now := c.Served(); {
		case c.Free() && h.spent(c):
			c.Retire()
		case now != l.served:
			l.served = now
			h.conns[c] = l
		case c.Idle() && c.Free():
			h.rested(c)
			c.Retire()
		}
	}
	if len(h.conns) > 0 {
		h.pool.cfg.Loop.Arm(&h.sweep, h.sweepEvery())
	}
}
