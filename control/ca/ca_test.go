package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

var cart = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}

func open(t *testing.T, dir string, now time.Time) *ca.CA {
	t.Helper()
	c, err := ca.Open(ca.Config{Dir: dir}, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t *testing.T, key crypto.Signer, uris ...string) []byte {
	t.Helper()
	r := &x509.CertificateRequest{}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		r.URIs = append(r.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verify holds a chain against the bundle with go-spiffe, which is not ours.
func verify(t *testing.T, c *ca.CA, issued *ca.Issued, at time.Time) *x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range issued.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	bundle, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString("tulle.local"), c.RootsPEM())
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(at))
	if err != nil {
		t.Fatal(err)
	}
	if id.String() != cart.String() {
		t.Fatalf("the certificate is of %s", id)
	}
	return chain[0]
}

func TestSign(t *testing.T) {
	now := time.Now()
	c := open(t, filepath.Join(t.TempDir(), "ca"), now)
	issued, err := c.Sign(request(t, newKey(t), cart.String()), cart, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf := verify(t, c, issued, now)
	if d := leaf.NotAfter.Sub(now); d > ca.LeafTTL || d < ca.LeafTTL-time.Minute || now.Sub(leaf.NotBefore) < 4*time.Minute {
		t.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	if leaf.IsCA || leaf.Subject.String() != "" || len(issued.Chain) != 2 {
		t.Errorf("CA %v, subject %q, chain of %d", leaf.IsCA, leaf.Subject, len(issued.Chain))
	}
}

func TestSignRefuses(t *testing.T) {
	now := time.Now()
	c := open(t, filepath.Join(t.TempDir(), "ca"), now)
	key := newKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	named, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"bank.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	broken := request(t, key)
	broken[len(broken)-1] ^= 1
	other := cart
	other.TrustDomain = "elsewhere"
	for name, c2 := range map[string]struct {
		csr []byte
		id  spiffe.ID
	}{
		"another identity": {request(t, key, "spiffe://tulle.local/ns/default/sa/bank"), cart},
		"two names":        {request(t, key, cart.String(), "spiffe://tulle.local/ns/default/sa/bank"), cart},
		"a DNS name":       {named, cart}, "RSA": {request(t, rsaKey), cart}, "P-224": {request(t, p224), cart},
		"a bad signature": {broken, cart}, "no request": {[]byte("x"), cart}, "trust domain": {request(t, key), other}, "nobody": {request(t, key), spiffe.ID{}},
	} {
		if _, err := c.Sign(c2.csr, c2.id, 0, now); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := c.Sign(request(t, key), cart, 0, now); err != nil {
		t.Errorf("a request without a name: %v", err)
	}
}

// TestFiles: the authority is the same after a restart, its keys are for nobody else, what a killed start left
// behind does no harm, and it is refused when it is not whole or not ours.
func TestFiles(t *testing.T) {
	parent, now := t.TempDir(), time.Now()
	dir := filepath.Join(parent, "ca")
	if err := os.Mkdir(dir+".new-killed", 0o700); err != nil {
		t.Fatal(err)
	}
	first := open(t, dir, now)
	if string(open(t, dir, now).RootsPEM()) != string(first.RootsPEM()) {
		t.Fatal("another root after a restart")
	}
	if left, _ := filepath.Glob(dir + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, name := range []string{"root-key.pem", "intermediate.pem"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.Open(ca.Config{Dir: dir}, now); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s is readable by others: %v", name, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ca.Open(ca.Config{Dir: dir, TrustDomain: "elsewhere"}, now); err == nil || !strings.Contains(err.Error(), "tulle.local") {
		t.Errorf("another trust domain: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "root.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(ca.Config{Dir: dir}, now); err == nil {
		t.Error("opened without its root")
	}
}

// TestRenewal: the intermediate is renewed long before it ends, and old leaves stay valid.
func TestRenewal(t *testing.T) {
	now, dir := time.Now(), filepath.Join(t.TempDir(), "ca")
	c := open(t, dir, now)
	later := now.Add(300 * 24 * time.Hour)
	old, err := c.Sign(request(t, newKey(t)), cart, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.Sign(request(t, newKey(t)), cart, 0, later)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, c, old, now)
	verify(t, c, issued, later.Add(ca.LeafTTL-time.Minute))
	if string(old.Chain[1]) == string(issued.Chain[1]) {
		t.Error("the intermediate is the old one")
	}
	again, err := open(t, dir, later).Sign(request(t, newKey(t)), cart, 0, later)
	if err != nil || string(again.Chain[1]) != string(issued.Chain[1]) {
		t.Errorf("after a restart another intermediate signs: %v", err)
	}
	if _, err := c.Sign(request(t, newKey(t)), cart, 0, now.Add(11*365*24*time.Hour)); err == nil {
		t.Error("signed after the end of the root")
	}
}
