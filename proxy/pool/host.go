package pool

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/keepalive"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// host is everything that goes to one target: its connections and who waits for one. It is the Owner of its
// connections.
type host struct {
	pool    *Pool
	target  Target
	conns   map[upstream.Conn]life // all
	shared  []upstream.Conn        // HTTP/2 connections that stand, oldest first
	idle    []upstream.Conn        // HTTP/1.1 connections without a request, last used last
	dialing int
	learned *keepalive.Envelope
	making  bool          // inside makeRoom
	single  bool          // Auto: the last handshake said HTTP/1.1
	timeout time.Duration // of the latest Get
	spare   *blank
	blanks  int

	head, tail *Waiter
	waiting    int
	sweep      loop.Timer
}

// multiplexed reports whether one more connection is for many requests, as far as that is known.
func (h *host) multiplexed() bool { return h.target.Kind != HTTP1 && !h.single }

// single reports whether c takes one request at a time.
func single(c upstream.Conn) bool {
	_, yes := c.(*upstream.HTTP1)
	return yes
}

// take answers a connection that is Free, nil if there is none. A careful request gets none that its server may be about
// to close.
func (h *host) take(careful bool) upstream.Conn {
	for i := 0; i < len(h.shared); {
		switch c := h.shared[i]; {
		case h.spent(c), !h.young(c):
			c.Retire() // which takes it out
		case c.Free():
			return c
		default:
			i++
		}
	}
	for n := len(h.idle); n > 0; n = len(h.idle) {
		c := h.idle[n-1]
		if h.old(c, careful) {
			return nil // and so are all others: this is the one that was used last
		}
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		if u, ok := c.(*upstream.HTTP1); c.Free() && (!ok || !u.Ended()) && !h.spent(c) {
			return c
		}
		c.Retire()
	}
	return nil
}

// join puts w at the end of the queue and sees to it that there will be a connection.
func (h *host) join(w *Waiter) {
	w.at, w.prev, w.next = h, h.tail, nil
	if h.tail != nil {
		h.tail.next = w
	} else {
		h.head = w
	}
	h.tail = w
	h.waiting++
	h.connect()
}

// leave takes w out of the queue.
func (h *host) leave(w *Waiter) {
	if b := h.target.Breaker; b != nil {
		b.Give(cluster.Pending)
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		h.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		h.tail = w.prev
	}
	w.at, w.prev, w.next = nil, nil, nil
	h.waiting--
}

// connect starts as many connections as those who wait need and the bounds allow.
func (h *host) connect() {
	want, most := h.waiting, h.pool.cfg.MaxConns
	if h.multiplexed() {
		want, most = min(1, h.waiting), maxShared
	}
	for h.dialing < want {
		if len(h.conns) >= most || !h.mayDial() {
			h.makeRoom()
			return
		}
		h.dialing++
		h.dial()
	}
}

// mayDial counts one more connection, if the cluster may have it. A host without a connection that serves who waits may
// always: others, of other hosts and loops, become free without telling it.
func (h *host) mayDial() bool {
	b := h.target.Breaker
	if b == nil || b.Take(cluster.Connections) {
		return true
	}
	some := len(h.conns) > 0
	if h.multiplexed() { // those that end may do so for long
		some = len(h.shared)+h.dialing > 0
	}
	if !some {
		b.Force(cluster.Connections)
	}
	return !some
}

// maxShared bounds the HTTP/2 connections to one target; each carries what the peer's MAX_CONCURRENT_STREAMS allows.
const maxShared = 16

// dial starts one connection.
func (h *host) dial() {
	cfg := &h.pool.cfg
	if !h.sweep.Armed() {
		cfg.Loop.Arm(&h.sweep, h.sweepEvery())
	}
	switch h.target.Kind {
	case HTTP1:
		u := upstream.NewHTTP1(&cfg.Shared, h)
		h.conns[u] = h.born()
		u.Attach(h.open(u))
		return
	case Auto:
		o := &offer{host: h}
		h.conns[o] = h.born()
		o.c = h.open(o)
		return
	}
	u := upstream.NewHTTP2With(&cfg.Shared, h, h.options())
	u.Within(h.timeout)
	h.conns[u] = h.born()
	switch {
	case h.target.Kind == H2C:
		u.Attach(h.open(u))
	case h.spare != nil:
		c := h.spare.leave()
		u.Attach(c)
		c.SetHandler(u)
		u.Opened()
	default:
		u.Attach(cfg.Mesh(&h.target, h.timeout, u))
	}
}

// open starts a connection outside the mesh.
func (h *host) open(u loop.Handler) loop.Conn {
	t := &h.target
	if t.TLS != nil {
		return t.TLS.Dial(h.pool.cfg.Loop, h.dialTo(), []byte(t.Header), t.Host, t.Kind.protocols(), u)
	}
	c := h.pool.cfg.Loop.Dial(h.dialTo(), u)
	if t.Header != "" {
		c.Write([]byte(t.Header))
	}
	return c
}

func (h *host) dialTo() loop.Dial {
	cfg := &h.pool.cfg
	if h.target.Cluster != nil { // outside of the mesh, from where the proxy is
		return loop.Dial{Address: h.target.Address, Source: h.target.Source, Timeout: h.timeout}
	}
	return loop.Dial{Address: h.target.Address, Also: cfg.Also, Source: h.target.Source, Socket: cfg.Socket, Timeout: h.timeout}
}

// serve gives connections to those who wait, first come first served.
func (h *host) serve() {
	for h.head != nil {
		w := h.head
		c := h.take(w.Careful)
		if c == nil {
			return
		}
		h.leave(w)
		w.Owner.Connected(c)
		if single(c) && c.Free() { // it was not wanted after all
			h.keep(c)
		}
	}
}

// keep puts an HTTP/1.1 connection without a request among the idle ones, or closes it.
func (h *host) keep(c upstream.Conn) {
	if h.pool.draining || len(h.idle) >= h.pool.cfg.MaxIdle || h.spent(c) {
		c.Retire()
		return
	}
	h.idle = append(h.idle, c)
	h.trim()
}

// Up implements upstream.Owner.
func (h *host) Up(c upstream.Conn) {
	h.dialing--
	if single(c) {
		h.idle = append(h.idle, c)
	} else {
		h.shared = append(h.shared, c)
	}
	l := h.conns[c]
	l.up = true
	h.conns[c] = l
	h.serve()
	if l.old {
		c.Retire()
	}
	h.connect()
	if h.pool.draining {
		h.retireIdle()
	}
}

// Freed implements upstream.Owner.
func (h *host) Freed(c upstream.Conn) {
	h.saw(c)
	if single(c) {
		h.keep(c)
	}
	if h.head != nil {
		h.serve()
	}
	if h.pool.draining {
		h.retireIdle()
	}
}

// Ending implements upstream.Owner.
func (h *host) Ending(c upstream.Conn) {
	h.shared = without(h.shared, c)
	h.idle = without(h.idle, c)
	h.connect()
}

// Down implements upstream.Owner. Who waits for a connection that could not be made is told why: of HTTP/1.1
// one waiter, because each started its own, or all those for whom none is being made and none stands; of HTTP/2 all,
// if nothing else is being tried.
func (h *host) Down(c upstream.Conn, f *failure.Failure) {
	if _, known := h.conns[c]; !known {
		return
	}
	delete(h.conns, c)
	h.lost(c)
	if b := h.target.Breaker; b != nil {
		b.Give(cluster.Connections)
	}
	h.shared = without(h.shared, c)
	h.idle = without(h.idle, c)
	if f != nil {
		h.dialing--
		h.refuse(f)
	}
	if f == nil || len(h.shared) == 0 { // else who still waits is served by what stands
		h.connect()
	}
	h.pool.forget(h)
}

// refuse tells those who wait that no connection could be made.
func (h *host) refuse(f *failure.Failure) {
	n := 1
	switch {
	case h.multiplexed():
		n = h.waiting
	case len(h.conns) == h.dialing:
		n = max(1, h.waiting-h.dialing)
	}
	if len(h.shared) > 0 { // they are served by the ones that stand
		return
	}
	for ; n > 0 && h.head != nil; n-- {
		w := h.head
		h.leave(w)
		w.Owner.Unconnected(f)
	}
}

// retireIdle ends the connections that have no request.
func (h *host) retireIdle() {
	for c := range h.conns {
		if c.Idle() && c.Free() {
			c.Retire()
		}
	}
}

// retire ends all connections, those with requests when these are done. Those that are being made serve who waits for
// them first: that a target is given up is no failure to connect to it.
func (h *host) retire() {
	for c, l := range h.conns {
		if !l.up && h.waiting > 0 {
			l.old = true
			h.conns[c] = l
			continue
		}
		c.Retire()
	}
	if h.spare != nil {
		h.spare.leave().Close()
	}
}

func without(list []upstream.Conn, c upstream.Conn) []upstream.Conn {
	for i := range list {
		if list[i] == c {
			copy(list[i:], list[i+1:])
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}
