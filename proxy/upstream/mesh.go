package upstream

import (
	"errors"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// Mesh connects to other proxies on behalf of one identity.
type Mesh struct {
	Loop       loop.Loop
	Source     mtls.Source
	Handshakes *mtls.Handshakes // shared by all loops; nil: no bound
	Open       *mtls.Open       // of the loop; may be nil
}

// Dial starts a blank connection to the proxy at address: h.Opened is called when the handshake is done and the
// peer has proven identity, h.Closed when it failed (see DialFailure). An identity that is not a SPIFFE ID is never proven.
func (m *Mesh) Dial(address netip.AddrPort, serverName, identity string, timeout time.Duration, h loop.Handler) loop.Conn {
	id, err := spiffe.ParseID(identity)
	d := loop.Dial{Address: address, Timeout: timeout}
	if err != nil {
		n := &misfit{h: h, err: &failure.Failure{Reason: failure.PeerIdentity, Cause: err}}
		c := m.Loop.Dial(d, n)
		c.Reset()
		return c
	}
	return m.Handshakes.DialWith(m.Loop, d, mtls.ClientConfig(m.Source, serverName, id), h, mtls.Options{Among: m.Open})
}

// misfit ends a connection to an endpoint that cannot prove who it is. It is made at all so that
// h hears of it later and never from inside Dial.
type misfit struct {
	h   loop.Handler
	err error
}

func (m *misfit) Opened()           {}
func (m *misfit) Data(p []byte) int { return len(p) }
func (m *misfit) EOF()              {}
func (m *misfit) Writable()         {}
func (m *misfit) Closed(error)      { m.h.Closed(m.err) }

// DialFailure translates why a connection could not be made.
func DialFailure(err error) *failure.Failure {
	var f *failure.Failure
	if errors.As(err, &f) {
		return f
	}
	reason := failure.ConnectFailed
	var handshake *mtls.HandshakeError
	switch {
	case errors.Is(err, loop.ErrConnectTimeout), errors.Is(err, mtls.ErrHandshakeTimeout):
		reason = failure.ConnectTimeout
	case errors.Is(err, mtls.ErrBusy):
		reason = failure.Overload
	case errors.Is(err, svid.ErrRevoked):
		reason = failure.Revoked
	case errors.As(err, &handshake) && handshake.Identity:
		reason = failure.PeerIdentity
	case handshake != nil:
		reason = failure.TLSFailed
	}
	return &failure.Failure{Reason: reason, Cause: err}
}
