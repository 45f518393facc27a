// Package mtls is TLS 1.3 between two proxies over any loop.Conn; its Conn is a loop.Conn itself, so code above
// is the same for plain and for TLS. The handshake runs in a goroutine; afterwards the connection's loop drives
// crypto/tls without blocking. Both sides prove a SPIFFE identity. Start reading at Server and Client.
//
// A Conn's methods are called on its loop, as with every loop.Conn. An idle connection holds no record buffer.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// ALPN is the protocol that two proxies speak.
const ALPN = "tulle/1"

// Errors given to Handler.Closed.
var (
	ErrHandshakeTimeout = errors.New("TLS handshake timeout")
	ErrBusy             = errors.New("too many TLS handshakes at once")
)

// HandshakeError is given to Handler.Closed when the handshake failed. Identity tells a peer that proved another
// identity than expected, or none, from every other cause.
type HandshakeError struct {
	Err      error
	Identity bool
}

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }
func (e *HandshakeError) Unwrap() error { return e.Err }

// Identity is what a proxy proves itself with, and whom it believes.
type Identity struct {
	Certificate tls.Certificate // leaf and intermediates, never the root
	Roots       *x509.CertPool
}

// Source answers the identity in force. It is asked at every handshake, from any goroutine, and must not block.
type Source interface{ Identity() *Identity }

// ServerOptions of ServerConfig. Its functions are called from handshake goroutines.
type ServerOptions struct {
	// Known reports whether the server name is one of ours; an unknown one is refused with the alert
	// unrecognized_name before anything else. nil: all are.
	Known func(sni string) bool
	// Authorize decides whether peer may talk to the server name. An error ends the handshake (alert
	// bad_certificate, the nearest that crypto/tls can send). nil: whoever proved an identity may.
	Authorize func(sni string, peer spiffe.ID) error
	Time      func() time.Time // nil: time.Now
}

// ServerConfig answers the configuration for Server. Make one per Source and keep it.
func ServerConfig(src Source, o ServerOptions) *tls.Config { return nil }

// ClientConfig answers the configuration for Client. expected is whom the server must prove to be; the zero ID
// accepts any identity that chains to the roots.
func ClientConfig(src Source, serverName string, expected spiffe.ID) *tls.Config { return nil }

// Handshakes bounds how many handshakes run at once. One value is shared by all loops of a process; it is safe
// for concurrent use. nil stands for the defaults with no bound.
type Handshakes struct {
	Max     int           // at once; 0: 256. Those above wait their turn, at most 16 × Max; above that: ErrBusy
	Timeout time.Duration // from start to Opened; 0: 5 s
}

// Conn is a TLS connection on a loop.
type Conn struct{ raw loop.Conn }

// Server begins the server's side on raw, which it becomes the handler of: the serve function of an Incoming
// may answer nil (or Conn.Raw) after it. h.Opened is called after the handshake, h.Closed with a *HandshakeError
// if it fails. On raw's loop.
func (s *Handshakes) Server(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn { return nil }

// Client begins the client's side on raw, otherwise like Server. A server that refuses our certificate says so
// only after h.Opened: Closed then has an error before any Data.
func (s *Handshakes) Client(raw loop.Conn, cfg *tls.Config, h loop.Handler) *Conn { return nil }

// Dial connects and then begins the client's side; d.Timeout bounds the connect, s.Timeout the handshake.
func (s *Handshakes) Dial(l loop.Loop, d loop.Dial, cfg *tls.Config, h loop.Handler) *Conn {
	return nil
}

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

// Raw answers the handler that the connection below has to have.
func (c *Conn) Raw() loop.Handler { return nil }

// State answers what the handshake agreed on: certificates of the peer, server name, ALPN. Valid after Opened.
func (c *Conn) State() *tls.ConnectionState { return nil }

// PeerID answers the identity that the peer proved. Valid after Opened.
func (c *Conn) PeerID() spiffe.ID { return spiffe.ID{} }

// ServerName answers the SNI that the client asked for. Valid after Opened.
func (c *Conn) ServerName() string { return "" }

func (c *Conn) Write(p []byte)            {}
func (c *Conn) Buffered() int             { return 0 }
func (c *Conn) Pause()                    {}
func (c *Conn) Resume()                   {}
func (c *Conn) CloseWrite()               {}
func (c *Conn) Close()                    {}
func (c *Conn) Reset()                    {}
func (c *Conn) SetHandler(h loop.Handler) {}
func (c *Conn) Loop() loop.Loop           { return nil }
func (c *Conn) Local() netip.AddrPort     { return netip.AddrPort{} }
func (c *Conn) Remote() netip.AddrPort    { return netip.AddrPort{} }

var _ loop.Conn = (*Conn)(nil)
