package server

import (
	"context"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// Connections are those of a gRPC server on which somebody has proven who he is, from the handshake until they are closed, so
// that they can be looked at again when somebody is revoked. They are the server's transport credentials. Safe for concurrent
// use; made by NewConnections.
type Connections struct {
	inner   credentials.TransportCredentials
	src     svid.Source
	refuses func(id spiffe.ID, chain []*x509.Certificate) error

	mu   sync.Mutex
	open map[*proven]struct{} // those that are refused among them
	bounded
}

// proven is a connection whose peer is known.
type proven struct {
	net.Conn
	by     *Connections
	id     spiffe.ID
	chain  []*x509.Certificate
	over   bool        // its identity has too many, or it was revoked: it is served nothing but that
	linger *time.Timer // of over
}

// NewConnections makes the credentials of a server that proves src's identity. refuses, which may be nil, says who is not heard
// although he has proven who he is; it is asked at every handshake and by Review, besides what src believes. Who comes and is refused
// has every call answered with the reason: Unauthenticated where only his certificate was revoked, and PermissionDenied otherwise.
func NewConnections(src svid.Source, refuses func(id spiffe.ID, chain []*x509.Certificate) error) *Connections {
	return &Connections{inner: credentials.NewTLS(svid.HearingConfig(src)), src: src, refuses: refuses, open: map[*proven]struct{}{},
		bounded: bounded{most: DefaultPerIdentity, of: map[spiffe.ID]int{}, refusing: map[string]error{}}}
}

// Options are those of the control plane's gRPC server: these credentials, and small buffers, because there are
// many connections and little is said on each. A dead peer is noticed within about 13 s.
func (c *Connections) Options() []grpc.ServerOption {
	return append(c.refusals(),
		grpc.Creds(c),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(8<<10),
		grpc.MaxRecvMsgSize(1<<20), grpc.ConnectionTimeout(10*time.Second), grpc.MaxConcurrentStreams(16))
}

// Review closes the connections of whoever is refused by now, with every stream and session on them; it answers how many.
func (c *Connections) Review() int {
	c.mu.Lock()
	var list []*proven
	for p := range c.open {
		if !p.over {
			list = append(list, p)
		}
	}
	c.mu.Unlock()
	n := 0
	for _, p := range list {
		if c.why(p) != nil {
			p.Close()
			n++
		}
	}
	return n
}

// why answers why p is not heard, nil if it is.
func (c *Connections) why(p *proven) error {
	if c.refuses != nil {
		if err := c.refuses(p.id, p.chain); err != nil {
			return err
		}
	}
	return c.src.Current().Trust.Refuses(p.id, p.chain)
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *Connections) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.inner.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	t, ok := info.(credentials.TLSInfo)
	if !ok || len(t.State.PeerCertificates) == 0 {
		return conn, info, nil
	}
	p := &proven{Conn: conn, by: c, id: svid.PeerID(t.State), chain: t.State.PeerCertificates}
	if err := c.admit(p); err != nil {
		p.Close()
		return nil, nil, err
	}
	if why := c.why(p); why != nil { // asked after Review knows p
		if err := c.turnAway(p, why); err != nil {
			p.Close()
			return nil, nil, err
		}
	}
	return p, info, nil
}

// Close implements net.Conn.
func (p *proven) Close() error {
	p.by.mu.Lock()
	p.by.gone(p)
	p.by.mu.Unlock()
	return p.Conn.Close()
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *Connections) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.inner.ClientHandshake(ctx, authority, raw)
}

// Info implements credentials.TransportCredentials.
func (c *Connections) Info() credentials.ProtocolInfo { return c.inner.Info() }

// Clone implements credentials.TransportCredentials; what is open is shared.
func (c *Connections) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (c *Connections) OverrideServerName(string) error { return nil }
