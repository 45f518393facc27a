package mtls_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// root is an authority whose certificates are PEM.
type root struct {
	*authority
	serial int64
}

func newRoot(t testing.TB) *root {
	a := newAuthority(t)
	// The same key, allowed to sign revocation lists too.
	tmpl := *a.cert
	tmpl.KeyUsage |= x509.KeyUsageCRLSign
	tmpl.Subject = pkix.Name{CommonName: "root " + rand.Text()}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	return &root{authority: a, serial: 100}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (r *root) pem() []byte { return block("CERTIFICATE", r.cert.Raw) }

func (r *root) roots() model.SecretRef {
	return model.SecretRef{Inline: &model.Secret{Roots: model.Material{Bytes: r.pem()}}}
}

// leaf issues a certificate for DNS names.
func (r *root) leaf(t testing.TB, key crypto.Signer, change func(*x509.Certificate), names ...string) *model.Secret {
	t.Helper()
	r.serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(r.serial), KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(30 * time.Minute),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	if key == nil {
		key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &model.Secret{Certificate: model.Material{Bytes: block("CERTIFICATE", der)}, Key: model.Material{Bytes: block("PRIVATE KEY", pkcs8)}}
}

// crl lists serial numbers as revoked.
func (r *root) crl(t testing.TB, serials ...int64) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, r.cert, r.key)
	if err != nil {
		t.Fatal(err)
	}
	return block("X509 CRL", der)
}

func ref(s *model.Secret) model.SecretRef { return model.SecretRef{Inline: s} }

func pairOf(t testing.TB, s *model.Secret) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(s.Certificate.Bytes, s.Key.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func store(t testing.TB) *secret.Store {
	s := secret.New(secret.Config{Every: time.Hour})
	t.Cleanup(s.Close)
	return s
}

func serverContext(t testing.TB, m *model.ServerTLS, s mtls.Secrets) *mtls.ServerContext {
	t.Helper()
	c, err := mtls.NewServerContext(m, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// talk sends a word over c and reads it back.
func talk(c io.ReadWriter) error {
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	var b [4]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

// call opens a connection to addr, has a word come back, and answers what was agreed on.
func call(addr string, cfg *tls.Config) (tls.ConnectionState, error) {
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.ConnectionState(), talk(c)
}

func TestServerChooses(t *testing.T) {
	r := newRoot(t)
	key, _ := rsa.GenerateKey(rand.Reader, 2048)
	m := &model.ServerTLS{ALPN: []string{"h2", "http/1.1"}, Certificates: []model.SecretRef{
		ref(r.leaf(t, nil, nil, "first.example")), ref(r.leaf(t, nil, nil, "*.wild.example")), ref(r.leaf(t, nil, nil, "a.wild.example")),
		ref(r.leaf(t, key, nil, "first.example")),
	}}
	g := serveGated(t, &mtls.Handshakes{}, serverContext(t, m, store(t)).Config())
	for _, c := range []struct {
		sni, want string
		rsa       bool
	}{
		{"", "first.example", false}, {"first.example", "first.example", false}, {"FIRST.example", "first.example", false},
		{"b.wild.example", "*.wild.example", false}, {"a.wild.example", "a.wild.example", false}, {"a.b.wild.example", "first.example", false},
		{"other.example", "first.example", false}, {"first.example", "first.example", true}, {"b.wild.example", "first.example", true},
	} {
		cfg := &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
		if c.rsa { // a client that knows no ECDSA
			cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}
		cs, err := call(g.addr, cfg)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		leaf := cs.PeerCertificates[0]
		if leaf.DNSNames[0] != c.want || (leaf.PublicKeyAlgorithm == x509.RSA) != c.rsa || cs.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%+v: %s with %v, ALPN %q", c, leaf.DNSNames[0], leaf.PublicKeyAlgorithm, cs.NegotiatedProtocol)
		}
		if !c.rsa && cs.CurveID != tls.X25519MLKEM768 {
			t.Errorf("key exchange %v", cs.CurveID)
		}
	}
}

// validations is what both sides have to accept or refuse of a certificate for names.
func validations(t *testing.T, r, other *root, good *model.Secret) map[string]struct {
	v    model.Validation
	cert *model.Secret
	ok   bool
} {
	der := pairOf(t, good).Certificate[0]
	leaf, _ := x509.ParseCertificate(der)
	sum, spki := sha256.Sum256(der), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	hexed := hex.EncodeToString(sum[:])
	expired := r.leaf(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "a.example")
	wrongUse := r.leaf(t, nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "a.example")
	foreign := other.leaf(t, nil, nil, "a.example")
	match := func(kind model.SANKind, how model.StringMatchKind, value string) []model.SANMatch {
		return []model.SANMatch{{Kind: kind, Match: model.StringMatch{Kind: how, Value: value}}}
	}
	many := r.leaf(t, nil, func(c *x509.Certificate) {
		c.EmailAddresses, c.IPAddresses = []string{"me@a.example"}, []net.IP{net.IPv4(192, 0, 2, 1)}
		c.URIs = append(c.URIs, mustURL(t, web))
	}, "*.a.example")
	crl := func(r *root, serials ...int64) model.SecretRef {
		return ref(&model.Secret{CRL: model.Material{Bytes: r.crl(t, serials...)}})
	}
	type one = struct {
		v    model.Validation
		cert *model.Secret
		ok   bool
	}
	return map[string]one{
		"chain":             {model.Validation{Roots: r.roots()}, good, true},
		"foreign chain":     {model.Validation{Roots: r.roots()}, foreign, false},
		"expired":           {model.Validation{Roots: r.roots()}, expired, false},
		"expired, allowed":  {model.Validation{Roots: r.roots(), AllowExpired: true}, expired, true},
		"expired, foreign":  {model.Validation{Roots: other.roots(), AllowExpired: true}, expired, false},
		"wrong usage":       {model.Validation{Roots: r.roots()}, wrongUse, false},
		"untrusted":         {model.Validation{Roots: r.roots(), AcceptUntrusted: true}, foreign, true},
		"hash":              {model.Validation{Hashes: []string{hexed}}, good, true},
		"hash with colons":  {model.Validation{Hashes: []string{strings.ToUpper(hexed[:2]) + ":" + hexed[2:]}}, good, true},
		"hash of another":   {model.Validation{Hashes: []string{hexed}}, foreign, false},
		"hash, no chain":    {model.Validation{Roots: other.roots(), Hashes: []string{hexed}}, good, false},
		"key":               {model.Validation{SPKI: []string{base64.StdEncoding.EncodeToString(spki[:])}, Hashes: []string{strings.Repeat("00", 32)}}, good, true},
		"key of another":    {model.Validation{SPKI: []string{base64.StdEncoding.EncodeToString(spki[:])}}, foreign, false},
		"DNS":               {model.Validation{Roots: r.roots(), SANs: match(model.SANDNS, model.StringExact, "a.example")}, good, true},
		"DNS wildcard":      {model.Validation{Roots: r.roots(), SANs: match(model.SANDNS, model.StringExact, "b.a.example")}, many, true},
		"DNS two labels":    {model.Validation{Roots: r.roots(), SANs: match(model.SANDNS, model.StringExact, "c.b.a.example")}, many, false},
		"DNS of another":    {model.Validation{Roots: r.roots(), SANs: match(model.SANDNS, model.StringExact, "b.example")}, good, false},
		"DNS suffix":        {model.Validation{Roots: r.roots(), SANs: match(model.SANDNS, model.StringSuffix, ".example")}, good, true},
		"DNS, other kind":   {model.Validation{Roots: r.roots(), SANs: match(model.SANURI, model.StringExact, "a.example")}, good, false},
		"URI":               {model.Validation{Roots: r.roots(), SANs: match(model.SANURI, model.StringExact, web)}, many, true},
		"URI prefix":        {model.Validation{Roots: r.roots(), SANs: match(model.SANURI, model.StringPrefix, "spiffe://tulle.local/")}, many, true},
		"URI regex":         {model.Validation{Roots: r.roots(), SANs: match(model.SANURI, model.StringRegex, "spiffe://[a-z.]+/ns/.*")}, many, true},
		"URI half a regex":  {model.Validation{Roots: r.roots(), SANs: match(model.SANURI, model.StringRegex, "spiffe://[a-z.]+")}, many, false},
		"email":             {model.Validation{Roots: r.roots(), SANs: match(model.SANEmail, model.StringContains, "@a.")}, many, true},
		"IP":                {model.Validation{Roots: r.roots(), SANs: match(model.SANIP, model.StringExact, "192.0.2.1")}, many, true},
		"IP of another":     {model.Validation{Roots: r.roots(), SANs: match(model.SANIP, model.StringExact, "192.0.2.2")}, many, false},
		"any kind":          {model.Validation{Roots: r.roots(), SANs: match(model.SANAny, model.StringExact, "me@a.example")}, many, true},
		"not revoked":       {model.Validation{Roots: r.roots(), CRL: crl(r, 1)}, good, true},
		"revoked":           {model.Validation{Roots: r.roots(), CRL: crl(r, leaf.SerialNumber.Int64())}, good, false},
		"list of another":   {model.Validation{Roots: r.roots(), CRL: crl(other)}, good, false},
		"no validation set": {model.Validation{}, foreign, true},
	}
}

func TestServerValidates(t *testing.T) {
	r, other := newRoot(t), newRoot(t)
	good := r.leaf(t, nil, nil, "a.example")
	own := ref(r.leaf(t, nil, nil, "server.example"))
	for name, c := range validations(t, r, other, good) {
		v := c.v
		ctx := serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{own}, Validation: &v, RequireClient: true}, store(t))
		g := serveGated(t, &mtls.Handshakes{}, ctx.Config())
		cfg := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pairOf(t, c.cert)}}
		_, err := call(g.addr, cfg)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		var failed *mtls.HandshakeError
		if end := <-g.closed; !c.ok && (!errors.As(end, &failed) || !failed.Identity) {
			t.Errorf("%s: the server's side ended with %v", name, end)
		}
		if _, err := call(g.addr, &tls.Config{InsecureSkipVerify: true}); err == nil {
			t.Errorf("%s: let in without a certificate", name)
		}
		v.Roots, v.System = r.roots(), false
		g = serveGated(t, &mtls.Handshakes{}, serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{own}, Validation: &v}, store(t)).Config())
		if _, err := call(g.addr, &tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Errorf("%s: no certificate is required, and %v", name, err)
		}
	}
}

func TestClientValidates(t *testing.T) {
	r, other := newRoot(t), newRoot(t)
	good := r.leaf(t, nil, nil, "a.example")
	l := start(t)
	for name, c := range validations(t, r, other, good) {
		ctx, err := mtls.NewClientContext(&model.ClientTLS{SNI: "x.example", Validation: &c.v}, store(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := callOut(t, l, ctx.Config(""), pairOf(t, c.cert)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for host, ok := range map[string]bool{"a.example": true, "b.example": false, "": false} {
		ctx, err := mtls.NewClientContext(&model.ClientTLS{AutoSANs: true, Validation: &model.Validation{Roots: r.roots()}}, store(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := callOut(t, l, ctx.Config(host), pairOf(t, good)); (err == nil) != ok {
			t.Errorf("host %q: %v", host, err)
		}
	}
}

// callOut has a loop call a crypto/tls server that echoes.
func callOut(t testing.TB, l *loop.Epoll, cfg *tls.Config, cert tls.Certificate) error {
	t.Helper()
	ln := echoing13(t, &tls.Config{Certificates: []tls.Certificate{cert}})
	defer ln.Close()
	_, err := callLoop(t, l, ln.Addr().String(), cfg, mtls.Options{})
	return err
}

// echoing13 is a crypto/tls server that echoes.
func echoing13(t testing.TB, cfg *tls.Config) net.Listener {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return ln
}

// caller says a word when it may, and closes when it has come back.
type caller struct {
	conn  *mtls.Conn
	word  string
	state *tls.ConnectionState
	over  chan error
	ok    bool
}

func (c *caller) Opened() {
	c.state = c.conn.State()
	c.conn.Write([]byte(c.word))
}
func (c *caller) Data(p []byte) int {
	if string(p) == c.word {
		c.ok = true
		c.conn.Close()
	}
	return 0
}
func (c *caller) EOF()      {}
func (c *caller) Writable() {}
func (c *caller) Closed(err error) {
	if err == nil && !c.ok {
		err = io.ErrUnexpectedEOF
	}
	c.over <- err
}

// callLoop has a loop call addr, and a word come back.
func callLoop(t testing.TB, l *loop.Epoll, addr string, cfg *tls.Config, o mtls.Options) (*tls.ConnectionState, error) {
	t.Helper()
	c := &caller{word: "word", over: make(chan error, 1)}
	do(l, func() { c.conn = (&mtls.Handshakes{}).DialWith(l, loop.Dial{Address: ap(t, addr)}, cfg, c, o) })
	err := <-c.over
	return c.state, err
}

func TestContextErrors(t *testing.T) {
	r := newRoot(t)
	own := []model.SecretRef{ref(r.leaf(t, nil, nil, "a"))}
	san := []model.SANMatch{{Match: model.StringMatch{Value: "x"}}}
	for want, m := range map[string]*model.ServerTLS{
		"needs a certificate":  {},
		"neither given in":     {Certificates: []model.SecretRef{{}}},
		"has no certificate":   {Certificates: []model.SecretRef{r.roots()}},
		"give trusted roots":   {Certificates: own, Validation: &model.Validation{SANs: san}},
		"has no trusted root":  {Certificates: own, Validation: &model.Validation{Roots: own[0]}},
		"no SHA-256 in hex":    {Certificates: own, Validation: &model.Validation{Hashes: []string{"ab"}}},
		"no SHA-256 in base64": {Certificates: own, Validation: &model.Validation{SPKI: []string{"ab"}}},
		"missing closing":      {Certificates: own, Validation: &model.Validation{Roots: r.roots(), SANs: []model.SANMatch{{Match: model.StringMatch{Kind: model.StringRegex, Value: "("}}}}},
		`"RC4" is not run`:     {Certificates: own, Parameters: model.TLSParameters{Ciphers: []string{"RC4"}}},
		`"P-1" is not run`:     {Certificates: own, Parameters: model.TLSParameters{Curves: []string{"P-1"}}},
		"lowest version":       {Certificates: own, Parameters: model.TLSParameters{Min: model.TLS13, Max: model.TLS12}},
	} {
		if _, err := mtls.NewServerContext(m, store(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, m := range map[string]*model.ClientTLS{
		"one certificate at most": {Certificates: append(own, own...)},
		"nothing verifies":        {AutoSANs: true},
	} {
		if _, err := mtls.NewClientContext(m, store(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestHeaderFirst: a PROXY header goes out in the clear, before the handshake.
func TestHeaderFirst(t *testing.T) {
	r := newRoot(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	header := []byte("PROXY UNKNOWN\r\n")
	seen := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		got := make([]byte, len(header))
		_, _ = io.ReadFull(c, got)
		seen <- got
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pairOf(t, r.leaf(t, nil, nil, "a"))}})
		_, _ = io.Copy(s, s)
		s.Close()
	}()
	ctx, err := mtls.NewClientContext(&model.ClientTLS{}, store(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := callLoop(t, start(t), ln.Addr().String(), ctx.Config(""), mtls.Options{Header: header}); err != nil {
		t.Error(err)
	}
	if got := <-seen; !bytes.Equal(got, header) {
		t.Errorf("%q", got)
	}
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
