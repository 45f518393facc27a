package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// trusting answers who with a trust of the roots of a, and what m says besides.
func (a *authority) trusting(t testing.TB, who source, m model.Trust) *mtls.Identity {
	t.Helper()
	m.Bundles = append(m.Bundles, model.TrustBundle{TrustDomain: "tulle.local", Roots: [][]byte{a.cert.Raw}})
	trust, err := svid.NewTrust("tulle.local", &m)
	if err != nil {
		t.Fatal(err)
	}
	return &mtls.Identity{Certificate: who.id.Certificate, Trust: trust}
}

// changing is a source whose identity changes.
type changing struct{ atomic.Pointer[mtls.Identity] }

func (c *changing) Identity() *mtls.Identity { return c.Load() }

func serial(n int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

// among is a server whose connections are looked at again.
func among(t *testing.T, src mtls.Source, o *mtls.Open) *gated {
	g := &gated{loop: start(t), opened: make(chan struct{}, 1000), closed: make(chan error, 1000)}
	cfg := mtls.ServerConfig(src, mtls.ServerOptions{})
	g.addr = listen(t, g.loop, func(in loop.Incoming) {
		in.Adopt(g.loop, func(raw loop.Conn) loop.Handler {
			s := &gatedSide{g: g}
			s.conn = (*mtls.Handshakes)(nil).ServerWith(raw, cfg, s, mtls.Options{Among: o})
			return nil
		})
	}).String()
	return g
}

// TestRevoked: what is open with somebody who is revoked ends, however many connections those are, nobody else's does, and a
// new handshake is refused, by the client as by the server.
func TestRevoked(t *testing.T) {
	a := newAuthority(t)
	server := a.issue(t, nil, cart)
	src, o := &changing{}, &mtls.Open{}
	src.Store(a.trusting(t, server, model.Trust{}))
	o.Refuses = func(c *mtls.Conn) error {
		peer, chain := c.Peer()
		return src.Load().Trust.Refuses(peer, chain)
	}
	g := among(t, src, o)
	clients := []source{a.issue(t, serial(100), web), a.issue(t, serial(101), web), a.issue(t, serial(102), "spiffe://tulle.local/ns/default/sa/shell")}
	open := func(who source) (*tls.Conn, error) {
		c, err := tls.Dial("tcp", g.addr, mtls.ClientConfig(who, sni, id(t, cart)))
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		return c, talk(c)
	}
	var conns [3][]*tls.Conn
	for i, who := range clients {
		for range 100 {
			c, err := open(who)
			if err != nil {
				t.Fatal(err)
			}
			conns[i] = append(conns[i], c)
		}
	}
	ends := func(what string, m model.Trust, gone ...int) {
		t.Helper()
		src.Store(a.trusting(t, server, m))
		var n int
		do(g.loop, func() { n, _ = o.Review(g.loop) })
		if n != 100*len(gone) {
			t.Errorf("%s: %d connections are ended, want %d", what, n, 100*len(gone))
		}
		for range n {
			select {
			case err := <-g.closed:
				if !errors.Is(err, svid.ErrRevoked) {
					t.Fatalf("%s: a connection ended for %v", what, err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: connections stay open", what)
			}
		}
		for _, i := range gone {
			if talk(conns[i][99]) == nil {
				t.Errorf("%s: client %d can still talk", what, i)
			}
			if _, err := open(clients[i]); err == nil {
				t.Errorf("%s: client %d got in again", what, i)
			}
		}
	}
	one := []model.Revocation{{Serial: []byte{101}}}
	ends("a serial number", model.Trust{Revoked: one}, 1)
	ends("an identity, of before", model.Trust{Revoked: append(one, model.Revocation{Identity: web, Before: time.Now().Add(-time.Hour).Unix()})})
	ends("an identity", model.Trust{Revoked: append(one, model.Revocation{Identity: web, Before: time.Now().Unix()})}, 0)
	for _, c := range conns[2] {
		if err := talk(c); err != nil {
			t.Fatalf("a connection of somebody else was touched: %v", err)
		}
	}
	left := 0
	do(g.loop, func() { o.Each(func(*mtls.Conn) { left++ }) })
	if left != 100 {
		t.Errorf("%d connections are known to be open, want 100", left)
	}

	revoked := source{a.trusting(t, clients[2], model.Trust{Revoked: []model.Revocation{{Identity: cart, Before: time.Now().Unix()}}})}
	if _, err := open(revoked); !errors.Is(err, svid.ErrRevoked) {
		t.Errorf("a client of a server that is revoked: %v", err)
	}
}

// TestTrustDomains: each trust domain has its own roots; one that is federated is believed, and not let in by that alone.
func TestTrustDomains(t *testing.T) {
	ours, theirs, nobodys := newAuthority(t), newAuthority(t), newAuthority(t)
	far := "spiffe://far.example/ns/default/sa/web"
	for name, c := range map[string]struct {
		who   source
		alias bool
		ok    bool
	}{
		"ours":                          {ours.issue(t, nil, web), false, true},
		"theirs, named by our root":     {ours.issue(t, nil, far), true, false},
		"ours, named by their root":     {theirs.issue(t, nil, web), true, false},
		"an alias":                      {theirs.issue(t, nil, far), true, true},
		"federated":                     {theirs.issue(t, nil, far), false, false},
		"of a domain that is not there": {nobodys.issue(t, nil, "spiffe://nobody.example/ns/default/sa/web"), true, false},
	} {
		bundle := model.TrustBundle{TrustDomain: "far.example", Roots: [][]byte{theirs.cert.Raw}, Alias: c.alias}
		src := source{ours.trusting(t, ours.issue(t, nil, cart), model.Trust{Bundles: []model.TrustBundle{bundle}})}
		g := among(t, src, nil)
		client := source{&mtls.Identity{Certificate: c.who.id.Certificate, Roots: ours.pool}}
		conn, err := tls.Dial("tcp", g.addr, mtls.ClientConfig(client, sni, id(t, cart)))
		if err == nil {
			err = talk(conn)
			conn.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// late is a source whose mesh is ahead of this machine's clock.
type late struct {
	source
	by time.Duration
}

func (l late) Now() time.Time { return time.Now().Add(l.by) }

// TestMeshTime: certificates are held against the mesh's time, on both sides.
func TestMeshTime(t *testing.T) {
	a := newAuthority(t)
	ended := a.issue(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-50*time.Second), time.Now().Add(-20*time.Second)
	}, web)
	good := a.issue(t, nil, cart)
	for name, c := range map[string]struct {
		client late
		server time.Duration
		ok     bool
	}{
		"no clock is wrong":                           {late{a.issue(t, nil, web), 0}, 0, true},
		"a client's that the server knows has ended":  {late{ended, 0}, 0, false},
		"ended by the server's clock, not the mesh's": {late{ended, 0}, -35 * time.Second, true},
		"a server's that has ended in the mesh":       {late{a.issue(t, nil, web), 2 * time.Hour}, 0, false},
	} {
		g := &gated{loop: start(t), opened: make(chan struct{}, 10), closed: make(chan error, 10)}
		cfg := mtls.ServerConfig(good, mtls.ServerOptions{Time: func() time.Time { return time.Now().Add(c.server) }})
		g.addr = listen(t, g.loop, func(in loop.Incoming) {
			in.Adopt(g.loop, func(raw loop.Conn) loop.Handler {
				s := &gatedSide{g: g}
				s.conn = mtls.Server(raw, cfg, s)
				return nil
			})
		}).String()
		conn, err := tls.Dial("tcp", g.addr, mtls.ClientConfig(c.client, sni, id(t, cart)))
		if err == nil {
			err = talk(conn)
			conn.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
