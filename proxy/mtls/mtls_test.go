package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/loop/looptest"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// authority is a root that issues SVIDs.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}
}

type source struct{ id *mtls.Identity }

func (s source) Identity() *mtls.Identity { return s.id }

// issue answers a source with a certificate for uris that change may spoil.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate), uris ...string) source {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = append(tmpl.URIs, parsed)
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return source{&mtls.Identity{Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, Roots: a.pool}}
}

const (
	web  = "spiffe://tulle.local/ns/default/sa/web"
	cart = "spiffe://tulle.local/ns/default/sa/cart"
	sni  = "p8080.cart-v1.default.mesh.tulle"
)

func id(t testing.TB, s string) spiffe.ID {
	t.Helper()
	v, err := spiffe.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func start(t testing.TB) *loop.Epoll {
	t.Helper()
	e, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go e.Run()
	t.Cleanup(e.Close)
	return e
}

func do(l loop.Loop, f func()) {
	done := make(chan struct{})
	if l.Post(func() { f(); close(done) }) {
		<-done
	}
}

// overTLS is looptest.World where every connection is mTLS.
type overTLS struct {
	t              *testing.T
	loops          [2]*loop.Epoll
	client, server *tls.Config
}

// tlsLoop dials with TLS.
type tlsLoop struct {
	*loop.Epoll
	cfg *tls.Config
}

func (l tlsLoop) Dial(d loop.Dial, h loop.Handler) loop.Conn { return mtls.Dial(l.Epoll, d, l.cfg, h) }

// tlsIncoming adopts with TLS. Conn.Loop answers the plain loop, so loops are given as such.
type tlsIncoming struct {
	loop.Incoming
	cfg *tls.Config
}

func (in tlsIncoming) Adopt(l loop.Loop, serve func(loop.Conn) loop.Handler) {
	in.Incoming.Adopt(l.(tlsLoop).Epoll, func(raw loop.Conn) loop.Handler {
		c := mtls.Server(raw, in.cfg, nil)
		if h := serve(c); h != nil {
			c.SetHandler(h)
		}
		return nil
	})
}

func (w *overTLS) Loop(i int) loop.Loop { return tlsLoop{w.loops[i], w.client} }

func (w *overTLS) Listen(l loop.Loop, accept func(loop.Incoming)) netip.AddrPort {
	return listen(w.t, l.(tlsLoop).Epoll, func(in loop.Incoming) { accept(tlsIncoming{in, w.server}) })
}

func listen(t testing.TB, e *loop.Epoll, accept func(loop.Incoming)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	l, err := e.Listen(int(f.Fd()), accept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); f.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func (w *overTLS) Nobody() netip.AddrPort {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func (w *overTLS) Do(l loop.Loop, f func()) { do(l, f) }

func (w *overTLS) Until(cond func() bool) bool {
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		met := false
		do(w.loops[0], func() { do(w.loops[1], func() { met = cond() }) })
		if met {
			return true
		}
	}
	return false
}

func TestContract(t *testing.T) {
	for name, known := range map[string]bool{"fields reached": true, "fields not reached": false} {
		t.Run(name, func(t *testing.T) {
			mtls.SetLayout(t, known)
			ca := newAuthority(t)
			server := mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{})
			client := mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart))
			looptest.Run(t, func(t *testing.T) looptest.World {
				return &overTLS{t: t, loops: [2]*loop.Epoll{start(t), start(t)}, client: client, server: server}
			})
		})
	}
}

// side is a handler that keeps what it is told.
type side struct {
	conn   *mtls.Conn
	got    []byte
	opened chan struct{}
	eof    chan struct{}
	closed chan error
	reply  string
}

func newSide(reply string) *side {
	return &side{opened: make(chan struct{}, 1), eof: make(chan struct{}, 1), closed: make(chan error, 1), reply: reply}
}

func (s *side) Opened() { s.opened <- struct{}{} }
func (s *side) Data(p []byte) int {
	s.got = append(s.got, p...)
	if s.reply != "" {
		s.conn.Write([]byte(s.reply))
	}
	return len(p)
}
func (s *side) EOF()             { s.eof <- struct{}{}; s.conn.CloseWrite() }
func (s *side) Writable()        {}
func (s *side) Closed(err error) { s.closed <- err }

func TestIdentities(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.issue(t, nil, web)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }
	oneUsage := func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }
	strangers := other.issue(t, nil, web)
	strangers.id.Roots = ca.pool
	for _, c := range []struct {
		name           string
		client, server mtls.Source
		expected, sni  string
		known          bool
		fails          string // part of the client's error
	}{
		{name: "fine", client: good, server: ca.issue(t, nil, cart), expected: cart, known: true},
		{name: "another server", client: good, server: ca.issue(t, nil, web), expected: cart, known: true, fails: "expected " + cart},
		{name: "unknown name", client: good, server: ca.issue(t, nil, cart), expected: cart, fails: "unrecognized name"},
		{name: "client expired", client: ca.issue(t, expired, web), server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "server expired", client: good, server: ca.issue(t, expired, cart), expected: cart, known: true, fails: "expired"},
		{name: "client of another root", client: strangers, server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "client with two IDs", client: ca.issue(t, nil, web, cart), server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "client with none", client: ca.issue(t, nil), server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "client with one usage", client: ca.issue(t, oneUsage, web), server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "not authorized", client: ca.issue(t, nil, cart), server: ca.issue(t, nil, cart), expected: cart, known: true, fails: "bad certificate"},
		{name: "server without identity", client: good, server: source{}, expected: cart, known: true, fails: "internal error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := newSide("pong")
			cfg := mtls.ServerConfig(c.server, mtls.ServerOptions{
				Known: func(name string) bool { return c.known && name == sni },
				Authorize: func(name string, peer spiffe.ID) error {
					if name != sni || peer.String() != web {
						return errors.New("not allowed")
					}
					return nil
				},
			})
			client, clientErr, serverErr := exchange(t, cfg, mtls.ClientConfig(c.client, sni, id(t, c.expected)), server)
			if c.fails == "" {
				if clientErr != nil || serverErr != nil || string(client.got) != "pong" {
					t.Errorf("client %v, server %v, got %q", clientErr, serverErr, client.got)
				}
				if client.conn.PeerID().String() != cart || server.conn.PeerID().String() != web || server.conn.ServerName() != sni {
					t.Errorf("peers %v and %v for %q", client.conn.PeerID(), server.conn.PeerID(), server.conn.ServerName())
				}
				if cs := client.conn.State(); cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 || cs.NegotiatedProtocol != mtls.ALPN {
					t.Errorf("version %x, curve %v, protocol %q", cs.Version, cs.CurveID, cs.NegotiatedProtocol)
				}
				return
			}
			var failed *mtls.HandshakeError
			if !errors.As(clientErr, &failed) || !strings.Contains(clientErr.Error(), c.fails) || !errors.As(serverErr, &failed) {
				t.Errorf("client: %v\nserver: %v\nwant %q", clientErr, serverErr, c.fails)
			}
			if len(server.got) > 0 {
				t.Errorf("server got %q", server.got)
			}
		})
	}
}

// exchange has the client say ping, and answers how both ended.
func exchange(t *testing.T, server, client *tls.Config, s *side) (c *side, clientErr, serverErr error) {
	t.Helper()
	a, b := start(t), start(t)
	addr := listen(t, a, func(in loop.Incoming) {
		in.Adopt(b, func(raw loop.Conn) loop.Handler { s.conn = mtls.Server(raw, server, s); return nil })
	})
	c = newSide("")
	do(a, func() {
		c.conn = mtls.Dial(a, loop.Dial{Address: addr}, client, c)
		c.conn.Write([]byte("ping"))
		c.conn.CloseWrite()
	})
	return c, <-c.closed, <-s.closed
}

// TestTruncated: an end without close_notify is an error.
func TestTruncated(t *testing.T) {
	ca := newAuthority(t)
	e := start(t)
	s := newSide("")
	server := mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{})
	addr := listen(t, e, func(in loop.Incoming) {
		in.Adopt(e, func(raw loop.Conn) loop.Handler { s.conn = mtls.Server(raw, server, s); return s.conn.Raw() })
	})
	raw, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(raw, mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart)))
	if _, err := client.Write([]byte("half a sentence")); err != nil {
		t.Fatal(err)
	}
	raw.Close()
	if err := <-s.closed; err != io.ErrUnexpectedEOF {
		t.Errorf("ended with %v", err)
	}
}

// TestStandardPeer speaks with crypto/tls on the other side: many records, large and small, both ways.
func TestStandardPeer(t *testing.T) {
	if !mtls.LayoutKnown() {
		t.Error("crypto/tls has changed: idle connections keep their record buffers; see layout.go")
	}
	ca := newAuthority(t)
	e := start(t)
	server := mtls.ServerConfig(ca.issue(t, nil, cart), mtls.ServerOptions{})
	addr := listen(t, e, func(in loop.Incoming) {
		in.Adopt(e, func(raw loop.Conn) loop.Handler {
			s := &echoSide{}
			s.conn = mtls.Server(raw, server, s)
			return nil
		})
	})
	client, err := tls.Dial("tcp", addr.String(), mtls.ClientConfig(ca.issue(t, nil, web), sni, id(t, cart)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	go func() {
		for rest := data; len(rest) > 0; {
			n, _ := rand.Int(rand.Reader, big.NewInt(40_000))
			k := min(len(rest), int(n.Int64())+1)
			_, _ = client.Write(rest[:k])
			rest = rest[k:]
		}
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil || string(got) != string(data) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
	}
}

type echoSide struct{ conn *mtls.Conn }

func (s *echoSide) Opened()           {}
func (s *echoSide) Data(p []byte) int { s.conn.Write(p); return len(p) }
func (s *echoSide) EOF()              { s.conn.CloseWrite() }
func (s *echoSide) Writable()         {}
func (s *echoSide) Closed(error)      {}
