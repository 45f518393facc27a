package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

const enoughEarly = 64 << 10 // bytes from a peer that are read while its handshake runs

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
	Among  *Open // of the loop: what is open; nil: nobody looks at the connection again
}

// ServerWith is Server with options.
func (s *Handshakes) ServerWith(raw loop.Conn, cfg *tls.Config, h loop.Handler, o Options) *Conn {
	c := newConn(raw.Loop(), h, s)
	c.raw, c.cfg, c.timeout, c.among = raw, cfg, o.Timeout, o.Among
	raw.SetHandler(c.Raw())
	c.clock()
	return c
}

// Client begins the client's side on raw, otherwise like Server. A server that refuses our certificate says so
// only after h.Opened: Closed then has a *HandshakeError before any Data.
func (s *Handshakes) Client(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn {
	c := newConn(raw.Loop(), h, s)
	c.raw, c.cfg, c.client = raw, cfg, true
	raw.SetHandler(c.Raw())
	c.clock()
	c.begin(nil)
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
	c.cfg, c.client, c.timeout, c.among = cfg, true, o.Timeout, o.Among
	c.raw = l.Dial(d, c.Raw())
	c.raw.Write(o.Header)
	return c
}

// clock starts the handshake's time: a client's when the connection stands, a server's when there is one.
func (c *Conn) clock() {
	timeout := c.timeout
	if timeout <= 0 {
		timeout = c.gate.timeout()
	}
	c.timer.Expired = func() {
		if c.gate != nil {
			c.gate.late.Add(1)
		}
		c.giveUp(&HandshakeError{Err: ErrHandshakeTimeout})
	}
	c.loop.Arm(&c.timer, timeout)
}

// begin has the handshake run: a server's as soon as its ClientHello is there, which hello is.
func (c *Conn) begin(hello []byte) {
	c.begun = true
	if c.client {
		c.tls = tls.Client(&c.wire, c.cfg)
	} else {
		c.tls = tls.Server(&c.wire, c.cfg)
	}
	c.wire.feed(hello)
	if !c.gate.enter(c) {
		c.gate.refused.Add(1)
		c.giveUp(&HandshakeError{Err: ErrBusy})
	}
}

// shake is the handshake's goroutine. It ends at the latest when the wire is dead: at the timeout, or when the
// connection below ends.
func (c *Conn) shake() {
	if c.client {
		c.gate.proceed(c)
	}
	err := c.tls.HandshakeContext(context.Background())
	var peer spiffe.ID
	if err == nil {
		if certs := c.tls.ConnectionState().PeerCertificates; len(certs) > 0 {
			peer, _ = spiffe.FromCertificate(certs[0]) // foreign peers have none; the mesh's configurations insist on one
		}
	}
	c.gate.leave(c)
	c.loop.Post(func() { c.shaken(peer, err) }) // refused by a loop that has ended: Closed was called then
}

// shaken is the end of the handshake, on the loop.
func (c *Conn) shaken(peer spiffe.ID, err error) {
	c.loop.Disarm(&c.timer)
	if c.gone || c.err != nil {
		return
	}
	c.wireOut()
	if err == nil {
		c.peer = peer
		if refused := c.among.add(c); refused != nil { // since it was verified
			err = &identityError{refused}
		}
	}
	if err != nil {
		var id *identityError
		c.err = &HandshakeError{Err: err, Identity: errors.As(err, &id)}
		c.raw.Close() // after the alert has gone out
		return
	}
	c.open = true
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
