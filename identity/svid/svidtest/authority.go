// Package svidtest makes identities for tests: an authority of its own, in memory, that signs whatever it is
// asked for. Never use it outside tests.
package svidtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// Authority is a root that signs leaves directly.
type Authority struct {
	t    testing.TB
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority valid for ten hours around now.
func New(t testing.TB) *Authority {
	a := &Authority{t: t}
	a.key = newKey(t)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-5 * time.Hour), NotAfter: time.Now().Add(5 * time.Hour),
	}
	a.Root = a.sign(tpl, tpl, &a.key.PublicKey)
	return a
}

// Fixed is a source that never changes.
type Fixed struct{ SVID *svid.SVID }

// Current answers the identity.
func (f Fixed) Current() *svid.SVID { return f.SVID }

// Issue answers a new identity of ten hours, half of them over.
func (a *Authority) Issue(id spiffe.ID) Fixed {
	key := newKey(a.t)
	chain := a.Sign(&key.PublicKey, id, time.Now().Add(-5*time.Hour), time.Now().Add(5*time.Hour))
	s, err := svid.New(key, chain, [][]byte{a.Root.Raw})
	if err != nil {
		a.t.Fatal(err)
	}
	return Fixed{s}
}

// Sign answers a chain (DER) for a key.
func (a *Authority) Sign(pub any, id spiffe.ID, from, to time.Time) [][]byte {
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotBefore: from, NotAfter: to,
	}
	return [][]byte{a.sign(tpl, a.Root, pub).Raw}
}

// RootsPEM answers the root.
func (a *Authority) RootsPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw})
}

func (a *Authority) sign(tpl, parent *x509.Certificate, pub any) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
