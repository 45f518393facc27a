package pool

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Pool is described in the package comment.
type Pool struct {
	cfg      Config
	hosts    map[Target]*host
	draining bool
}

// host is everything that goes to one target.
type host struct {
	pool           *Pool
	target         Target
	conns          []upstream.Conn
	waitHead, tail *Waiter
}

// New makes a pool.
func New(cfg Config) *Pool { return &Pool{cfg: cfg, hosts: map[Target]*host{}} }

// Get answers a connection to t that is Free, for the caller to open its request on at once. If there is none it
// answers nil, starts one, and w.Owner is told later, within timeout (0: the pool's) — unless the queue is full
// (failure Overload). Nothing of w.Owner is called inside.
func (p *Pool) Get(t *Target, timeout time.Duration, w *Waiter) (upstream.Conn, *failure.Failure) {
	return nil, nil
}

// Leave takes w out of its queue. It does nothing if w does not wait.
func (p *Pool) Leave(w *Waiter) {}

// Blank gives ready a blank mesh connection to t, on which no byte has been sent: a spare, or a new one. ready
// must call SetHandler; it may run inside Blank. cancel says that it is not wanted any more; ready is then not called.
func (p *Pool) Blank(t *Target, timeout time.Duration, ready func(c loop.Conn, f *failure.Failure)) (cancel func()) {
	return func() {}
}

// Return gives back a blank connection on which still no byte has been sent; it becomes the spare, or is closed.
func (p *Pool) Return(t *Target, c loop.Conn) {}

// Retire ends the connections to every target for which gone answers true: idle ones at once, others when their
// requests are done. A later Get makes new ones.
func (p *Pool) Retire(gone func(t *Target) bool) {}

// Drain ends idle connections and everything else as it becomes idle, from now on.
func (p *Pool) Drain() {}

// Close ends every connection at once.
func (p *Pool) Close() {}

// Conns answers how many connections the pool has, blanks included.
func (p *Pool) Conns() int { return 0 }
