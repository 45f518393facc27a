// Package pool keeps the upstream connections of one loop and one source identity: HTTP/2 over mTLS to the
// proxies of other workloads, HTTP/1.1 keep-alive and HTTP/2 to programs, either as configured or as the server's
// ALPN says (auto.go). It promises that a request waits for a connection only while one is being made or all that its
// cluster may have are busy, that a connection which its server may be about to close gets no request (age.go), that the number of waiters, connections and idle connections is bounded, and that two identities never share a connection (each has its own Pool). It never chooses an
// endpoint and never retries.
//
// A Pool belongs to its loop; nothing is safe for concurrent use. Start reading at Pool.Get.
package pool

import (
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/keepalive"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Kind of connection.
type Kind uint8

// Kinds.
const (
	Mesh  Kind = iota // HTTP/2 over mTLS to the proxy in front of a workload
	HTTP1             // HTTP/1.1
	H2C               // HTTP/2, by prior knowledge in the clear
	Auto              // HTTP/2 or HTTP/1.1, as the server's ALPN says for each connection; with TLS
)

// Target is where a connection goes. It is comparable: targets that are equal share connections.
type Target struct {
	Kind      Kind
	Address   netip.AddrPort
	Source    netip.Addr // bound before the connect, when valid (programs see their caller's address)
	Workload  string     // Mesh: whose proxy
	Namespace string
	Port      uint16 // Mesh: the workload's own port
	Identity  string // Mesh: SPIFFE ID the peer must prove
	TLS       TLS    // HTTP1, H2C and Auto: makes the connection; nil: plain
	Host      string // what TLS is told of the request
	Header    string // PROXY header that a connection begins with; "": none
	// Cluster has the options of connections; nil: the pool's own. See Shape.
	Cluster *model.Cluster
	// Breaker counts the connections and who waits for one; nil: there is no bound but the pool's own. A target
	// without a connection always gets one, so that who waits never waits for another loop.
	Breaker *cluster.Breaker
}

// TLS is cluster.TLS.
type TLS interface {
	Dial(l loop.Loop, d loop.Dial, header []byte, host string, protocols []string, h loop.Handler) loop.Conn
	PerHost() bool
}

// MeshTarget is where the proxy in front of e is.
func MeshTarget(e *model.Endpoint) Target {
	if e.Identity == "" {
		return Target{Kind: HTTP1, Address: e.Address}
	}
	return Target{Kind: Mesh, Address: e.Address, Workload: e.Workload, Namespace: e.Namespace, Port: e.Port, Identity: e.Identity}
}

// Shape gives a target of the mesh the options and the bounds of a cluster, if it has any about connections. Without them
// connections to a workload are shared by all clusters that it is in.
func (t *Target) Shape(m *model.Cluster, b *cluster.Breaker) {
	bounds := &m.Breakers[model.PriorityDefault]
	bounded := b != nil && bounds.Connections+bounds.Pending > 0
	if bounded || m.IdleTimeout > 0 || m.MaxRequests > 0 || m.MaxDuration > 0 || m.Upstream.HTTP2 != (model.HTTP2Options{}) {
		t.Cluster = m
		if bounded {
			t.Breaker = b
		}
	}
}

// ServerName is the SNI that names the workload's port: p<port>.<workload>.<namespace>.mesh.tulle.
func (t *Target) ServerName() string {
	return "p" + strconv.Itoa(int(t.Port)) + "." + t.Workload + "." + t.Namespace + ".mesh.tulle"
}

// Over answers Config.Mesh for real connections.
func Over(m *upstream.Mesh) func(t *Target, timeout time.Duration, h loop.Handler) loop.Conn {
	return func(t *Target, timeout time.Duration, h loop.Handler) loop.Conn {
		return m.Dial(t.Address, t.ServerName(), t.Identity, timeout, h)
	}
}

// Config of a Pool. Loop is required, Mesh too when mesh targets are used; everything else has a default.
type Config struct {
	Loop loop.Loop
	// Mesh starts a blank mTLS connection to t on the pool's loop (loop.Dial and mtls.Client). h.Opened is called when the
	// handshake is done and the peer's identity is proven, h.Closed when it failed; a *failure.Failure among the
	// error's causes says why.
	Mesh func(t *Target, timeout time.Duration, h loop.Handler) loop.Conn
	// Also is where else a program may listen, when the target's address refuses; not used for Mesh. May be empty.
	Also []netip.Addr
	// Socket makes sockets towards programs, for example inside a network namespace; nil: ordinary ones.
	Socket func(v6 bool) (fd int, err error)

	Shared         upstream.Shared
	ConnectTimeout time.Duration // default 5 s, where Get gives none
	IdleTimeout    time.Duration // of HTTP/1.1 and h2c connections without a request; default 60 s
	MeshIdle       time.Duration // of mesh connections without a request; default 10 min
	SpareTimeout   time.Duration // of a spare blank connection; default 30 s
	MaxIdle        int           // idle HTTP/1.1 connections per target; default 1024: fewer are opened anew at every wave of requests
	MaxConns       int           // connections per target; default 4096
	MaxWaiters     int           // requests that wait for a connection, per target; default 4096
}

// Waiter is embedded by who waits for a connection; Owner is set once.
type Waiter struct {
	Owner interface {
		// Connected gives c, which is Free: the owner opens its request on it before it returns.
		Connected(c upstream.Conn)
		// Unconnected: no connection could be made.
		Unconnected(f *failure.Failure)
	}
	// Careful: the request cannot be sent again, so it gets no connection that its server may be about to close.
	Careful    bool
	at         *host
	prev, next *Waiter
}

// Waiting reports whether w is in a queue.
func (w *Waiter) Waiting() bool { return w.at != nil }

// Pool is described in the package comment.
type Pool struct {
	cfg      Config
	hosts    map[Target]*host
	servers  map[server]*keepalive.Envelope
	last     *host // of the latest Get
	draining bool
}

// New makes a pool.
func New(cfg Config) *Pool {
	duration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	count := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	duration(&cfg.ConnectTimeout, 5*time.Second)
	duration(&cfg.IdleTimeout, time.Minute)
	duration(&cfg.MeshIdle, 10*time.Minute)
	duration(&cfg.SpareTimeout, 30*time.Second)
	count(&cfg.MaxIdle, 1024)
	count(&cfg.MaxConns, 4096)
	count(&cfg.MaxWaiters, 4096)
	return &Pool{cfg: cfg, hosts: map[Target]*host{}, servers: map[server]*keepalive.Envelope{}}
}

// Get answers a connection to t that is Free, for the caller to open its request on at once. If there is none it
// answers nil, starts one, and w.Owner is told later, within timeout (0: the pool's) — unless the queue is full
// (failure Overload), or as many wait as the cluster may have (Overflow). Nothing of w.Owner is called inside.
func (p *Pool) Get(t *Target, timeout time.Duration, w *Waiter) (upstream.Conn, *failure.Failure) {
	h := p.host(t)
	if h.head == nil {
		if c := h.take(w.Careful); c != nil {
			return c, nil
		}
	}
	if h.waiting >= p.cfg.MaxWaiters {
		return nil, &failure.Failure{Reason: failure.Overload, Cause: errQueue}
	}
	if b := t.Breaker; b != nil && !b.Take(cluster.Pending) {
		return nil, &failure.Failure{Reason: failure.Overflow, Cause: errPending}
	}
	h.timeout = p.timeout(timeout)
	h.join(w)
	return nil, nil
}

// Unused takes back a connection to t that Get has answered and on which no request was opened.
func (p *Pool) Unused(t *Target, c upstream.Conn) {
	h := p.host(t)
	if single(c) && c.Free() {
		h.keep(c)
	}
}

var (
	errQueue   = errors.New("too many requests wait for a connection to one endpoint")
	errPending = errors.New("too many requests of the cluster wait for a connection")
)

// Leave takes w out of its queue. It does nothing if w does not wait.
func (p *Pool) Leave(w *Waiter) {
	if w.at != nil {
		w.at.leave(w)
	}
}

// host answers what goes to t.
func (p *Pool) host(t *Target) *host {
	if p.last != nil && p.last.target == *t {
		return p.last
	}
	h := p.hosts[*t]
	if h == nil {
		h = &host{pool: p, target: *t, conns: map[upstream.Conn]life{}, timeout: p.cfg.ConnectTimeout, learned: p.learned(t)}
		h.sweep.Expired = h.expire
		p.hosts[*t] = h
	}
	p.last = h
	return h
}

// forget drops h when there is nothing left of it.
func (p *Pool) forget(h *host) {
	if len(h.conns) > 0 || h.waiting > 0 || h.blanks > 0 {
		return
	}
	p.cfg.Loop.Disarm(&h.sweep)
	if p.hosts[h.target] == h {
		delete(p.hosts, h.target)
	}
	if p.last == h {
		p.last = nil
	}
}

func (p *Pool) timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return p.cfg.ConnectTimeout
	}
	return d
}

// Retire ends the connections to every target for which gone answers true: idle ones at once, others when their
// requests are done. A later Get makes new ones.
func (p *Pool) Retire(gone func(t *Target) bool) {
	for t, h := range p.hosts {
		if gone(&t) {
			h.retire()
		}
	}
}

// Probe finds mesh connections whose peer has gone silent; see upstream.HTTP2.Probe. Programs are not asked: some end a
// connection that pings them.
func (p *Pool) Probe() {
	for t, h := range p.hosts {
		if t.Kind != Mesh {
			continue
		}
		for c := range h.conns {
			if u, ok := c.(*upstream.HTTP2); ok {
				u.Probe()
			}
		}
	}
}

// Unneeded ends connections to programs that have had no request yet and that nobody waits for. A program that ends in order
// may wait some seconds for the first request of a connection.
func (p *Pool) Unneeded() {
	for t, h := range p.hosts {
		if t.Kind == Mesh || h.waiting > 0 {
			continue
		}
		for c := range h.conns {
			if c.Served() == 0 && c.Free() {
				c.Retire()
			}
		}
	}
}

// Drain ends idle connections now and every other one as soon as it is idle.
func (p *Pool) Drain() {
	p.draining = true
	for _, h := range p.hosts {
		h.retireIdle()
		if h.spare != nil {
			h.spare.leave().Close()
		}
	}
}

// Close ends every connection at once; requests on them fail.
func (p *Pool) Close() {
	p.draining = true
	for _, h := range p.hosts {
		for c := range h.conns {
			c.Close()
		}
		if h.spare != nil {
			h.spare.leave().Reset()
		}
	}
}

// Conns answers how many connections the pool has, blanks included.
func (p *Pool) Conns() int {
	n := 0
	for _, h := range p.hosts {
		n += len(h.conns) + h.blanks
	}
	return n
}

// upstreamFailure translates why a connection could not be made.
func upstreamFailure(err error) *failure.Failure { return upstream.DialFailure(err) }
