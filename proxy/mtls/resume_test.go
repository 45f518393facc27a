package mtls_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// resuming is a server context whose roots come over SDS, and a client of it that resumes what it can.
type resuming struct {
	r      *root
	store  *secret.Store
	ctx    *mtls.ServerContext
	client *tls.Config
	serial int64
	gates  []*gated
}

func newResuming(t *testing.T, version uint16, change func(*x509.Certificate)) *resuming {
	r := newRoot(t)
	f := &resuming{r: r, store: store(t)}
	f.roots(t, r.pem(), r.crl(t))
	f.ctx = serverContext(t, &model.ServerTLS{
		Certificates: []model.SecretRef{ref(r.leaf(t, nil, nil, "server.example"))},
		Validation:   &model.Validation{Roots: model.SecretRef{SDS: "roots"}, SANs: []model.SANMatch{{Kind: model.SANDNS, Match: model.StringMatch{Value: "a.example"}}}},
	}, f.store)
	cert := r.leaf(t, nil, change, "a.example")
	f.serial = r.serial
	f.client = &tls.Config{
		ServerName: "server.example", InsecureSkipVerify: true, MaxVersion: version,
		Certificates: []tls.Certificate{pairOf(t, cert)}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	for range 2 { // loops
		f.gates = append(f.gates, serveGated(t, &mtls.Handshakes{}, f.ctx.Config()))
	}
	return f
}

// roots tells, over SDS, what clients have to chain to.
func (f *resuming) roots(t *testing.T, pem, crl []byte) {
	t.Helper()
	if err := f.store.Update([]model.Secret{{Name: "roots", Roots: model.Material{Bytes: pem}, CRL: model.Material{Bytes: crl}}}); err != nil {
		t.Fatal(err)
	}
}

// TestServerResumes: a session is resumed on any loop, and no longer than its certificate would be accepted.
func TestServerResumes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, spoil := range map[string]func(t *testing.T, f *resuming){
			"":             func(*testing.T, *resuming) {},
			"root rotated": func(t *testing.T, f *resuming) { r := newRoot(t); f.roots(t, r.pem(), r.crl(t)) },
			"revoked":      func(t *testing.T, f *resuming) { f.roots(t, f.r.pem(), f.r.crl(t, f.serial)) },
			"expired": func(_ *testing.T, f *resuming) {
				f.ctx.SetTime(func() time.Time { return time.Now().Add(50 * time.Minute) })
			},
			"root is expired": func(_ *testing.T, f *resuming) {
				f.ctx.SetTime(func() time.Time { return time.Now().Add(2 * time.Hour) })
			},
		} {
			f := newResuming(t, version, nil)
			if name == "root is expired" {
				f = newResuming(t, version, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Hour) })
			}
			if cs, err := call(f.gates[0].addr, f.client); err != nil || cs.DidResume {
				t.Fatalf("first: resumed %v, %v", cs.DidResume, err)
			}
			if cs, err := call(f.gates[1].addr, f.client); err != nil || !cs.DidResume {
				t.Fatalf("second: resumed %v, %v", cs.DidResume, err)
			}
			spoil(t, f)
			if cs, err := call(f.gates[1].addr, f.client); (err == nil) != (name == "") || err == nil && !cs.DidResume {
				t.Errorf("%x, %q: resumed %v, %v", version, name, cs.DidResume, err)
			}
		}
	}
}

// TestOtherContext: a session of one context proves nothing to another.
func TestOtherContext(t *testing.T) {
	f := newResuming(t, tls.VersionTLS13, nil)
	if _, err := call(f.gates[0].addr, f.client); err != nil {
		t.Fatal(err)
	}
	strict := serverContext(t, &model.ServerTLS{
		Certificates: []model.SecretRef{ref(f.r.leaf(t, nil, nil, "server.example"))}, RequireClient: true,
		Validation: &model.Validation{Roots: f.r.roots(), SANs: []model.SANMatch{{Match: model.StringMatch{Value: "b.example"}}}},
	}, f.store)
	if cs, err := call(serveGated(t, &mtls.Handshakes{}, strict.Config()).addr, f.client); err == nil {
		t.Errorf("let in, resumed %v", cs.DidResume)
	}
	none := serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{ref(f.r.leaf(t, nil, nil, "server.example"))}, NoTickets: true}, f.store)
	g := serveGated(t, &mtls.Handshakes{}, none.Config())
	for range 2 {
		if cs, err := call(g.addr, f.client); err != nil || cs.DidResume {
			t.Errorf("without tickets: resumed %v, %v", cs.DidResume, err)
		}
	}
}

// TestClientResumes: our side resumes within its bound, verifies the server again, and not with another certificate.
func TestClientResumes(t *testing.T) {
	r := newRoot(t)
	s := store(t)
	set := func(name string, m *model.Secret) {
		m.Name = name
		if err := s.Update([]model.Secret{*m}); err != nil {
			t.Fatal(err)
		}
	}
	set("roots", &model.Secret{Roots: model.Material{Bytes: r.pem()}})
	set("own", r.leaf(t, nil, nil, "client.example"))
	ctx, err := mtls.NewClientContext(&model.ClientTLS{
		SNI: "server.example", MaxSessions: 1, Certificates: []model.SecretRef{{SDS: "own"}},
		Validation: &model.Validation{Roots: model.SecretRef{SDS: "roots"}},
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	ln := echoing13(t, &tls.Config{Certificates: []tls.Certificate{pairOf(t, r.leaf(t, nil, nil, "server.example"))}, ClientAuth: tls.RequireAnyClientCert})
	l := start(t)
	expect := func(what string, resumed, ok bool) {
		t.Helper()
		cs, err := callLoop(t, l, ln.Addr().String(), ctx.Config("ignored"), mtls.Options{})
		if (err == nil) != ok || ok && cs.DidResume != resumed {
			t.Errorf("%s: %+v, %v", what, cs != nil && cs.DidResume, err)
		}
	}
	expect("first", false, true)
	expect("second", true, true)
	set("own", r.leaf(t, nil, nil, "client.example"))
	expect("with another certificate", false, true)
	expect("with that again", true, true)
	set("roots", &model.Secret{Roots: model.Material{Bytes: newRoot(t).pem()}})
	expect("the server's root is not ours any more", false, false)
	set("roots", &model.Secret{Roots: model.Material{Bytes: r.pem()}})
	expect("it is again", false, true)
	ctx.SetTime(func() time.Time { return time.Now().Add(50 * time.Minute) })
	expect("the server's certificate has expired", false, false)
}

// TestNotReady: a secret that has not come fails handshakes until it has.
func TestNotReady(t *testing.T) {
	r := newRoot(t)
	s := store(t)
	ctx := serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{{SDS: "own"}}, Validation: &model.Validation{Roots: model.SecretRef{SDS: "roots"}}}, s)
	g := serveGated(t, &mtls.Handshakes{}, ctx.Config())
	cfg := &tls.Config{InsecureSkipVerify: true}
	if _, err := call(g.addr, cfg); err == nil || ctx.Ready() {
		t.Errorf("ready %v, %v", ctx.Ready(), err)
	}
	own := r.leaf(t, nil, nil, "a")
	own.Name = "own"
	_ = s.Update([]model.Secret{*own})
	if ctx.Ready() {
		t.Error("ready without roots")
	}
	_ = s.Update([]model.Secret{{Name: "roots", Roots: model.Material{Bytes: r.pem()}}})
	if _, err := call(g.addr, cfg); err != nil || !ctx.Ready() {
		t.Errorf("ready %v, %v", ctx.Ready(), err)
	}
}

// TestRotation: files change, connections stay, and new ones get the new certificate. A broken file changes nothing.
func TestRotation(t *testing.T) {
	r := newRoot(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(m *model.Secret) {
		t.Helper()
		if err := errors.Join(os.WriteFile(cert, m.Certificate.Bytes, 0o600), os.WriteFile(key, m.Key.Bytes, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(r.leaf(t, nil, nil, "one.example"))
	var log strings.Builder
	s := secret.New(secret.Config{Every: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer s.Close()
	own := ref(&model.Secret{Certificate: model.Material{File: cert}, Key: model.Material{File: key}})
	g := serveGated(t, &mtls.Handshakes{}, serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{own}}, s).Config())
	cfg := &tls.Config{InsecureSkipVerify: true}
	old, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	expect := func(name string) {
		t.Helper()
		if err := talk(old); err != nil {
			t.Fatalf("the old connection: %v", err)
		}
		cs, err := call(g.addr, cfg)
		if err != nil || cs.PeerCertificates[0].DNSNames[0] != name {
			t.Errorf("a new connection: %v, want %s", err, name)
		}
	}
	expect("one.example")
	write(r.leaf(t, nil, nil, "two.example"))
	s.Check()
	expect("two.example")
	if err := os.WriteFile(cert, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Check()
	s.Check()
	expect("two.example")
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines are logged about one broken file: %s", n, log.String())
	}
	write(r.leaf(t, nil, nil, "three.example"))
	s.Check()
	expect("three.example")
}

// TestParameters: versions and suites are what the model says.
func TestParameters(t *testing.T) {
	r := newRoot(t)
	own := []model.SecretRef{ref(r.leaf(t, nil, nil, "a"))}
	for _, c := range []struct {
		p       model.TLSParameters
		client  *tls.Config
		ok      bool
		version uint16
	}{
		{model.TLSParameters{}, &tls.Config{}, true, tls.VersionTLS13},
		{model.TLSParameters{}, &tls.Config{MaxVersion: tls.VersionTLS12}, true, tls.VersionTLS12},
		{model.TLSParameters{}, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, 0},
		{model.TLSParameters{Min: model.TLS13}, &tls.Config{MaxVersion: tls.VersionTLS12}, false, 0},
		{model.TLSParameters{Max: model.TLS12}, &tls.Config{}, true, tls.VersionTLS12},
		{model.TLSParameters{Max: model.TLS12, Ciphers: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}}, &tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, false, 0},
		{model.TLSParameters{Curves: []string{"P-384"}}, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, false, 0},
		{model.TLSParameters{Curves: []string{"P-384", "P-256"}}, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, true, tls.VersionTLS13},
	} {
		g := serveGated(t, &mtls.Handshakes{}, serverContext(t, &model.ServerTLS{Parameters: c.p, Certificates: own}, store(t)).Config())
		c.client.InsecureSkipVerify = true
		if cs, err := call(g.addr, c.client); (err == nil) != c.ok || cs.Version != c.version {
			t.Errorf("%+v: version %x, %v", c.p, cs.Version, err)
		}
		g.loop.Close()
	}
}

// TestOlderSuites: much goes both ways with the suites of TLS 1.2, in records of every size.
func TestOlderSuites(t *testing.T) {
	r := newRoot(t)
	ctx := serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{ref(r.leaf(t, nil, nil, "a"))}}, store(t))
	g := serveGated(t, &mtls.Handshakes{}, ctx.Config())
	for _, suite := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256} {
		c, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err != nil {
			t.Error(err)
			continue
		}
		data := make([]byte, 3<<20)
		_, _ = rand.Read(data)
		go func() {
			for rest, n := data, 1; len(rest) > 0; n = n*3%65_521 + 1 {
				k := min(len(rest), n)
				_, _ = c.Write(rest[:k])
				rest = rest[k:]
			}
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d of %d bytes came back, %v", tls.CipherSuiteName(suite), len(got), len(data), err)
		}
		c.Close()
	}
}
