package mtls

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/buffer"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// sealAt is how much plaintext is collected before it is encrypted within the turn, in bytes.
const sealAt = 64 << 10

// Conn is a TLS connection on a loop. How it opens records is in records.go.
type Conn struct {
	loop  loop.Loop
	ender loop.Ender   // nil if the loop is none
	pool  *buffer.Pool // likewise
	raw   loop.Conn
	tls   *tls.Conn // nil before the handshake has begun
	cfg   *tls.Config
	wire  wire
	owes  debt // belongs to the gate
	gate  *Handshakes
	h     loop.Handler
	timer loop.Timer // of the handshake
	peer  spiffe.ID
	among *Open

	timeout time.Duration // of the handshake; 0: the gate's
	err     error         // for Closed

	pend  []byte // written and not yet encrypted; pooled
	plain []byte // decrypted and not consumed; pooled
	early []byte // records that arrived with the handshake

	redelivery func() // c.redeliver, made once

	client     bool // our side of the handshake
	begun      bool // the handshake
	open       bool // the handshake is over
	paused     bool
	ending     bool // AtEnd was asked for
	posted     bool // a redelivery is under way
	reading    bool // inside records.go
	swapped    bool // SetHandler was called during Data
	heard      bool // application data has come
	eof        bool // close_notify has come
	eofTold    bool
	ended      bool // the connection below ended during the handshake
	above      bool // before the handshake was over: more than HighWater was written
	shut       bool
	closing    bool
	closeLater bool // Close was called during the handshake with something written
	gone       bool
}

func newConn(l loop.Loop, h loop.Handler, gate *Handshakes) *Conn {
	c := &Conn{loop: l, h: h, gate: gate}
	if e, ok := l.(loop.Ender); ok {
		c.ender, c.pool = e, e.Buffers()
	} else {
		c.pool = &buffer.Pool{Limit: 1}
	}
	c.wire.c = c
	c.wire.fed.L = &c.wire.mu
	return c
}

// Raw answers the handler that the connection below has to have.
func (c *Conn) Raw() loop.Handler { return (*below)(c) }

// State answers what the handshake agreed on: the peer's certificates, server name, ALPN. Valid after Opened.
func (c *Conn) State() *tls.ConnectionState {
	cs := c.tls.ConnectionState()
	return &cs
}

// Protocol answers what was agreed on by ALPN, "" if nothing was. Valid after Opened.
func (c *Conn) Protocol() string { return c.tls.ConnectionState().NegotiatedProtocol }

// PeerID answers the SPIFFE ID in the peer's certificate; zero if it has none. It is proven if the configuration is
// the mesh's (ServerConfig, ClientConfig), or a context's whose validation asks for it. Valid after Opened.
func (c *Conn) PeerID() spiffe.ID { return c.peer }

// ServerName answers the SNI that the client asked for. Valid after Opened.
func (c *Conn) ServerName() string { return c.tls.ConnectionState().ServerName }

// Write collects p; see loop.Conn. It is encrypted at the end of the turn.
func (c *Conn) Write(p []byte) {
	if c.shut || c.stopped() || len(p) == 0 {
		return
	}
	c.pend = c.grow(c.pend, p)
	switch {
	case !c.open:
		c.above = c.above || len(c.pend) > loop.HighWater
	case c.ender == nil || len(c.pend) >= sealAt:
		c.seal()
	case !c.ending:
		c.ending = true
		c.ender.AtEnd(c)
	}
}

// Flush is called at the end of a turn in which something was written.
func (c *Conn) Flush() {
	c.ending = false
	if c.open && !c.gone {
		c.seal()
	}
}

// seal encrypts what was collected.
func (c *Conn) seal() {
	if len(c.pend) == 0 {
		return
	}
	c.wire.sealing = true
	c.wire.sealed = c.pool.Get(len(c.pend) + (len(c.pend)/(16<<10)+1)*64)
	_, err := c.tls.Write(c.pend)
	c.wire.sealing = false
	c.raw.Write(c.wire.sealed)
	c.pool.Put(c.wire.sealed)
	c.pool.Put(c.pend)
	c.wire.sealed, c.pend = nil, nil
	if err != nil {
		c.fail(err)
	}
}

// Buffered answers what the connection below has not sent; up to 64 KiB that wait for the turn's end are not
// counted.
func (c *Conn) Buffered() int {
	switch {
	case c.gone:
		return 0
	case !c.open:
		return len(c.pend)
	}
	return c.raw.Buffered()
}

// Pause stops Data and EOF; see loop.Conn.
func (c *Conn) Pause() {
	c.paused = true
	if c.open {
		c.raw.Pause()
	}
}

// Resume undoes Pause.
func (c *Conn) Resume() {
	if !c.paused {
		return
	}
	c.paused = false
	if c.open {
		c.raw.Resume()
		c.again()
	}
}

// CloseWrite sends close_notify and FIN after what was written.
func (c *Conn) CloseWrite() {
	if c.shut || c.stopped() {
		return
	}
	c.shut = true
	if c.open {
		c.seal()
		_ = c.tls.CloseWrite()
		c.raw.CloseWrite()
	}
}

// Close sends close_notify after what was written and ends the connection; a
// handshake that runs is given up, unless something was written.
func (c *Conn) Close() {
	if c.stopped() {
		return
	}
	c.closing = true
	switch {
	case c.open:
		c.closeNow()
	case len(c.pend) > 0:
		c.closeLater = true
	default:
		c.wire.kill()
		c.raw.Reset()
	}
}

func (c *Conn) closeNow() {
	c.seal()
	_ = c.tls.CloseWrite()
	c.raw.Close()
}

// Reset ends the connection at once.
func (c *Conn) Reset() {
	if c.gone {
		return
	}
	c.closing = true
	c.wire.kill()
	c.raw.Reset()
}

// SetHandler puts another handler in charge.
func (c *Conn) SetHandler(h loop.Handler) {
	c.h = h
	c.swapped = c.reading
	c.eofTold = false
	if c.open && !c.reading {
		c.again()
	}
}

// Loop answers where the connection lives.
func (c *Conn) Loop() loop.Loop { return c.loop }

// Local answers the address of the connection below.
func (c *Conn) Local() netip.AddrPort {
	if c.raw == nil {
		return netip.AddrPort{}
	}
	return c.raw.Local()
}

// Remote likewise.
func (c *Conn) Remote() netip.AddrPort {
	if c.raw == nil {
		return netip.AddrPort{}
	}
	return c.raw.Remote()
}

func (c *Conn) stopped() bool { return c.closing || c.gone || c.err != nil }

func (c *Conn) grow(b, p []byte) []byte { return c.pool.Append(b, p) }

// wireOut writes what the handshake wants written.
func (c *Conn) wireOut() {
	if out := c.wire.take(); len(out) > 0 && !c.gone {
		c.raw.Write(out)
	}
}

// fail ends a connection that broke, after the alert has gone out.
func (c *Conn) fail(err error) {
	if c.gone || c.err != nil {
		return
	}
	c.err = err
	c.raw.Close()
}

var (
	_ loop.Conn    = (*Conn)(nil)
	_ loop.Flusher = (*Conn)(nil)
)
