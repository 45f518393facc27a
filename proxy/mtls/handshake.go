package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

const (
	defaultMax     = 256
	queueFactor    = 16
	defaultTimeout = 5 * time.Second
	enoughEarly    = 64 << 10 // bytes from a peer that are read while its handshake runs
)

// Handshakes bounds how many handshakes run at once. One value is shared by all loops of a process; it is safe
// for concurrent use. nil stands for the defaults with no bound.
type Handshakes struct {
	Max     int           // at once; 0: 256. Those above wait their turn, at most 16 × Max; above that: ErrBusy
	Timeout time.Duration // from start to Opened; 0: 5 s

	mu      sync.Mutex
	running int
	waiting []*Conn
}

// Server begins the server's side on raw, which it becomes the handler of: the serve function of an Incoming
// answers nil (or Conn.Raw) after it. h.Opened is called after the handshake, h.Closed with a *HandshakeError
// if it fails. On raw's loop.
func (s *Handshakes) Server(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn {
	return s.ServerWith(raw, cfg, h, Options{})
}

// Options of one handshake.
type Options struct {
	Timeout time.Duration // from start to Opened; 0: Handshakes.Timeout
	// Header is written before the handshake begins, in the clear: a PROXY protocol header. Of a client; bytes are copied.
	Header []byte
}

// ServerWith is Server with options.
func (s *Handshakes) ServerWith(raw loop.Conn, cfg *tls.Config, h loop.Handler, o Options) *Conn {
	c := newConn(raw.Loop(), h, s)
	c.raw, c.timeout = raw, o.Timeout
	c.tls = tls.Server(&c.wire, cfg)
	raw.SetHandler(c.Raw())
	c.begin()
	return c
}

// Client begins the client's side on raw, otherwise like Server. A server that refuses our certificate says so
// only after h.Opened: Closed then has a *HandshakeError before any Data.
func (s *Handshakes) Client(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn {
	c := newConn(raw.Loop(), h, s)
	c.raw = raw
	c.tls = tls.Client(&c.wire, cfg)
	raw.SetHandler(c.Raw())
	c.begin()
	return c
}

// Dial connects and then begins the client's side; d.Timeout bounds the connect, s.Timeout the handshake. An error
// of the connect is given to h.Closed as it is.
func (s *Handshakes) Dial(l loop.Loop, d loop.Dial, cfg *tls.Config, h loop.Handler) *Conn {
	return s.DialWith(l, d, cfg, h, Options{})
}

// DialWith is Dial with options.
func (s *Handshakes) DialWith(l loop.Loop, d loop.Dial, cfg *tls.Config, h loop.Handler, o Options) *Conn {
	c := newConn(l, h, s)
	c.timeout = o.Timeout
	c.tls = tls.Client(&c.wire, cfg)
	c.raw = l.Dial(d, c.Raw())
	c.raw.Write(o.Header)
	return c
}

func (s *Handshakes) timeout() time.Duration {
	if s == nil || s.Timeout <= 0 {
		return defaultTimeout
	}
	return s.Timeout
}

func (s *Handshakes) max() int {
	if s.Max <= 0 {
		return defaultMax
	}
	return s.Max
}

// enter starts c's handshake or queues it; false if the queue is full.
func (s *Handshakes) enter(c *Conn) bool {
	if s == nil {
		go c.shake()
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.running < s.max():
		s.running++
		go c.shake()
	case len(s.waiting) < queueFactor*s.max():
		s.waiting = append(s.waiting, c)
	default:
		return false
	}
	return true
}

// leave ends one handshake and starts the next.
func (s *Handshakes) leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	for len(s.waiting) > 0 && s.running < s.max() {
		next := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		if !next.wire.isDead() {
			s.running++
			go next.shake()
		}
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
}

// begin starts the handshake and its clock.
func (c *Conn) begin() {
	c.begun = true
	c.timer.Expired = func() { c.giveUp(&HandshakeError{Err: ErrHandshakeTimeout}) }
	timeout := c.timeout
	if timeout <= 0 {
		timeout = c.gate.timeout()
	}
	c.loop.Arm(&c.timer, timeout)
	if !c.gate.enter(c) {
		c.giveUp(&HandshakeError{Err: ErrBusy})
	}
}

// shake is the handshake's goroutine. It ends at the latest when the wire is dead: at the timeout, or when the
// connection below ends.
func (c *Conn) shake() {
	err := c.tls.HandshakeContext(context.Background())
	var peer spiffe.ID
	if err == nil {
		if certs := c.tls.ConnectionState().PeerCertificates; len(certs) > 0 {
			peer, _ = spiffe.FromCertificate(certs[0]) // foreign peers have none; the mesh's configurations insist on one
		}
	}
	c.gate.leave()
	c.loop.Post(func() { c.shaken(peer, err) }) // refused by a loop that has ended: Closed was called then
}

// shaken is the end of the handshake, on the loop.
func (c *Conn) shaken(peer spiffe.ID, err error) {
	c.loop.Disarm(&c.timer)
	if c.gone || c.err != nil {
		return
	}
	c.wireOut()
	if err != nil {
		var id *identityError
		c.err = &HandshakeError{Err: err, Identity: errors.As(err, &id)}
		c.raw.Close() // after the alert has gone out
		return
	}
	c.open, c.peer = true, peer
	c.ended = c.wire.settle(c)
	if c.closing {
		c.closeNow()
		return
	}
	if c.paused {
		c.raw.Pause()
	} else {
		c.raw.Resume()
	}
	c.h.Opened()
	c.afterOpened()
}

// afterOpened does what had to wait for the handshake.
func (c *Conn) afterOpened() {
	if c.stopped() {
		return
	}
	c.seal()
	if c.shut {
		c.shut = false
		c.CloseWrite()
	}
	if c.above && c.raw.Buffered() <= loop.HighWater {
		c.above = false
		c.h.Writable()
	}
	c.catchUp()
	c.tellEOF()
}

// giveUp ends a handshake that takes too long or may not begin.
func (c *Conn) giveUp(err error) {
	if c.open || c.gone || c.err != nil {
		return
	}
	c.err = err
	c.wire.kill()
	c.raw.Reset()
}
