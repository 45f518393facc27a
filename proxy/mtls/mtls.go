// Package mtls is TLS over any loop.Conn: between two proxies (ServerConfig, ClientConfig: 1.3, both sides prove a SPIFFE
// identity), and with everybody else (ServerContext, ClientContext: what a listener or a cluster of a bootstrap says). Its
// Conn is a loop.Conn itself, so code above is the same for plain and for TLS. The handshake runs in a goroutine, a few at
// a time (Handshakes); afterwards the connection's loop drives crypto/tls without blocking. A peer is verified in every
// handshake, resumed ones too. Start reading at Handshakes.
//
// A Conn's methods are called on its loop, as with every loop.Conn. An idle connection holds no record buffer.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// ALPN is the protocol that two proxies speak.
const ALPN = "tulle/1"

// Errors given to Handler.Closed, inside a *HandshakeError.
var (
	ErrHandshakeTimeout = errors.New("not done in time")
	ErrBusy             = errors.New("too many handshakes at once")
)

// HandshakeError is given to Handler.Closed when the handshake failed. Identity tells a peer that proved another
// identity than expected, or none, or that we do not talk to, from every other cause.
type HandshakeError struct {
	Err      error
	Identity bool
}

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }
func (e *HandshakeError) Unwrap() error { return e.Err }

// Identity is what a proxy proves itself with, and whom it believes. Immutable.
type Identity struct {
	Certificate tls.Certificate // leaf and intermediates, never the root
	Roots       *x509.CertPool  // of every peer, where there is no Trust
	Trust       *svid.Trust     // roots by trust domain, and what was revoked; nil: Roots
}

// Source answers the identity in force. It is asked at every handshake, from any goroutine, and must not block;
// nil fails the handshake.
type Source interface{ Identity() *Identity }

// Server is Handshakes.Server without a bound.
func Server(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn {
	return (*Handshakes)(nil).Server(raw, cfg, h)
}

// Client is Handshakes.Client without a bound.
func Client(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn {
	return (*Handshakes)(nil).Client(raw, cfg, h)
}

// Dial is Handshakes.Dial without a bound.
func Dial(l loop.Loop, d loop.Dial, cfg *tls.Config, h loop.Handler) *Conn {
	return (*Handshakes)(nil).Dial(l, d, cfg, h)
}
